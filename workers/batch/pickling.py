"""Pickle objects with the functions and classes from ``__main__`` or a notebook that they need, by cloudpickle."""

from __future__ import annotations

import functools
import importlib
import io
import pickle
import sys
import threading
import types
import weakref
from typing import Any

import cloudpickle
import numpy as np

from workers.job.walk import Cached, function_of, identity_of, is_dispatcher

_LOCK = type(threading.RLock())


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """A cloudpickle pickler that preserves ``__slots__``: cloudpickle itself drops them, and fails on private names.

    This pickler also pickles cached functions, ufuncs and the like as the Python functions that they wrap, and modules
    of an unusual class by name.
    """

    def reducer_override(self, obj: Any) -> Any:
        if (reduction := _by_what_it_wraps(obj)) is not None:
            return reduction
        if isinstance(obj, types.ModuleType) and type(obj) is not types.ModuleType:
            return _module_of_own_class(obj) or self.dispatch_table[types.ModuleType](obj)
        reduction = super().reducer_override(obj)
        if isinstance(obj, type) and "__slots__" in vars(obj) and isinstance(reduction, tuple):
            return _with_slots(obj, reduction)
        return reduction


def _with_slots(kind: type, reduction: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``reduction``, a recipe for unpickling class ``kind``, changed so that the class keeps its ``__slots__``.

    The class is pickled by value: the recipe contains its definition, not just its name.
    """
    make, arguments, state, *others = reduction
    if make.__name__ != "_make_skeleton_class" or issubclass(kind, tuple):  # an enum; a NamedTuple makes its own slots
        return reduction
    made_of, name, bases, names, *ids = arguments
    slots: Any = vars(kind)["__slots__"]
    slots = slots if isinstance(slots, (str, dict)) else tuple(slots)
    attributes, more = state
    attributes = {
        key: value
        for key, value in attributes.items()
        if key != "__slots__" and not isinstance(value, types.MemberDescriptorType)
    }
    return make, (made_of, name, bases, {**names, "__slots__": slots}, *ids), (attributes, more), *others


def goes_by_name(obj: Any, name: str | None) -> bool:
    """Return True if ``obj`` can be pickled by name, since another process can import it from its module."""
    module = pickle.whichmodule(obj, name) if name else "__main__"  # type: ignore[attr-defined]
    if not name or module == "__main__" or module in cloudpickle.list_registry_pickle_by_value():
        return False
    return part_of(sys.modules.get(module), name) is obj


def _by_what_it_wraps(obj: Any) -> tuple[Any, ...] | None:
    """Return a recipe for unpickling a cached function, ufunc or the like from the function that it wraps.

    Return None if the object should be pickled as usual.
    """
    kind = type(obj)
    if kind is Cached:  # without its content: each process fills its own cache
        if goes_by_name(obj, getattr(obj, "__qualname__", None)):
            return None
        attributes = {key: value for key, value in vars(obj).items() if key != "cache_parameters"}
        return _cached, (function_of(obj), *obj.cache_parameters().values()), attributes
    if kind is types.FunctionType:
        if not is_dispatcher(obj) or goes_by_name(obj, obj.__qualname__):
            return None
        own = "registry", "register", "dispatch", "_clear_cache"
        state = dict(obj.registry), {key: value for key, value in vars(obj).items() if key not in own}
        return functools.singledispatch, (state[0].pop(object),), state, None, None, _set_dispatcher
    if kind is np.ufunc:
        function = function_of(obj)
        return function and (_ufunc, (function, obj.nin, obj.nout, *identity_of(obj)))
    if isinstance(obj, functools.cached_property) and isinstance(vars(obj).get("lock"), _LOCK):  # before Python 3.12
        return _cached_property, (kind,), {key: value for key, value in vars(obj).items() if key != "lock"}
    if isinstance(obj, functools.singledispatchmethod) and "_method_cache" in vars(obj):  # since Python 3.13
        return _dispatcher_of_methods, (kind,), {key: each for key, each in vars(obj).items() if key != "_method_cache"}
    return None


def _module_of_own_class(module: types.ModuleType) -> tuple[Any, ...] | None:
    """Return a recipe for unpickling a ``module`` of an unusual class, such as ``torch.ops``, by its name.

    Return None if the module cannot be found by name, or has been registered to be pickled by value.
    """
    name = module.__name__
    if name in cloudpickle.list_registry_pickle_by_value():
        return None
    if sys.modules.get(name) is module:
        return importlib.import_module, (name,)
    parent, _, attributes = name.partition(".")
    while attributes:  # the module may exist only as an attribute of its parent
        if parent in sys.modules and part_of(sys.modules[parent], attributes) is module:
            return _part_of_module, (parent, attributes)
        first, _, attributes = attributes.partition(".")
        parent = f"{parent}.{first}"
    return None


def part_of(obj: Any, name: str) -> Any:
    for part in name.split("."):
        obj = getattr(obj, part, None)
    return obj


def _part_of_module(module: str, name: str) -> Any:
    return part_of(importlib.import_module(module), name)


def _cached(function: Any, maxsize: int | None, typed: bool) -> Any:
    return functools.lru_cache(maxsize, typed)(function)


def _set_dispatcher(dispatcher: Any, state: tuple[dict[type, Any], dict[str, Any]]) -> None:
    for cls, function in state[0].items():
        dispatcher.register(cls, function)
    vars(dispatcher).update(state[1])


def _ufunc(function: Any, nin: int, nout: int, *identity: Any) -> Any:
    return np.frompyfunc(function, nin, nout, **dict(zip(("identity",), identity, strict=False)))


def _cached_property(kind: Any) -> Any:
    made = kind.__new__(kind)
    made.lock = threading.RLock()
    return made


def _dispatcher_of_methods(kind: Any) -> Any:
    made = kind.__new__(kind)
    made._method_cache = weakref.WeakKeyDictionary()
    return made


def pickled_by_value(value: Any) -> bytes:
    """Return ``value`` pickled by :class:`Pickler`, with all that it uses from ``__main__`` or a notebook."""
    with io.BytesIO() as file:
        Pickler(file, protocol=5).dump(value)
        return file.getvalue()
