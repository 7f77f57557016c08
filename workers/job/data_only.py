"""Which containers hold only data, so that no generator is within them: told by types, not by walking them.

A list of a million numbers, or of the boxes of 100,000 images, must cost little at each look. So what a container holds
is looked at level by level, as one set of types: ``gc.get_referents`` returns what all objects of a level hold, at C
speed and without running any code of theirs. Data are numbers, strings, arrays, containers of these, and objects that
hold nothing else, whose classes the walk has been through. What the walk has seen already counts as data too.

What was found is kept for later looks. They go through small containers again; of large ones they look at the types of
the items, and through samples.
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
_MANY = 256  # objects: nothing is kept of containers that hold fewer
_NUM_AGAIN = 20_000  # objects that a look goes through again though they were only data: 1 ms
_NUM_TYPES_AGAIN = 10_000  # items of a container whose types are looked at again: 0.2 ms
_NUM_SAMPLES, _NUM_SAMPLED = 64, 4_000  # items of a large container that are looked at again; these and what they hold


def is_leaf(value: Any) -> bool:
    """Whether nothing is within ``value`` that a job could draw from."""
    # By its type: isinstance() would ask a sequence, which answers slowly, for its class once for each of the leaves'.
    return issubclass(type(value), LEAVES) and not (isinstance(value, np.ndarray) and value.dtype.hasobject)


def raw_of(container: Any) -> Any:
    """The list, tuple, deque or dict that a container consists of, to be read without running any code of a subclass;
    None: it is another mapping, which may load what it is asked for."""
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
    """The keys and values of a dict. No code of a subclass is run."""
    if isinstance(container, collections.OrderedDict):
        return collections.OrderedDict.items(container)
    return dict.items(container)


def items_of(container: Any, start: int, stop: int) -> list[Any]:
    """The items, or the values, of a container from ``start`` to ``stop``. No code of a subclass is run."""
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
    """The number of items of a container."""
    if isinstance(container, np.ndarray):
        return container.size
    base: Any = next(base for base in (list, tuple, dict, deque) if isinstance(container, base))
    return base.__len__(container)  # type: ignore[no-any-return]


def code_of(function: types.FunctionType) -> tuple[Any, int]:
    """What tells whether two functions refer to the same globals."""
    return function.__code__, id(function.__globals__)


def _samples(container: Any, start: int, stop: int) -> list[Any]:
    """The first items from ``start`` on, and some of the others."""
    step = max(1, (stop - start) // _NUM_SAMPLES)
    if isinstance(container, dict):
        return list(islice(dict.values(container), start, min(start + 2 * _NUM_SAMPLES, stop)))
    if isinstance(container, np.ndarray):
        return [container.flat[at] for at in range(start, stop, step)]
    places = *range(start, min(start + _NUM_SAMPLES, stop)), *range(start, stop, step)
    base: Any = next(base for base in (list, tuple, deque) if isinstance(container, base))
    return [base.__getitem__(container, at) for at in places]


def _without_large_ones(objects: list[Any]) -> list[Any]:
    """``objects``, with samples in the place of large containers."""
    if not any(type(each) in _PLAIN and len(each) > _NUM_SAMPLED for each in objects):
        return objects
    return [
        _samples(each, 0, len(each)) if type(each) in _PLAIN and len(each) > _NUM_SAMPLED else each for each in objects
    ]


class _Known(NamedTuple):
    """What was found out about a container."""

    container: Any  # held, so that its id is not given to another one
    length: int
    is_data: bool
    size: int  # objects within it
    types: set[type]  # of its items, if they are not too many
    outside: dict[int, Any]  # what it refers to that the walk had seen before: {id: object}


class _Scan(NamedTuple):
    is_data: bool
    size: int
    outside: dict[int, Any]


class DataOnly:
    """What the looks of one sequence find out about its containers.

    Attributes:
        code: of the functions that the walk has been at, see :func:`code_of`.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], _Known] = {}  # {(id of a container, start, stop): it}
        self._before: dict[tuple[int, int, int], _Known] = {}  # by the last look
        self._wanted: tuple[type, ...] = ()
        self._seen: dict[int, Any] = {}
        self.code: set[tuple[Any, int]] = set()
        self._num_again = 0
        self._are_leaves: dict[type, bool] = {}
        self._may_hold: dict[type, bool] = {}  # whether its objects may be data, by what they hold

    def begin(self, wanted: tuple[type, ...], seen: dict[int, Any]) -> None:
        """Begin a look for the types ``wanted``; ``seen`` is {id: object} of what the walk has been at."""
        self._before = self._known if wanted == self._wanted else {}
        self._known, self._wanted, self._seen, self._num_again = {}, wanted, seen, _NUM_AGAIN
        self._are_leaves, self._may_hold, self.code = {}, {}, set()

    def end(self) -> None:
        """The look is over."""
        self._before, self._seen, self.code = {}, {}, set()

    def holds_only_data(self, container: Any, start: int, stop: int) -> bool:
        """Whether nothing that is wanted is within the items of ``container`` from ``start`` to ``stop``."""
        key, length = (id(container), start, stop), length_of(container)
        known = self._before.get(key)
        if known is not None and known.container is container and known.length == length:
            if not known.is_data:  # then it is walked, which finds all
                self._known[key] = known
                return False
            if known.size > self._num_again and self._is_as_before(known, start, stop):
                self._known[key] = known
                return True
        items = items_of(container, start, stop)
        try:
            found = self._scan(items)
        except Exception:  # something does not let itself be looked into
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
        """Go through what ``level`` holds; with ``most``, through about so many objects."""
        size, outside = len(level), dict[int, Any]()
        own: set[int] = set()  # what it has been through: {id of an object}
        level = self._without_leaves(level)
        for _ in range(_MAX_LEVELS):
            if not level or (most is not None and size > most):
                return _Scan(True, size, outside)
            following: list[Any] = []
            if most is not None:
                level = _without_large_ones(level)
            for at in range(0, len(level), _NUM_AT_ONCE):
                objects = level[at : at + _NUM_AT_ONCE]
                # What holds only leaves need not be told apart.
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
        """Each once, but for those of ``own``, to which they are added, and those that the walk has seen."""
        new = dict(zip(map(id, objects), objects, strict=True))
        for each in new.keys() & self._seen.keys():
            outside[each] = new.pop(each)
        for each in new.keys() & own:
            del new[each]
        own.update(new)
        return list(new.values())

    def _may_all_be_data(self, objects: list[Any], outside: dict[int, Any]) -> bool:
        """Whether all may be by what they hold, and the walk has been through their classes and code."""
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
        """Whether objects of ``cls`` that the walk has not seen may be data; False: they are to be walked."""
        known = self._may_hold.get(cls)
        if known is None:
            known = self._may_hold[cls] = not issubclass(cls, self._wanted)
        return known


def _is_of_package(cls: type) -> bool:
    """Whether nothing is found in a class: it and all that it is made of are of Python or of installed packages."""
    return all(is_installed(each.__module__) for each in cls.__mro__)
