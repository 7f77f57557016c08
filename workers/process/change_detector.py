"""Whether anything in a task has changed since the last epoch, found out in a few milliseconds.

The task is pickled again, and the bytes are compared. Left out of this are what would take long:

- A large container (a list of a million paths) counts as unchanged while it is the same object and holds the same
  objects. What is changed *within* these objects is not seen; except where hooks are defined, which are there to change
  things: then a container is left out only if it holds nothing but numbers and strings.
- A large array counts as unchanged while it is the same object; a tensor of torch, while no operation of torch has
  written to it either. Where hooks are defined, its bytes are compared; but not those of an array in shared memory,
  which the workers see as it is.

``Sequence.changed()`` says what is not seen so.
"""

from __future__ import annotations

import functools
import io
import itertools
import logging
import operator
import pickle
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share
from workers.batch.shared_memory import address_of
from workers.frameworks import Memory
from workers.job.task import single_function_to_run

from . import tensors
from .arrays import SHARED_NBYTES
from .replica import ReplicaPickler

logger = logging.getLogger("workers")

_MANY = 1000  # items; a container of fewer is pickled
_LONG_S = 0.05
_LEAVES = frozenset({str, bytes, int, float, complex, bool, type(None)})
_CONTAINERS = (list, tuple, dict, set, frozenset)


class _Kept:
    """A large container, as it was seen last."""

    def __init__(self, container: Any, number: int) -> None:
        self.container = container  # held, so that its id is not given to another one
        self.number = number
        self._parts = [list(part) for part in _parts_of(container)]
        types = set().union(*(set(map(type, part)) for part in self._parts))
        self.is_plain = types <= _LEAVES  # nothing can be changed within its items
        self._is_fixed = self.is_plain and isinstance(container, (tuple, frozenset))

    def is_as_before(self) -> bool:
        return self._is_fixed or all(map(self._is_same, _parts_of(self.container), self._parts))

    def _is_same(self, now: list[Any], before: list[Any]) -> bool:
        if self.is_plain:
            return now == before  # looks for the same object first, and so takes 1 ms for a million
        return len(now) == len(before) and all(map(operator.is_, now, before))


def _parts_of(container: Any) -> list[list[Any]]:
    if isinstance(container, dict):
        return [list(container), list(container.values())]
    if isinstance(container, np.ndarray):
        return [container.ravel().tolist()]
    return [container if isinstance(container, list) else list(container)]


class _Buffer(NamedTuple):
    """A large array, as it was seen last."""

    owner: weakref.ref[Any]
    address: int
    nbytes: int


class Seen(NamedTuple):
    """What a look has found."""

    pickle: bytes  # without what is left out; empty: it cannot be pickled
    buffers: list[_Buffer]
    versions: list[int]  # of tensors of torch
    is_whole: bool = False  # nothing was left out that can be changed within, but arrays

    def is_same(self, last: Seen) -> bool:
        """Whether nothing can have changed since ``last``. False also if that is not known, as of large arrays."""
        is_same = self.is_whole and last.is_whole and last.pickle == self.pickle and last.versions == self.versions
        return is_same and _are_equal(last.buffers, self.buffers) and not any(map(_is_ours, self.buffers))


