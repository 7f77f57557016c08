"""How each kind of container in a batch is taken apart into its parts and put together again, type and all.

Containers are mappings, sequences and objects of fields: dicts and their subclasses, ``UserDict`` and other mutable
mappings; tuples, named tuples, lists, deques and their subclasses; dataclasses, attrs classes and classes with nothing
but ``__slots__``. Everything else is a leaf.
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
    """In the place of a part that was taken out of a node. The class itself is, so pickled it is the same."""


class Form(ABC):
    """How the nodes of one kind are taken apart. Its methods raise whatever the node's class does."""

    is_mapping = False
    is_list = False
    #: True: a part of the node that is no child (its attributes, a default factory) is needed to make it again. This
    #: *shell* is a copy of the node with a Hole for each child.
    has_shell = True

    @abstractmethod
    def keys(self, tree: Any) -> list[Any]:
        """What tells its children apart: keys, names of fields, or positions."""

    @abstractmethod
    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        """Its children, by ``keys``."""

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        """See :attr:`has_shell`. Shares nothing mutable with ``tree`` that :meth:`filled` writes to."""
        return None

    @abstractmethod
    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        """A node of ``parts``. ``shell`` becomes part of it."""

    def step(self, key: Any) -> str:
        """The child's place in a message: ``['x']``, ``[0]`` or ``.mask``."""
        return f"[{key!r}]"


class _Dict(Form):
    """``dict`` and its subclasses."""

    is_mapping = True

    def keys(self, tree: Any) -> list[Any]:
        return list(OrderedDict.keys(tree) if isinstance(tree, OrderedDict) else dict.keys(tree))

    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        return [dict.__getitem__(tree, key) for key in keys]

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        made: Any = copy.copy(tree)
        _check(type(made) is type(tree) and self.keys(made) == keys)
        names = _attributes(tree)
        # Items that are attributes as well, by the same name, stay so.
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
    """``UserDict`` and other mappings that can be written to, with what else they hold."""

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
    """``types.MappingProxyType``, which cannot be written to."""

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        return dict.fromkeys(keys, Hole)

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        return types.MappingProxyType(dict(zip(keys, parts, strict=True)))


class _Tuple(Form):
    """Subclasses of ``tuple``, with their attributes."""

    def keys(self, tree: Any) -> list[Any]:
        return list(range(tuple.__len__(tree)))

    def parts(self, tree: Any, keys: list[Any]) -> list[Any]:
        return list(tuple.__iter__(tree))

    def shell(self, tree: Any, keys: list[Any]) -> Any:
        self.filled(type(tree), keys, None, self.parts(tree, keys))  # raises where a leaf is what it must be
        return dict(_attributes(tree)) or None

    def filled(self, kind: Any, keys: list[Any], shell: Any, parts: list[Any]) -> Any:
        try:
            made = tuple.__new__(kind, parts)
        except TypeError:  # a type of C, such as that of os.stat
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
    """``list``, ``UserList``, ``deque`` and their subclasses."""

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
    """Objects of fields: all that is in their ``__dict__`` and in their slots, whatever ``__init__`` takes."""

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
        made = object.__new__(kind)  # not by __init__: it may want other arguments
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


#: By their numbers in specs of layouts.
FORMS: tuple[Form, ...] = (_Dict(), _MutableMapping(), _Proxy(), _Tuple(), _NamedTuple(), _List(), _Fields())
_DICT, MUTABLE_MAPPING, _PROXY, _TUPLE, _NAMED, _LIST, _FIELDS = range(len(FORMS))


@functools.lru_cache(1024)
def form_of(kind: Any) -> int | None:
    """The number of the form of a class; None: its instances are leaves."""
    of_framework = is_of_framework(kind)
    if issubclass(kind, dict):
        return None if of_framework else _DICT
    if issubclass(kind, tuple):
        if getattr(kind, "n_fields", 0) != getattr(kind, "n_sequence_fields", 0):  # time.struct_time holds more than 9
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
    """Whether its instances are what their fields are: a dataclass, a class of attrs or one with nothing but slots."""
    if not (dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__") or _is_slotted(kind)):
        return False
    try:
        object.__new__(kind)
    except TypeError:  # it derives from a type of C, such as an exception
        return False
    return True


def _is_slotted(kind: Any) -> bool:
    """Whether all that it holds is in slots, and it leaves to Python how it is pickled."""
    own = [
        name for name in ("__getstate__", "__reduce__", "__reduce_ex__") if getattr(kind, name, None) is not _OF[name]
    ]
    others = any(hasattr(kind, name) for name in ("__setstate__", "__getnewargs__", "__getnewargs_ex__", "__del__"))
    are_slotted = all("__slots__" in vars(each) for each in kind.__mro__[:-1]) and not is_of_framework(kind)
    return are_slotted and not (own or others or kind.__dictoffset__) and bool(slots_of(kind))


_OF = {name: getattr(object, name, None) for name in ("__getstate__", "__reduce__", "__reduce_ex__")}


@functools.lru_cache(1024)
def slots_of(kind: Any) -> dict[str, Any]:
    """{name: its descriptor} of the slots of a class and its bases, e.g. {"x": <member 'x'>}."""
    return {
        name: slot
        for each in reversed(kind.__mro__)
        if "__slots__" in vars(each)
        for name, slot in vars(each).items()
        if isinstance(slot, types.MemberDescriptorType)
    }


def _attributes(tree: Any) -> dict[Any, Any]:
    """Its ``__dict__``. Not by ``getattr``, which a class may answer with an item, or with a KeyError."""
    return tree.__dict__ if type(tree).__dictoffset__ else {}


_survives: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()


def survives(form: Form, shell: Any) -> bool:
    """Whether a shell arrives as it was sent: a class may refuse a Hole, or work on it. Asked once for each class."""
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
    """Whether it is a class of attrs that keeps its hash, which is true in one process only; None: not known yet."""
    return _CACHED_HASH in getattr(getattr(kind.__hash__, "__code__", None), "co_names", ())


@functools.lru_cache(256)
def is_of_framework(kind: Any) -> bool:
    """Whether it is a class of TensorFlow, torch or JAX, or made of one, as those of torchvision are."""
    return any(each.__module__.partition(".")[0] in PACKAGES for each in kind.__mro__)


def _base_of(tree: Any) -> Any:
    return next(base for base in (list, deque, UserList) if isinstance(tree, base))


def _are_same(one: Any, other: Any) -> bool:
    return one is other


def _check(holds: bool) -> None:
    if not holds:
        raise TypeError("a copy of this node is another one")
