"""Searches everything that a job can reach for random generators: attributes, items, closures, globals of functions.

The search is a walk from object to object. It is breadth-first, so that objects are found by their shortest paths. The
first 64 items of a long container are visited in their turn, and its other items after everything else. Sets are
skipped, as they have no order, and so are the contents of modules and classes of installed packages. Containers that
hold only data are skipped as a whole: see ``data_only``.

No property is run, and no object of the user's is iterated over. Lists, tuples, dicts and deques are read directly,
bypassing the methods of a subclass. Of mappings that may load their items on demand, only the attributes are visited.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import itertools
import random
import types
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from workers import frameworks
from workers.frameworks import keras
from workers.frameworks.tensorflow import is_traced, python_function_of

from .data_only import DataOnly, code_of, is_leaf, items_of, length_of, raw_items, raw_of
from .installed import is_installed

#: The most objects that a walk visits.
MAX_OBJECTS = 100_000  # 0.5 s
_NUM_IN_PART, _NUM_PARTS = 500, 16  # a long container is split into parts, to skip those that hold only data
_NUM_FIRST = 64  # items of a container that are visited before more distant objects

Paths = list[tuple[str, Any]]  # [(path, object)]

_GLOBAL_ONES = random.random.__self__, np.random.mtrand._rand  # type: ignore[attr-defined]
_EXACT = {list, tuple, dict, deque, collections.OrderedDict, collections.defaultdict, collections.Counter, np.ndarray}


class Walked(NamedTuple):
    """The result of a walk (a search from object to object): what it found, where it stopped, and what it visited."""

    found: Paths
    stopped_at: str | None  # the path at which it reached its limit; None if it is complete
    seen: list[Any]  # the objects visited, the nearest first


def walk(roots: Paths, wanted: tuple[type, ...], data: DataOnly, max_objects: int | None = None) -> Walked:
    """Find all objects of types ``wanted`` that can be reached from ``roots``, except the default random generators.

    Args:
        data: recognises containers that hold only data, which the walk skips.
        max_objects: the most objects to visit; by default MAX_OBJECTS.
    """
    most = MAX_OBJECTS if max_objects is None else max_objects
    found: Paths = []
    passed_over = *_GLOBAL_ONES, *frameworks.asked("default_generator")
    seen: dict[int, Any] = {id(each): each for each in passed_over}  # holds them, so that no id is reused
    data.begin(wanted, seen)
    left = deque(roots)
    subclassed: deque[tuple[str, Any]] = deque()  # containers whose attributes remain
    long: deque[tuple[str, Any, int, int]] = deque()  # (path, container, start, stop) of the items that remain
    stopped_at = None
    while left or subclassed or long:
        try:
            if left:
                path, here = left.popleft()
                if is_leaf(here) or id(here) in seen:
                    continue
                if len(seen) >= most:
                    stopped_at = path
                    break
                seen[id(here)] = here
                if isinstance(here, wanted) and not isinstance(here, random.SystemRandom):
                    found.append((path, here))
                elif isinstance(here, np.ndarray):
                    long.append((path, here, 0, here.size))
                elif isinstance(here, (list, tuple, deque, Mapping)) and (raw := raw_of(here)) is not None:
                    is_exact = type(here) in _EXACT
                    if not is_exact:
                        subclassed.append((path, here))
                    if raw is here:
                        num = length_of(here)
                        if data.holds_only_data(here, 0, num):
                            continue
                        if num > _NUM_FIRST or not is_exact:
                            long.append((path, here, _NUM_FIRST if is_exact else 0, num))
                    left.extend(_first(path, raw))
                else:
                    if isinstance(here, types.FunctionType):
                        data.code.add(code_of(here))
                    left.extend(_parts(path, here))
            elif subclassed:
                left.extend(_of_object(*subclassed.popleft()))
            else:
                path, here, start, stop = long.popleft()
                if data.holds_only_data(here, start, stop):
                    continue
                if stop - start > _NUM_IN_PART:
                    size = -(-(stop - start) // _NUM_PARTS)
                    parts = range(start, stop, size)
                    long.extendleft((path, here, at, min(at + size, stop)) for at in reversed(parts))
                else:
                    left.extend(_others(path, here, start, stop))
        except Exception:  # the object cannot be examined
            continue
    data.end()
    return Walked(found, stopped_at, list(seen.values())[len(passed_over) :])


def _first(path: str, here: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, item) for the first 64 items of the container ``here``, without running code of a subclass."""
    if isinstance(here, dict):
        for key, part in itertools.islice(raw_items(here), _NUM_FIRST):
            yield _of_key(path, key), part
    else:
        for at, part in enumerate(items_of(here, 0, _NUM_FIRST)):
            yield f"{path}[{at}]", part


def _others(path: str, here: Any, start: int, stop: int) -> Iterator[tuple[str, Any]]:
    """Yield (path, item) for items ``start`` to ``stop`` - 1 of the container ``here``, except plain data (leaves).
    No code of a subclass is run."""
    parts = enumerate(items_of(here, start, stop), start)
    if isinstance(here, dict):
        keys = list(
            collections.OrderedDict.keys(here) if isinstance(here, collections.OrderedDict) else dict.keys(here)
        )
        yield from ((_of_key(path, keys[at]), part) for at, part in parts if not is_leaf(part))
    else:
        yield from ((f"{path}[{at}]", part) for at, part in parts if not is_leaf(part))