class ChangeDetector:
    """Looks at a task before each epoch. Runs in: consumer."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}  # {id of a container: it}
        self._numbers = itertools.count()
        self._last = self._now = Seen(b"", [], [])
        self._has_told = False

    def has_changed(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]] | None = None) -> bool:
        """Whether something may have, since the last look that was followed by :meth:`commit`.

        Args:
            is_exact: also within what a large container holds, and within arrays: hooks may have changed it.
            states: attributes that count as these: see :class:`workers.process.replica.ReplicaPickler`.
        """
        start_s = time.monotonic()
        last, now = self._last, self._look(task, is_exact, states or {})
        self._now = now
        is_same = bool(now.pickle) and last.pickle == now.pickle and last.versions == now.versions
        is_same = is_same and _are_equal(last.buffers, now.buffers)
        seconds = time.monotonic() - start_s
        if last.pickle:
            self._tell_if_long(task, is_exact, seconds, lambda value: self._looking(is_exact).dump(value))
        # The bytes of arrays are left to Parcel.compare.
        return not is_same or (is_exact and any(map(_is_ours, now.buffers)))

    def commit(self) -> None:
        """The workers have what was seen."""
        self._last = self._now

    def tell_if_long(self, task: Any, has_hooks: bool, seconds: float) -> None:
        """Say once why an epoch's start takes so long, if it does, because of pickling all and comparing arrays."""
        self._tell_if_long(task, has_hooks, seconds, _pickle_and_read)

    def _tell_if_long(self, task: Any, has_hooks: bool, seconds: float, repeat: Callable[[Any], object]) -> None:
        """``repeat``: does again for a part what has taken so long."""
        if self._has_told or seconds <= _LONG_S:
            return
        found = _longest(_parts_of_task(task), repeat)
        if found is None or found.seconds <= seconds / 20:
            return  # it was the machine that was slow
        self._has_told = True
        where = f"{found.name} ({type(found.value).__name__}, {_size_of(found.value)})"
        logger.warning(
            "to see whether anything has changed took %.0f ms at the beginning of an epoch, most of it for %s. Hold "
            "such data in arrays of workers.share()%s",
            1e3 * seconds,
            where,
            ", or define no on_epoch_begin and on_epoch_end" if has_hooks else "",
        )

    def look_at(self, part: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Seen | None:
        """What there is to see of a part of the task that was looked at last; None: it cannot be pickled on its own."""
        return self._seen(part, is_exact, states)[0]

    def _looking(self, is_exact: bool, file: io.BytesIO | None = None) -> _Looking:
        return _Looking(file or io.BytesIO(), self._kept, self._numbers, is_exact)

    def _look(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Seen:
        seen, kept = self._seen(task, is_exact, states)
        if seen is None:
            return Seen(b"", [], [])  # Pickled says what it is
        self._kept = kept
        return seen

    def _seen(
        self, value: Any, is_exact: bool, states: dict[int, dict[str, Any]]
    ) -> tuple[Seen | None, dict[int, _Kept]]:
        """(what there is to see of ``value``, None if it cannot be pickled; the large containers in it)."""
        file = io.BytesIO()
        pickler = self._looking(is_exact, file)
        pickler.states = states
        try:
            pickler.dump(value)
        except Exception:  # reducers raise what they like
            return None, {}
        is_whole = is_exact or all(kept.is_plain for kept in pickler.seen.values())
        return Seen(file.getvalue(), pickler.buffers, pickler.versions, is_whole), pickler.seen


class _Cost(NamedTuple):
    """What looking at a part has taken."""

    seconds: float
    name: str
    value: Any


def _parts_of_task(task: Any) -> list[tuple[str, Any]]:
    """The attributes of what its jobs read, along the chain, and its functions; each with its name."""
    parts: list[tuple[str, Any]] = []
    source, is_left = getattr(task, "source", None), True
    while is_left:
        attributes = getattr(source, "__dict__", {})
        of = type(source).__name__
        is_left = "source_split" in attributes
        parts += [(f"{of}.{name}", value) for name, value in attributes.items() if name != "source_split"]
        if not attributes:
            parts.append(("what its jobs read", source))
        source = attributes.get("source_split")
    return parts + [part for each in getattr(task, "functions", ()) for part in _parts_of_function(each)]


def _parts_of_function(function: Any) -> list[tuple[str, Any]]:
    """The functions and arguments that ``functools.partial`` binds; of any other function, itself."""
    if not isinstance(function, functools.partial):
        return [(getattr(function, "__qualname__", type(function).__name__), function)]
    arguments: dict[Any, Any] = {**dict(enumerate(function.args)), **function.keywords}
    if function.func is single_function_to_run:
        return [part for each in arguments["function_to_run"] for part in _parts_of_function(each)]
    ((name, of), *others) = _parts_of_function(function.func)
    return [(name, of), *others, *[(f"{name}'s argument {key!r}", value) for key, value in arguments.items()]]


def _longest(parts: list[tuple[str, Any]], repeat: Callable[[Any], object]) -> _Cost | None:
    """The part that takes longest; of a function, what it holds."""
    costs = []
    for name, value in parts:
        start_s = time.monotonic()
        try:
            repeat(value)
        except Exception:  # on its own it may not be what is sent
            continue
        costs.append(_Cost(time.monotonic() - start_s, name, value))
    longest = max(costs, default=None, key=operator.itemgetter(0))
    if longest is None or not callable(longest.value):
        return longest
    within = _longest(_held_by(longest.value, longest.name), repeat)
    return within if within is not None and within.seconds > longest.seconds / 2 else longest


def _held_by(function: Any, name: str) -> list[tuple[str, Any]]:
    """The attributes, variables and globals of a function, or of an object that is called like one."""
    held = [(f"{name}.{attribute}", value) for attribute, value in getattr(function, "__dict__", {}).items()]
    code = getattr(function, "__code__", None)
    if code is not None:
        cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
        held += [(f"{name}'s variable {variable!r}", cell.cell_contents) for variable, cell in cells]
        known = function.__globals__
        held += [(f"{name}'s global {variable!r}", known[variable]) for variable in code.co_names if variable in known]
    return [(place, value) for place, value in held if not callable(value)]


def _pickle_and_read(value: Any) -> None:
    def read(buffer: pickle.PickleBuffer) -> bool:
        np.frombuffer(buffer.raw(), np.uint8).max(initial=0)
        return False

    ReplicaPickler(io.BytesIO(), protocol=5, buffer_callback=read).dump(value)


def _size_of(value: Any) -> str:
    if hasattr(value, "nbytes"):
        return f"{value.nbytes:,} bytes"
    return f"{len(value):,} items" if hasattr(value, "__len__") else "one object"


class _Looking(ReplicaPickler):
    """Pickles what is not left out; for that it writes a number, which is another one if it has changed."""

    def __init__(self, file: Any, kept: dict[int, _Kept], numbers: Any, is_exact: bool) -> None:
        self.seen: dict[int, _Kept] = {}
        self.buffers: list[_Buffer] = []
        self.versions: list[int] = []
        super().__init__(file, protocol=5, buffer_callback=functools.partial(_keep_out, self.buffers))
        self._kept_before = kept
        self._numbers = numbers
        self._is_exact = is_exact

    def reducer_override(self, obj: Any) -> Any:
        if (version := tensors.version(obj)) is not None:
            self.versions.append(version)
        return super().reducer_override(obj)

    def persistent_id(self, obj: Any) -> Any:
        kind = type(obj)
        if kind in _CONTAINERS:
            if len(obj) < _MANY:
                return None
        elif kind is not np.ndarray:
            return None
        elif not obj.dtype.hasobject:
            return None if self._is_exact else self._of_sparse(obj)
        elif obj.size < _MANY:
            return None
        kept = self.seen.get(id(obj))
        if kept is None:
            kept = self._kept_before.get(id(obj))
            if kept is None or kept.container is not obj or not kept.is_as_before():
                kept = _Kept(obj, next(self._numbers))
            self.seen[id(obj)] = kept
        return None if self._is_exact and not kept.is_plain else kept.number

    def _of_sparse(self, array: Any) -> Any:
        """What stands for a large array that is not dense: to pickle it would copy it."""
        if array.nbytes < SHARED_NBYTES or array.flags.c_contiguous or array.flags.f_contiguous:
            return None
        self.buffers.append(_Buffer(weakref.ref(_owner(array)), address_of(array), array.nbytes))
        return address_of(array), array.shape, array.strides, array.dtype.str


def _keep_out(buffers: list[_Buffer], buffer: pickle.PickleBuffer) -> bool:
    view = buffer.raw()
    if view.nbytes < SHARED_NBYTES:
        return True
    buffers.append(_Buffer(weakref.ref(_owner(view.obj)), address_of(view), view.nbytes))
    return False


def _owner(array: Any) -> Any:
    """The array or tensor that has the memory of ``array``, which may be a view that was made just now."""
    while isinstance(array, Memory) or (isinstance(array, np.ndarray) and isinstance(array.base, (np.ndarray, Memory))):
        array = array.base
    return array


def _are_equal(last: list[_Buffer], now: list[_Buffer]) -> bool:
    """Whether these are the same arrays, all of them alive all the time."""
    return len(last) == len(now) and all(
        one.owner is other.owner and one.owner() is not None and one[1:] == other[1:]
        for one, other in zip(last, now, strict=True)
    )


def _is_ours(buffer: _Buffer) -> bool:
    """Whether it has to be compared: it is not in memory that the workers see."""
    return share.find_bytes(buffer.address, buffer.nbytes) is None
