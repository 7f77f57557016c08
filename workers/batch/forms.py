"""Take the containers in a batch apart into their parts, and rebuild them with the same types.

A batch is a tree. Its *nodes* are containers: dicts, ``UserDict``, other mutable mappings and ``MappingProxyType``;
tuples, named tuples, lists, ``UserList``, deques and their subclasses; dataclasses, attrs classes and classes with only
``__slots__``. Everything else is a *leaf*. Each kind of container has a :class:`Form`.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
import types
import weakref
from abc import ABC, abstractmethod
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import MutableMapping
from typing import Any

from workers.frameworks import PACKAGES

from .pickling import pickled_by_value

_OF_TEXT = frozenset({str})
_CACHED_HASH = "_attrs_cached_hash"


class Hole:
    """The placeholder for a part taken out of a container; the class itself is used, as it survives pickling."""


class Form(ABC):
    """The way to take apart and rebuild containers of one kind; errors of a container's class are passed on."""

    is_mapping = False
    is_list = False
    #: True if rebuilding a container takes more than its parts, such as its attributes or default factory. These are
    #: kept in a *shell*, usually a copy of the container with a Hole in place of each part.
    has_shell = True

    @abstractmethod
    def keys(self, tree: Any) -> list[Any]:
        """Return the keys, field names or positions that identify the parts of the container ``tree``."""

    @abstractmethod
    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        """Return the items or field values of the container ``tree``, in the order of ``keys``."""

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        """Return the *shell* of the container ``tree``: all that rebuilding needs besides the parts, or None.

        Usually the shell is a copy of ``tree`` with a :class:`Hole` in place of each part. :meth:`filled` may write
        into the shell without changing ``tree``.
        """
        return None

    @abstractmethod
    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        """Rebuild a container of class ``kind`` from its ``keys``, its ``parts`` and the result of :meth:`shell`."""

    def step(self, key: Any) -> str:
        """Return the part at ``key`` as a step of a path in error messages, e.g. ``['x']``, ``[0]`` or ``.mask``."""
        return f"[{key!r}]"


class _Dict(Form):
    """The way to take apart and rebuild ``dict`` and its subclasses."""

    is_mapping = True

    def keys(self, tree: Any) -> list[Any]:
        return list(OrderedDict.keys(tree) if isinstance(tree, OrderedDict) else dict.keys(tree))

    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        return [dict.__getitem__(tree, key) for key in keys]

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        made: Any = copy.copy(tree)
        _check(type(made) is type(tree) and self.keys(made) == keys)
        names = _attributes(tree)
        # An item that is also an attribute of the same name stays one object.
        twice = [name for name in names if dict.__contains__(tree, name) and names[name] is dict.get(tree, name)]
        for key in keys:
            dict.__setitem__(made, key, Hole)
        for name in twice:
            made.__dict__[name] = Hole
        return made

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        for key, part in zip(keys, parts, strict=True):
            dict.__setitem__(shell, key, part)
        names = _attributes(shell)
        for name in [name for name, value in names.items() if value is Hole]:
            names[name] = dict.__getitem__(shell, name)
        return shell


class _MutableMapping(Form):
    """The way to take apart and rebuild ``UserDict`` and other mutable mappings, with their attributes."""

    is_mapping = True

    def keys(self, tree: Any) -> list[Any]:
        return list(tree)

    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        return [tree[key] for key in keys]

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        parts = self.parts(tree, keys)
        made = copy.deepcopy(tree, {id(part): part for part in parts})
        _check(type(made) is type(tree) and made is not tree and list(made) == keys)
        for key in keys:
            made[key] = Hole
        _check(all(made[key] is Hole for key in keys) and all(map(_are_same, self.parts(tree, keys), parts)))
        return made

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        for key, part in zip(keys, parts, strict=True):
            shell[key] = part
        return shell


