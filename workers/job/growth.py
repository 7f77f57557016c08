"""Detects random generators that a job has created and stored, as ``self.rng = self.rng or default_rng()`` does.

Such generators were not seeded when the job (the computation of a batch) began, so the job has to run again. A full
search after each job would take longer than many jobs. So the references held by the objects nearest to the sequence
are remembered, and compared after each job, at C speed and without running the user's code. Then only objects that are
new are searched.
"""

from __future__ import annotations

import dis
import functools
import gc
import operator
import types
from collections import deque
from collections.abc import Iterator
from itertools import compress
from typing import Any

import numpy as np

from .data_only import DataOnly, is_leaf, length_of
from .installed import is_installed
from .walk import Walked, walk

_MAX_REFERENCES = 2_000  # compared after a job: 20 us
_MAX_ITEMS = 500  # of a container; of a longer one only the length is compared, and new items at its end are searched
_LARGE = 65_536  # bytes of an array, or length of a string
_KNOWN = frozenset({"builtins", "collections", "functools", "numpy", "random", "sampler", "types", "typing", "workers"})
_GLOBAL = frozenset({"STORE_GLOBAL", "globals"})
_STORING = _GLOBAL | {"STORE_ATTR", "STORE_SUBSCR", "STORE_SLICE", "STORE_DEREF", "__dict__", "__setattr__"}
_STORING |= {
    "__setitem__",
    "add",
    "append",
    "appendleft",
    "extend",
    "insert",
    "setattr",
    "setdefault",
    "update",
    "vars",
}
_MAX_NEW = 1_000  # the most objects that a search of the new objects visits


class Growth:
    """A detector of random generators that jobs have added to the objects that a search has visited.

    Args:
        walked: the result of that search, with the objects that were visited.
        wanted: the types to detect: the classes of random generators.
    """

    def __init__(self, walked: Walked, wanted: tuple[type, ...]) -> None:
        self._wanted = wanted
        holders: list[Any] = []
        self._long: list[tuple[Any, int]] = []  # [(container, its length)]
        self._kept: list[Any]  # what the holders refer to
        self._types: list[type]  # of what the holders of large arrays refer to
        size, known = 0, set[int]()
        # Modules have many globals, and most jobs set none.
        codes = [each.__code__ for each in walked.seen if isinstance(each, types.FunctionType)]
        has_globals = any(_stores(code, _GLOBAL) for code in codes)
        for holder in _holders(walked.seen):
            if not has_globals and type(holder) is dict and "__builtins__" in holder:
                continue
            if id(holder) in known or isinstance(holder, wanted):
                continue
            known.add(id(holder))
            if _is_long(holder):
                self._long.append((holder, length_of(holder)))
                size += 1
                continue
            size += len(gc.get_referents(holder))
            if size > _MAX_REFERENCES:
                break
            holders.append(holder)
        self._keep(holders)

    def is_there(self) -> bool:
        """Return True if objects of the wanted types have been added since the search, or since the last call."""
        new: list[Any] = []
        now, kept = gc.get_referents(*self._holders), self._kept
        if len(now) != len(kept) or any(map(operator.is_not, now, kept)):
            new += self._new_ones(kept, now)
            if any(map(_is_large, new)):
                self._keep([*self._holders, *self._large])
            else:
                self._kept = now
        if self._large:
            now = gc.get_referents(*self._large)
            types_now = list(map(type, now))
            if types_now != self._types:
                new += now
                self._types = types_now
        for at, (holder, length) in enumerate(self._long):
            num = length_of(holder)
            if num != length:
                self._long[at] = holder, num
                new += _last(holder, num - length)
        new = [each for each in new if not is_leaf(each)]
        return bool(new) and bool(walk([("", new)], self._wanted, DataOnly(), _MAX_NEW).found)

    def _keep(self, holders: list[Any]) -> None:
        """Remember what the objects in ``holders`` refer to now. For holders of large arrays, remember only the types:
        a reference would keep a large array in memory after the job has released it."""
        are_large = [any(map(_is_large, gc.get_referents(holder))) for holder in holders]
        self._large = list(compress(holders, are_large))
        self._holders = list(compress(holders, map(operator.not_, are_large)))
        self._kept = gc.get_referents(*self._holders)
        self._types = list(map(type, gc.get_referents(*self._large)))

    def _new_ones(self, before: list[Any], now: list[Any]) -> list[Any]:
        if len(now) != len(before):
            known = set(map(id, before))
            return [each for each in now if id(each) not in known]
        changed = [(old, new) for old, new in zip(before, now, strict=True) if old is not new]
        # A job that replaces a generator by a new one does so in every run, and seeds the new one itself.
        wanted = self._wanted
        return [new for old, new in changed if not (isinstance(old, wanted) and isinstance(new, wanted))]