def _of_key(path: str, key: Any) -> str:
    return f"{path}[{key!r}]" if isinstance(key, (str, int, tuple)) else f"{path}[?]"


def _parts(path: str, here: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(here, functools.partial):
        yield from ((f"{path}.{name}", getattr(here, name)) for name in ("func", "args", "keywords"))
    elif isinstance(here, types.FunctionType):
        yield from _of_function(path, here)
    elif isinstance(here, (types.MethodType, types.BuiltinMethodType)):
        yield f"{path}.__self__", here.__self__
        yield f"{path}.__func__", getattr(here, "__func__", None)
    elif isinstance(here, type):
        yield from _of_class(path, here)
    elif is_traced(here):
        yield f"{path}.python_function", python_function_of(here)
    else:
        yield from _of_object(path, here)
        if (function := function_of(here)) is not None:
            yield f"{path}.func", function


def _of_object(path: str, here: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(here, "__dict__", None)
    if isinstance(names, dict):
        if keras.is_layer(names):
            names = {name: names[name] for name in (*keras.PARTS_OF_LAYER, *_of_own_class(here, names))}
        cls = here.__class__ if type(here) in weakref.ProxyTypes else type(here)
        not_copied = getattr(cls, "_not_copied", ())  # attributes of a Sequence that are not sent to workers
        # Sorted: in a worker they may have been set in another order.
        for name in sorted(name for name in names if isinstance(name, str)):
            if name not in not_copied and not is_leaf(names[name]) and not _is_given(type(here), name):
                yield f"{path}.{name}", names[name]
    for cls in type(here).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            yield f"{path}.{name}", getattr(here, name, None) if not name.startswith("__") else None
    yield f"{path}.__class__", type(here)


def _of_own_class(layer: Any, names: dict[str, Any]) -> list[str]:
    """Return the attributes in ``names`` that the user's class of ``layer``, a Keras layer, has set.
    They are the ones without a leading underscore; a layer of Keras's own class has none."""
    return [name for name in names if not name.startswith("_") and not is_installed(type(layer).__module__)]


def _is_given(cls: type, name: str) -> bool:
    """Return True if attribute ``name`` of ``cls`` objects is a descriptor that returns the current job's generator."""
    return any(hasattr(each.__dict__.get(name), "of_job") for each in cls.__mro__)


def _of_class(path: str, here: type) -> Iterator[tuple[str, Any]]:
    not_copied = getattr(here, "_not_copied", ())
    for cls in here.__mro__:
        if cls is not object and not is_installed(cls.__module__):
            for name, part in sorted(cls.__dict__.items()):
                if name not in not_copied and (not name.startswith("__") or name in ("__getitem__", "__call__")):
                    is_wrapped = isinstance(part, (staticmethod, classmethod))
                    yield f"{path}.{name}", part.__func__ if is_wrapped else getattr(part, "fget", part)


def _of_function(path: str, here: types.FunctionType) -> Iterator[tuple[str, Any]]:
    code = here.__code__
    for name, cell in zip(code.co_freevars, here.__closure__ or (), strict=False):
        with contextlib.suppress(ValueError):  # an empty cell
            yield f"{path}:{name}", cell.cell_contents
    yield f"{path}.__defaults__", (here.__defaults__, here.__kwdefaults__)
    if not is_installed(here.__module__):
        known = here.__globals__
        names = dict.fromkeys(names_in(code))
        for name in names:
            part = known.get(name)
            if isinstance(part, types.ModuleType):
                if not is_installed(part.__name__):  # the user's own: the attributes that the function names
                    yield from ((f"{path}:{name}.{each}", part.__dict__.get(each)) for each in names)
            else:
                yield f"{path}:{name}", part


def names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names of the attributes and globals that ``code``, or the code of a function defined in it, uses."""
    yield from code.co_names
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from names_in(const)


#: The type of cached functions (``functools.lru_cache``, ``functools.cache``).
Cached: type = type(functools.lru_cache(len))

_DISPATCHER: Any = functools.singledispatch(len)


def is_dispatcher(obj: Any) -> bool:
    """Return True if ``obj`` is a function that ``functools.singledispatch`` has made."""
    return type(obj) is types.FunctionType and obj.__code__ is _DISPATCHER.__code__


def function_of(obj: Any) -> Any:
    """Return the Python function that ``obj``, a cached function or a ufunc, calls; None for other objects."""
    referents = gc.get_referents(obj) if type(obj) in (Cached, np.ufunc) else []
    if type(obj) is np.ufunc:
        return referents[0] if referents and callable(referents[0]) else None
    # Not __wrapped__, which functools.wraps may have replaced. A mark, types and attributes follow the function.
    for each in reversed(referents):
        if not (type(each) is object or (isinstance(each, type) and each.__module__ == "functools")) and callable(each):
            return each
    return None


def identity_of(ufunc: Any) -> list[Any]:
    """Return in a list the ``identity`` that ``np.frompyfunc`` was given to make ``ufunc``; [] if it was given none."""
    return [each for each in gc.get_referents(ufunc)[1:] if each is not getattr(ufunc, "__dict__", None)]
