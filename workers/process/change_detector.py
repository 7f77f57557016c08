"""Detects within a few milliseconds whether anything in a task has changed since the last epoch.

What is then sent to the workers is decided in ``loader.pool``.

The task is what the workers' jobs need: the user's sequence, and the functions applied to its batches. It is pickled
again, and the new bytes are compared with the last ones. Objects that would take long are left out of the pickle:

- A large container (a list of a million paths) counts as unchanged while it is the same object and holds the same
  objects; changes *within* these objects are missed. If the sequence has hooks (on_epoch_begin, on_epoch_end), which
  exist to change things, a container is left out only if it holds nothing but numbers and strings.
- A large array counts as unchanged while it has the same memory. For a torch tensor, no torch operation may have
  written to it either. If the sequence has hooks, the bytes of arrays are compared too, except in shared memory, where
  the workers see every write.

The docstring of ``Sequence.changed`` lists the changes that are missed.
"""

from __future__ import annotations

import contextlib
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

_MANY = 1000  # items; smaller containers are always pickled
_LONG_S = 0.05
_LEAVES = frozenset({str, bytes, int, float, complex, bool, type(None)})
_CONTAINERS = (list, tuple, dict, set, frozenset)


class _Kept:
    """A snapshot of a large list, tuple, dict, set or object array: the container itself and the objects it held."""

    def __init__(self, container: Any, number: int) -> None:
        self.container = container  # held, so that its id is not reused
        self.number = number
        self._parts = [list(part) for part in _parts_of(container)]
        types = set().union(*(set(map(type, part)) for part in self._parts))
        self.is_plain = types <= _LEAVES  # all items are immutable
        self._is_fixed = self.is_plain and isinstance(container, (tuple, frozenset))

    def is_as_before(self) -> bool:
        return self._is_fixed or all(map(self._is_same, _parts_of(self.container), self._parts))

    def _is_same(self, now: list[Any], before: list[Any]) -> bool:
        if self.is_plain:
            return now == before  # compares identities first, and so takes 1 ms for a million items
        return len(now) == len(before) and all(map(operator.is_, now, before))


def _parts_of(container: Any) -> list[list[Any]]:
    if isinstance(container, dict):
        return [list(container), list(container.values())]
    if isinstance(container, np.ndarray):
        return [container.ravel().tolist()]
    return [container if isinstance(container, list) else list(container)]


class _Buffer(NamedTuple):
    """The identity of a large array, by which it is recognised later: the owner of its memory, its address and size."""

    owner: weakref.ref[Any]
    address: int
    nbytes: int


class Seen(NamedTuple):
    """A snapshot of a task (the sequence and functions that jobs use), or of one of its attributes, for comparison."""

    pickle: bytes  # without the objects left out; empty if the task cannot be pickled
    buffers: list[_Buffer]
    versions: list[int]  # of torch tensors
    is_whole: bool = False  # nothing mutable was left out, except arrays

    def is_same(self, last: Seen) -> bool:
        """Return True if nothing can have changed since ``last``; False if something may have, as in a large array."""
        is_same = self.is_whole and last.is_whole and last.pickle == self.pickle and last.versions == self.versions
        return is_same and _are_equal(last.buffers, self.buffers) and not any(map(_is_ours, self.buffers))