class _Proxy(_MutableMapping):
    """The way to take apart and rebuild ``types.MappingProxyType``, a read-only mapping."""

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        return dict.fromkeys(keys, Hole)

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        return types.MappingProxyType(dict(zip(keys, parts, strict=True)))


class _Tuple(Form):
    """The way to take apart and rebuild ``tuple`` and its subclasses, with their attributes."""

    def keys(self, tree: Any) -> list[Any]:
        return list(range(tuple.__len__(tree)))

    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        return list(tuple.__iter__(tree))

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        self.filled(type(tree), keys, None, self.parts(tree, keys))  # raises if it cannot be rebuilt: then it is a leaf
        return dict(_attributes(tree)) or None

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        try:
            made = tuple.__new__(kind, parts)
        except TypeError:  # a C type, such as os.stat_result
            made = kind(parts)
        _check(type(made) is kind)
        if shell is not None:
            made.__dict__.update(shell)
        return made


class _NamedTuple(_Tuple):
    has_shell = False

    def keys(self, tree: Any) -> list[Any]:
        return list(tree._fields)

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        return None

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        return kind._make(parts)

    def step(self, key: Any) -> str:
        return f".{key}"


class _List(Form):
    """The way to take apart and rebuild ``list``, ``UserList``, ``deque`` and their subclasses."""

    is_list = True

    def keys(self, tree: Any) -> list[Any]:
        return list(range(len(tree)))

    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        return list(_base_of(tree).__iter__(tree))

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        made: Any = copy.copy(tree)
        _check(type(made) is type(tree) and len(made) == len(keys))
        return self.filled(type(tree), keys, made, [Hole] * len(keys))

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        if isinstance(shell, deque):
            deque.clear(shell)
            deque.extend(shell, parts)
        elif isinstance(shell, list):
            list.__setitem__(shell, slice(None), parts)
        else:
            shell.data[:] = parts
        return shell


class _Fields(Form):
    """The way to take apart and rebuild objects with fields by ``__dict__`` and ``__slots__``, without ``__init__``."""

    has_shell = False

    def keys(self, tree: Any) -> list[Any]:
        kind: Any = type(tree)
        names = list(_attributes(tree))
        _check(_OF_TEXT.issuperset(map(type, names)))
        if slots := slots_of(kind):
            names += [name for name, slot in slots.items() if _is_set(slot, tree)]
        return [name for name in names if name != _CACHED_HASH] if _CACHED_HASH in names else names

    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        kind: Any = type(tree)
        names, slots = _attributes(tree), slots_of(kind)
        return [names[key] if key in names else slots[key].__get__(tree) for key in keys]

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        made = object.__new__(kind)  # not by __init__, which may take other arguments
        if slots := slots_of(kind):
            for key, part in zip(keys, parts, strict=True):
                if key in slots:
                    slots[key].__set__(made, part)
                else:
                    made.__dict__[key] = part
        else:
            made.__dict__.update(zip(keys, parts, strict=True))
        if _caches_hash(kind):
            object.__setattr__(made, _CACHED_HASH, None)
        return made

    def step(self, key: Any) -> str:
        return f".{key}"


#: All forms. The spec of a layout refers to a form by its index here.
FORMS: tuple[Form, ...] = (_Dict(), _MutableMapping(), _Proxy(), _Tuple(), _NamedTuple(), _List(), _Fields())
_DICT, MUTABLE_MAPPING, _PROXY, _TUPLE, _NAMED, _LIST, _FIELDS = range(len(FORMS))