def _is_large(each: Any) -> bool:
    return (isinstance(each, np.ndarray) and each.nbytes >= _LARGE) or (
        isinstance(each, (bytes, bytearray, str)) and len(each) >= _LARGE
    )


def may_grow(walked: Walked) -> bool:
    """Return True if jobs may add objects to those that the search ``walked`` has visited.
    They cannot if the user's functions in it store only local variables, and no object is of an installed package."""
    try:
        return any(map(_may_store, walked.seen))
    except Exception:  # a class that cannot be examined
        return True


def _may_store(each: Any) -> bool:
    if isinstance(each, types.FunctionType):
        return not is_installed(each.__module__) and _stores(each.__code__)
    if not isinstance(each, type):
        return type(each).__module__.partition(".")[0] not in _KNOWN and is_installed(type(each).__module__)
    for base in each.__mro__:
        if base.__module__.partition(".")[0] in _KNOWN:
            continue
        if is_installed(base.__module__):
            return True
        for name, member in vars(base).items():
            if isinstance(member, property):
                functions = [member.fget, member.fset, member.fdel]
            else:
                functions = [getattr(member, "__func__", getattr(member, "func", member))]
            if name != "__init__" and any(isinstance(f, types.FunctionType) and _stores(f.__code__) for f in functions):
                return True
            if isinstance(member, functools.cached_property):
                return True
    return False


@functools.lru_cache(1024)
def _stores(code: types.CodeType, what: frozenset[str] | None = None) -> bool:
    """Return True if ``code``, or a function defined in it, uses one of the instructions or names in ``what``.
    By default, these are the ones that may store a value outside of local variables."""
    sought = _STORING if what is None else what
    within = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return (
        not sought.isdisjoint(each.opname for each in dis.get_instructions(code) if not _is_local(each, code))
        or not sought.isdisjoint(code.co_names)
        or any(_stores(each, what) for each in within)
    )


def _is_local(instruction: dis.Instruction, code: types.CodeType) -> bool:
    """Return True if ``instruction`` sets a variable of ``code`` itself that nested functions share."""
    return instruction.opname == "STORE_DEREF" and instruction.argval not in code.co_freevars


def _is_long(holder: Any) -> bool:
    return isinstance(holder, (list, dict)) and length_of(holder) > _MAX_ITEMS


def _holders(seen: list[Any]) -> Iterator[Any]:
    """Yield the objects in which a job may store something.
    They are the objects in ``seen``, which a search has visited, their parts (``__dict__``, closure), and the objects
    in containers that the search has skipped as data."""
    left = deque((each, False) for each in seen)
    known = set(map(id, seen))
    while left:
        each, is_within = left.popleft()
        holders = _holders_of(each)
        yield from holders
        for holder in [each, *holders] if is_within else [each]:
            if isinstance(holder, (list, tuple, dict)) and length_of(holder) <= _MAX_ITEMS:
                items = [item for item in gc.get_referents(holder) if not is_leaf(item) and id(item) not in known]
                known.update(map(id, items))
                left.extend((item, True) for item in items)


def _holders_of(each: Any) -> list[Any]:
    """Return the objects in which a job may store something, among ``each``, its ``__dict__``, globals and closure."""
    if isinstance(each, (list, dict)):
        return [each]
    if isinstance(each, tuple):
        return []
    if isinstance(each, types.FunctionType):
        return [] if is_installed(each.__module__) else [each.__globals__, *(each.__closure__ or ())]
    if isinstance(each, type):
        return [] if is_installed(each.__module__) else gc.get_referents(each.__dict__)
    names = getattr(each, "__dict__", None)
    return [each, names] if isinstance(names, dict) else [each]


def _last(container: Any, num: int) -> list[Any]:
    """Return the last ``num`` items of a list, or values of a dict; [] if ``num`` is not positive."""
    if num <= 0:
        return []
    if isinstance(container, list):
        return list.__getitem__(container, slice(-num, None))
    return [value for value, _ in zip(reversed(dict.values(container)), range(num), strict=False)]
