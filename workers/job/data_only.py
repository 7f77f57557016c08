"""Recognises containers that hold only data, and so no random generators, by the types of their contents.

A search for random generators goes from object to object (see ``walk``), which takes too long for a list of a million
numbers. So the contents of a container are examined level by level, each level as one set of types:
``gc.get_referents`` returns all objects that a level refers to, at C speed and without running any of their code.

Data are numbers, strings, arrays, containers of data, and objects that hold only data, if the search has visited their
classes. Objects that the search has already visited count as data too, since it need not visit them again.

The findings are kept for later searches. These examine small containers in full again. Of large containers, they
examine only samples and the types of the items.
"""

from __future__ import annotations

import collections
import gc
import types
import weakref
from collections import deque
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from .installed import is_installed

LEAVES = (str, bytes, bytearray, int, float, complex, bool, type(None), np.ndarray, np.generic, types.ModuleType, set)

_PLAIN = {list, tuple, dict}
_RAW = list, tuple, deque, dict
_WEAK = {weakref.WeakKeyDictionary, weakref.WeakValueDictionary}
_MAX_LEVELS = 64
_NUM_AT_ONCE = 10_000  # objects whose parts are held at the same time
_MANY = 256  # objects: findings about smaller containers are not kept
_NUM_AGAIN = 20_000  # objects that a search examines again in full, although they were data in the last one: 1 ms
_NUM_TYPES_AGAIN = 10_000  # if a container has at most this many items, all their types are examined again: 0.2 ms
_NUM_SAMPLES, _NUM_SAMPLED = 64, 4_000  # samples of a large container; objects examined within them


def is_leaf(value: Any) -> bool:
    """Return True if ``value`` is a leaf: a number, string, set or the like, whose contents are not searched."""
    # By type(): isinstance() also reads ``__class__``, a slow property in a sequence, once for each of LEAVES.
    return issubclass(type(value), LEAVES) and not (isinstance(value, np.ndarray) and value.dtype.hasobject)


def raw_of(container: Any) -> Any:
    """Return a list, tuple, deque or dict as it is, and the items of another standard mapping (``UserDict``) as a dict.
    Return None for a mapping of any other class, as it may load its items on demand. No code of a subclass is run."""
    if isinstance(container, _RAW):
        return container
    if isinstance(container, collections.UserDict):
        data = vars(container).get("data")
        return raw_of(data) if isinstance(data, dict) else None
    if type(container) is types.MappingProxyType:
        return raw_of(gc.get_referents(container)[0])
    if isinstance(container, collections.ChainMap):
        maps = [raw_of(each) for each in reversed(vars(container).get("maps", ()))]
        if not all(isinstance(each, dict) for each in maps):
            return None
        return {key: value for each in maps for key, value in raw_items(each)}
    return dict(container.items()) if type(container) in _WEAK else None


def raw_items(container: dict[Any, Any]) -> Any:
    """Return the (key, value) pairs of ``container``, a dict, bypassing the methods of a subclass."""
    if isinstance(container, collections.OrderedDict):
        return collections.OrderedDict.items(container)
    return dict.items(container)


def items_of(container: Any, start: int, stop: int) -> list[Any]:
    """Return items ``start`` to ``stop`` - 1 of ``container``; of a dict, the values. Run no code of a subclass."""
    part = slice(start, stop)
    if isinstance(container, np.ndarray):
        return container.reshape(-1)[part].tolist()  # type: ignore[no-any-return]
    if isinstance(container, list):
        return list.__getitem__(container, part)
    if isinstance(container, tuple):
        return list(tuple.__getitem__(container, part))
    if isinstance(container, collections.OrderedDict):
        return list(collections.OrderedDict.values(container))[part]
    return list(dict.values(container) if isinstance(container, dict) else deque.__iter__(container))[part]


def length_of(container: Any) -> int:
    """Return the number of items of an array, list, tuple, dict or deque, without running code of a subclass."""
    if isinstance(container, np.ndarray):
        return container.size
    base: Any = next(base for base in (list, tuple, dict, deque) if isinstance(container, base))
    return base.__len__(container)  # type: ignore[no-any-return]


def code_of(function: types.FunctionType) -> tuple[Any, int]:
    """Return (code, id of the globals) of ``function``. Functions with equal pairs use the same global variables."""
    return function.__code__, id(function.__globals__)