class ChangeDetector:
    """A detector of changes in a task (the sequence and functions that jobs use) from one epoch to the next.

    Runs in: consumer.
    """

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}  # {id of a large container: as last seen}
        self._numbers = itertools.count()
        self._last = self._now = Seen(b"", [], [])
        self._has_told = False

    def has_changed(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]] | None = None) -> bool:
        """Return True if anything in ``task`` may have changed since the snapshot of the last :meth:`commit`.

        Args:
            is_exact: True if the sequence has hooks, which may change anything: items of large containers are checked
                too, and large arrays always count as changed, except in shared memory.
            states: {id of an object: {attribute: the value to use instead of its own}}.
        """
        start_s = time.monotonic()
        last, now = self._last, self._look(task, is_exact, states or {})
        self._now = now
        is_same = bool(now.pickle) and last.pickle == now.pickle and last.versions == now.versions
        is_same = is_same and _are_equal(last.buffers, now.buffers)
        seconds = time.monotonic() - start_s
        if last.pickle:
            self._tell_if_long(task, is_exact, seconds, lambda value: self._looking(is_exact).dump(value))
        # Arrays may have been written to: Parcel.compare will compare their bytes.
        return not is_same or (is_exact and any(map(_is_ours, now.buffers)))

    def commit(self) -> None:
        """Record that the workers have the task as :meth:`has_changed` last saw it, for later calls to compare with."""
        self._last = self._now

    def tell_if_long(self, task: Any, has_hooks: bool, seconds: float) -> None:
        """Warn, once, if the full comparison of ``task`` took long (``seconds``), and name the slowest part.

        ``has_hooks``: True if the sequence defines on_epoch_begin or on_epoch_end.
        """
        self._tell_if_long(task, has_hooks, seconds, _pickle_and_read)

    def _tell_if_long(self, task: Any, has_hooks: bool, seconds: float, repeat: Callable[[Any], object]) -> None:
        """Warn as :meth:`tell_if_long` does. ``repeat`` checks one part of ``task`` again, to measure its share."""
        if self._has_told or seconds <= _LONG_S:
            return
        found = _longest(_parts_of_task(task), repeat)
        if found is None or found.seconds <= seconds / 20:
            return  # the machine was slow, not the data
        self._has_told = True
        where = f"{found.name} ({type(found.value).__name__}, {_size_of(found.value)})"
        logger.warning(
            "checking the sequence for changes took %.0f ms at the beginning of an epoch, most of it for %s. Hold such "
            "data in arrays of workers.share()%s",
            1e3 * seconds,
            where,
            ", or define no on_epoch_begin and on_epoch_end" if has_hooks else "",
        )

    def look_at(self, part: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Seen | None:
        """Return a snapshot of ``part`` of the task that was just checked; None if it cannot be pickled on its own."""
        return self._seen(part, is_exact, states)[0]

    def _looking(self, is_exact: bool, file: io.BytesIO | None = None) -> _Looking:
        return _Looking(file or io.BytesIO(), self._kept, self._numbers, is_exact)

    def _look(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Seen:
        seen, kept = self._seen(task, is_exact, states)
        if seen is None:
            return Seen(b"", [], [])  # the class Pickled will raise an error that names the part
        self._kept = kept
        return seen

    def _seen(
        self, value: Any, is_exact: bool, states: dict[int, dict[str, Any]]
    ) -> tuple[Seen | None, dict[int, _Kept]]:
        """Return (a snapshot of ``value``, or None if it cannot be pickled; the large containers in it, by id)."""
        file = io.BytesIO()
        pickler = self._looking(is_exact, file)
        pickler.states = states
        try:
            pickler.dump(value)
        except Exception:  # reducers may raise anything
            return None, {}
        is_whole = is_exact or all(kept.is_plain for kept in pickler.seen.values())
        return Seen(file.getvalue(), pickler.buffers, pickler.versions, is_whole), pickler.seen


class _Cost(NamedTuple):
    """One part of a task, with its name and the time that it takes to check it for changes."""

    seconds: float
    name: str
    value: Any


def _parts_of_task(task: Any) -> list[tuple[str, Any]]:
    """Return [(name, value)] of a task's functions, and of the attributes of its sequence and of those under it."""
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
    """Return [(name, value)] for a function; if it is a ``functools.partial``, for its function and bound arguments."""
    if not isinstance(function, functools.partial):
        return [(getattr(function, "__qualname__", type(function).__name__), function)]
    arguments: dict[Any, Any] = {**dict(enumerate(function.args)), **function.keywords}
    if function.func is single_function_to_run:
        return [part for each in arguments["function_to_run"] for part in _parts_of_function(each)]
    ((name, of), *others) = _parts_of_function(function.func)
    return [(name, of), *others, *[(f"{name}'s argument {key!r}", value) for key, value in arguments.items()]]


def _longest(parts: list[tuple[str, Any]], repeat: Callable[[Any], object]) -> _Cost | None:
    """Time ``repeat(value)`` for each (name, value) of ``parts``, and return the slowest; None if it fails for all.

    If the slowest is a function, and one object that it holds takes more than half of its time, return that object.
    """
    costs = []
    for name, value in parts:
        start_s = time.monotonic()
        try:
            repeat(value)
        except Exception:  # a part may be unpicklable on its own
            continue
        costs.append(_Cost(time.monotonic() - start_s, name, value))
    longest = max(costs, default=None, key=operator.itemgetter(0))
    if longest is None or not callable(longest.value):
        return longest
    within = _longest(_held_by(longest.value, longest.name), repeat)
    return within if within is not None and within.seconds > longest.seconds / 2 else longest


def _held_by(function: Any, name: str) -> list[tuple[str, Any]]:
    """Return [(name, value)] of the objects that a function holds: its attributes, closure variables and globals.

    Callable ones are left out. ``name``: the function's own name, with which theirs begin.
    """
    held = [(f"{name}.{attribute}", value) for attribute, value in getattr(function, "__dict__", {}).items()]
    code = getattr(function, "__code__", None)
    if code is not None:
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # the variable is not set yet
                held.append((f"{name}'s variable {variable!r}", cell.cell_contents))
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
    """The pickler of snapshots: it makes a pickle to compare with an earlier one, without large containers and arrays.

    A number stands for each container left out: the same as last time if it holds the same objects, else a new one.
    """

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
        """Return what stands in the pickle for a large array with gaps: its address and layout. Pickling would copy it.

        Return None for a small or dense array, which is pickled as usual.
        """
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
    """Return the object that owns the memory of ``array``, because ``array`` itself may be a temporary view."""
    while isinstance(array, Memory) or (isinstance(array, np.ndarray) and isinstance(array.base, (np.ndarray, Memory))):
        array = array.base
    return array


def _are_equal(last: list[_Buffer], now: list[_Buffer]) -> bool:
    """Return True if two snapshots list the same large arrays in the same order, and all of them still exist."""
    return len(last) == len(now) and all(
        one.owner is other.owner and one.owner() is not None and one[1:] == other[1:]
        for one, other in zip(last, now, strict=True)
    )


def _is_ours(buffer: _Buffer) -> bool:
    """Return True if an array is not in memory shared with the workers, so that its bytes must be compared."""
    return share.find_bytes(buffer.address, buffer.nbytes) is None