@functools.lru_cache(1024)
def form_of(kind: Any) -> int | None:
    """Return the index in ``FORMS`` of the form for class ``kind``; None if its instances are not containers."""
    of_framework = is_of_framework(kind)
    if issubclass(kind, dict):
        return None if of_framework else _DICT
    if issubclass(kind, tuple):
        if getattr(kind, "n_fields", 0) != getattr(kind, "n_sequence_fields", 0):  # time.struct_time has hidden fields
            return None
        return _NAMED if hasattr(kind, "_fields") and hasattr(kind, "_make") else _TUPLE
    if issubclass(kind, (list, UserList, deque)):
        return None if of_framework else _LIST
    if kind is types.MappingProxyType:
        return _PROXY
    if issubclass(kind, UserDict) or (issubclass(kind, MutableMapping) and not of_framework):
        return MUTABLE_MAPPING
    return _FIELDS if _has_fields(kind) else None


def _has_fields(kind: Any) -> bool:
    """Return True if ``kind`` is a dataclass, attrs class or class with only ``__slots__``, with no base in C."""
    if not (dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__") or _is_slotted(kind)):
        return False
    try:
        object.__new__(kind)
    except TypeError:  # it derives from a C type, as exceptions do
        return False
    return True


def _is_slotted(kind: Any) -> bool:
    """Return True if instances of ``kind`` have only ``__slots__``, and are pickled in Python's default way."""
    own = [
        name for name in ("__getstate__", "__reduce__", "__reduce_ex__") if getattr(kind, name, None) is not _OF[name]
    ]
    others = any(hasattr(kind, name) for name in ("__setstate__", "__getnewargs__", "__getnewargs_ex__", "__del__"))
    are_slotted = all("__slots__" in vars(each) for each in kind.__mro__[:-1]) and not is_of_framework(kind)
    return are_slotted and not (own or others or kind.__dictoffset__) and bool(slots_of(kind))


_OF = {name: getattr(object, name, None) for name in ("__getstate__", "__reduce__", "__reduce_ex__")}


@functools.lru_cache(1024)
def slots_of(kind: Any) -> dict[str, Any]:
    """Return the ``__slots__`` of class ``kind`` and its bases as {name: descriptor}, e.g. {"x": <member 'x'>}."""
    return {
        name: slot
        for each in reversed(kind.__mro__)
        if "__slots__" in vars(each)
        for name, slot in vars(each).items()
        if isinstance(slot, types.MemberDescriptorType)
    }


def _attributes(tree: Any) -> dict[Any, Any]:
    """Return the ``__dict__`` of an object, or {} if it has none, without calling a ``__getattr__`` of its class."""
    return tree.__dict__ if type(tree).__dictoffset__ else {}


_survives: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def survives(form: Form, shell: Any) -> bool:
    """Return True if pickling preserves the class, keys and Holes of ``shell``. Each class is tested only once."""
    kind = type(shell)
    if kind not in _survives:
        try:
            arrived = pickle.loads(pickled_by_value(shell))
            keys = form.keys(shell)
            parts = form.parts(arrived, form.keys(arrived))
            _survives[kind] = type(arrived) is kind and form.keys(arrived) == keys and all(p is Hole for p in parts)
        except Exception:
            _survives[kind] = False
    return _survives[kind]


def _is_set(slot: Any, tree: Any) -> bool:
    try:
        slot.__get__(tree)
    except AttributeError:
        return False
    return True


@functools.lru_cache(1024)
def _caches_hash(kind: Any) -> bool:
    """Return True if instances of the attrs class ``kind`` cache their hash, which is valid in one process only."""
    return _CACHED_HASH in getattr(getattr(kind.__hash__, "__code__", None), "co_names", ())


@functools.lru_cache(256)
def is_of_framework(kind: Any) -> bool:
    """Return True if class ``kind`` belongs to TensorFlow, torch or JAX, or is derived from a class that does."""
    return any(each.__module__.partition(".")[0] in PACKAGES for each in kind.__mro__)


def _base_of(tree: Any) -> Any:
    return next(base for base in (list, deque, UserList) if isinstance(tree, base))


def _are_same(one: Any, other: Any) -> bool:
    return one is other


def _check(holds: bool) -> None:
    if not holds:
        raise TypeError("a copy of this node differs from the node")