def _samples(container: Any, start: int, stop: int) -> list[Any]:
    """Return samples of the items ``start`` to ``stop`` - 1 of ``container``, to be examined in place of all of them.
    From a dict, take the first items; from an array, take evenly spaced items; from other containers, take both."""
    step = max(1, (stop - start) // _NUM_SAMPLES)
    if isinstance(container, dict):
        return list(islice(dict.values(container), start, min(start + 2 * _NUM_SAMPLES, stop)))
    if isinstance(container, np.ndarray):
        return [container.flat[at] for at in range(start, stop, step)]
    places = *range(start, min(start + _NUM_SAMPLES, stop)), *range(start, stop, step)
    base: Any = next(base for base in (list, tuple, deque) if isinstance(container, base))
    return [base.__getitem__(container, at) for at in places]


def _without_large_ones(objects: list[Any]) -> list[Any]:
    """Return ``objects``, but with a list of samples in place of each container of more than 4,000 items."""
    if not any(type(each) in _PLAIN and len(each) > _NUM_SAMPLED for each in objects):
        return objects
    return [
        _samples(each, 0, len(each)) if type(each) in _PLAIN and len(each) > _NUM_SAMPLED else each for each in objects
    ]


class _Known(NamedTuple):
    """The findings of a search about a container, or a part of it, for the next search."""

    container: Any  # held, so that its id is not reused
    length: int
    is_data: bool
    size: int  # objects within it
    types: set[type]  # of its items; empty if there are too many
    outside: dict[int, Any]  # {id: object} of the objects in it that the walk had already visited


class _Scan(NamedTuple):
    is_data: bool
    size: int
    outside: dict[int, Any]


class DataOnly:
    """A record of which containers hold only data (no random generators), kept over all searches of one sequence.

    Attributes:
        code: the code of the functions that the current search has visited, as :func:`code_of` returns it.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], _Known] = {}  # {(id of a container, start, stop): findings}
        self._before: dict[tuple[int, int, int], _Known] = {}  # those of the last search
        self._wanted: tuple[type, ...] = ()
        self._seen: dict[int, Any] = {}
        self.code: set[tuple[Any, int]] = set()
        self._num_again = 0
        self._are_leaves: dict[type, bool] = {}
        self._may_hold: dict[type, bool] = {}  # {class: whether its objects may be data}

    def begin(self, wanted: tuple[type, ...], seen: dict[int, Any]) -> None:
        """Begin a search for objects of the types ``wanted``.
        ``seen`` is {id: object} of all objects visited so far. The caller adds objects to it during the search."""
        self._before = self._known if wanted == self._wanted else {}
        self._known, self._wanted, self._seen, self._num_again = {}, wanted, seen, _NUM_AGAIN
        self._are_leaves, self._may_hold, self.code = {}, {}, set()

    def end(self) -> None:
        """End the search, and release the objects that it has visited. The findings are kept for the next search."""
        self._before, self._seen, self.code = {}, {}, set()

    def holds_only_data(self, container: Any, start: int, stop: int) -> bool:
        """Return True if items ``start`` to ``stop`` - 1 of ``container`` hold only data, so the search can skip them.
        Return False if they may hold an object that the search wants (a random generator)."""
        key, length = (id(container), start, stop), length_of(container)
        known = self._before.get(key)
        if known is not None and known.container is container and known.length == length:
            if not known.is_data:  # the walk will find everything in it
                self._known[key] = known
                return False
            if known.size > self._num_again and self._is_as_before(known, start, stop):
                self._known[key] = known
                return True
        items = items_of(container, start, stop)
        try:
            found = self._scan(items)
        except Exception:  # an object cannot be examined
            found = _Scan(False, len(items), {})
        self._num_again -= found.size
        if found.size > _MANY:
            of_items = set(map(type, items)) if len(items) <= _NUM_TYPES_AGAIN else set()
            self._known[key] = _Known(container, length, found.is_data, found.size, of_items, found.outside)
        return found.is_data

    def _is_as_before(self, known: _Known, start: int, stop: int) -> bool:
        if not known.outside.keys() <= self._seen.keys():
            return False
        if stop - start <= _NUM_TYPES_AGAIN and not known.types.issuperset(
            map(type, items_of(known.container, start, stop))
        ):
            return False
        return self._scan(_samples(known.container, start, stop), _NUM_SAMPLED).is_data

    def _scan(self, level: list[Any], most: int | None = None) -> _Scan:
        """Examine the objects in ``level`` and all that they hold. Return whether all are data, and how many there are.
        If ``most`` is given, stop after about that many objects, and assume that the others are data."""
        size, outside = len(level), dict[int, Any]()
        own: set[int] = set()  # ids of the objects examined so far
        level = self._without_leaves(level)
        for _ in range(_MAX_LEVELS):
            if not level or (most is not None and size > most):
                return _Scan(True, size, outside)
            following: list[Any] = []
            if most is not None:
                level = _without_large_ones(level)
            for at in range(0, len(level), _NUM_AT_ONCE):
                objects = level[at : at + _NUM_AT_ONCE]
                # Plain containers of leaves need no further examination.
                parts = gc.get_referents(*objects) if set(map(type, objects)) <= _PLAIN else None
                if parts is None or self._without_leaves(parts):
                    objects = self._new_ones(objects, own, outside)
                    if not self._may_all_be_data(objects, outside):
                        return _Scan(False, size, outside)
                    parts = self._parts(objects)
                    following += self._without_leaves(parts)
                size += len(parts)
            level = following
        return _Scan(False, size, outside)

    def _new_ones(self, objects: list[Any], own: set[int], outside: dict[int, Any]) -> list[Any]:
        """Return those ``objects``, each once, that neither this scan nor the search has visited yet.
        Add their ids to ``own``, the ids that this scan has visited. Add objects that the search has visited, as
        {id: object}, to ``outside``."""
        new = dict(zip(map(id, objects), objects, strict=True))
        for each in new.keys() & self._seen.keys():
            outside[each] = new.pop(each)
        for each in new.keys() & own:
            del new[each]
        own.update(new)
        return list(new.values())

    def _may_all_be_data(self, objects: list[Any], outside: dict[int, Any]) -> bool:
        """Return True if all ``objects`` may be data by their types, and the search has visited their classes and code.
        Add each class that the user has defined to ``outside``, as {id: class}."""
        for cls in set(map(type, objects)):
            if issubclass(cls, type):
                if not all(map(_is_of_package, (each for each in objects if isinstance(each, type)))):
                    return False
            elif cls is types.FunctionType:
                for function in objects:
                    if type(function) is cls and code_of(function) not in self.code:
                        return False
            elif not self._may_be_data(cls):
                return False
            elif not _is_of_package(cls):
                if id(cls) not in self._seen:
                    return False
                outside[id(cls)] = cls
        return True

    def _parts(self, objects: list[Any]) -> list[Any]:
        parts: list[Any] = []
        of_types = set(map(type, objects))
        if types.FunctionType in of_types:
            functions = [each for each in objects if type(each) is types.FunctionType]
            for function in functions:
                parts += function.__closure__ or (), function.__defaults__, function.__kwdefaults__
            objects = [each for each in objects if type(each) is not types.FunctionType]
        if any(issubclass(cls, type) for cls in of_types):
            objects = [each for each in objects if not isinstance(each, type)]
        for array in objects if any(issubclass(cls, np.ndarray) for cls in of_types) else ():
            if isinstance(array, np.ndarray) and array.dtype.hasobject:
                parts += array.reshape(-1).tolist()
        return parts + gc.get_referents(*objects)

    def _without_leaves(self, objects: list[Any]) -> list[Any]:
        known = self._are_leaves
        found = set(map(type, objects))
        for cls in found.difference(known):
            known[cls] = issubclass(cls, LEAVES) and not issubclass(cls, np.ndarray)
        if all(known[cls] for cls in found):
            return []
        return [each for each in objects if not known[type(each)]] if any(known[cls] for cls in found) else objects

    def _may_be_data(self, cls: type) -> bool:
        """Return True if objects of ``cls`` may be data: ``cls`` is not a subclass of a type that the search wants."""
        known = self._may_hold.get(cls)
        if known is None:
            known = self._may_hold[cls] = not issubclass(cls, self._wanted)
        return known


def _is_of_package(cls: type) -> bool:
    """Return True if Python or installed packages define ``cls`` and all its bases, so the search need not visit it."""
    return all(is_installed(each.__module__) for each in cls.__mro__)
