"""Detects within a few milliseconds whether a task has changed since the last epoch.

A task is what jobs need: the user's sequence and the functions applied to its batches. To detect a change, the task is
pickled again, and the new pickle is compared with the last one. What is then sent to workers is up to ``loader.pool``.

Objects that take long to pickle are left out of the pickle:

- A large container (a list of a million paths) counts as unchanged while it is the same object and holds the same
  objects. Changes *within* these objects are missed. If the sequence has hooks (on_epoch_begin, on_epoch_end), whose
  purpose is to change things, a container is left out only if it holds nothing but numbers and strings.
- A large array counts as unchanged while its memory is at the same address. A torch tensor must also not have been
  written to by torch. If the sequence has hooks, the bytes of large arrays must be compared as well, which is left to
  ``Parcel.compare``. Only arrays in shared memory are exempt, because workers see every write to them.

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
    """A snapshot of a large container (list, tuple, dict, set or object array), with the objects that it held."""

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
    """The identity of a large array, to recognise it in a later snapshot: the owner, address and size of its memory."""

    owner: weakref.ref[Any]
    address: int
    nbytes: int


class Seen(NamedTuple):
    """A snapshot of a task (the sequence and functions that jobs use) or of one attribute, to detect later changes."""

    pickle: bytes  # without large containers and arrays; empty if the task cannot be pickled
    buffers: list[_Buffer]
    versions: list[int]  # of torch tensors
    is_whole: bool = False  # True if only arrays, and containers of immutable items, were left out of the pickle

    def is_same(self, last: Seen) -> bool:
        """Return True if nothing can have changed since ``last``; always False for large arrays that are not shared."""
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
        self.is_known = True  # False if the task last seen cannot be pickled, so that its changes are unknown

    def has_changed(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]] | None = None) -> bool:
        """Return True if ``task`` has changed since the last :meth:`commit`, or if only a full comparison can tell.

        Args:
            is_exact: True if the sequence has hooks, which may change anything. Then the items of large containers are
                checked too, and large arrays outside shared memory need a full comparison.
            states: {id of an object: {attribute: the value to use instead}}, for attributes that cannot be pickled.
        """
        start_s = time.monotonic()
        last, now = self._last, self._look(task, is_exact, states or {})
        self._now = now
        self.is_known = is_same = bool(now.pickle)
        is_same = is_same and last.pickle == now.pickle and last.versions == now.versions
        is_same = is_same and _are_equal(last.buffers, now.buffers)
        seconds = time.monotonic() - start_s
        if last.pickle:
            self._tell_if_long(task, is_exact, seconds, lambda value: self._looking(is_exact).dump(value))
        # Large arrays may have been written to: Parcel.compare will compare their bytes.
        return not is_same or (is_exact and any(map(_is_ours, now.buffers)))

    def commit(self) -> None:
        """Make later calls compare with the task that :meth:`has_changed` last saw, because the workers have it now."""
        self._last = self._now

    def tell_if_long(self, task: Any, has_hooks: bool, seconds: float) -> None:
        """Warn if comparing the whole ``task`` took long, and name its slowest part. Warn only once.

        ``seconds`` is how long it took. If ``has_hooks``, the warning advises against on_epoch_begin and on_epoch_end.
        """
        self._tell_if_long(task, has_hooks, seconds, _pickle_and_read)

    def _tell_if_long(self, task: Any, has_hooks: bool, seconds: float, repeat: Callable[[Any], object]) -> None:
        """Warn as :meth:`tell_if_long` does. To find the slowest part of ``task``, time ``repeat(part)`` for each."""
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
        """Return a snapshot of one ``part`` of the task just checked; None if the part cannot be pickled on its own."""
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
        """Return (a snapshot of ``value``, {id: large container in ``value``}); (None, {}) if it cannot be pickled."""
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
    """How long it takes to check one part of a task for changes, with the name and value of this part."""

    seconds: float
    name: str
    value: Any


def _parts_of_task(task: Any) -> list[tuple[str, Any]]:
    """Return [(name, value)] of a task's parts: its functions, and the attributes of each sequence in its chain."""
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
    """Return [(name, ``function``)]; for a ``functools.partial``, [(name, value)] of its function and its arguments."""
    if not isinstance(function, functools.partial):
        return [(getattr(function, "__qualname__", type(function).__name__), function)]
    arguments: dict[Any, Any] = {**dict(enumerate(function.args)), **function.keywords}
    if function.func is single_function_to_run:
        return [part for each in arguments["function_to_run"] for part in _parts_of_function(each)]
    ((name, of), *others) = _parts_of_function(function.func)
    return [(name, of), *others, *[(f"{name}'s argument {key!r}", value) for key, value in arguments.items()]]


def _longest(parts: list[tuple[str, Any]], repeat: Callable[[Any], object]) -> _Cost | None:
    """Return the part for which ``repeat(value)`` takes longest, and its time; None if ``repeat`` fails for all parts.

    If this part is a function, and one object that it holds takes over half of the time, return that object instead.
    """
    costs = []
    for name, value in parts:
        start_s = time.thread_time()  # not the time in which other processes have the core
        try:
            repeat(value)
        except Exception:  # a part may be unpicklable on its own
            continue
        costs.append(_Cost(time.thread_time() - start_s, name, value))
    longest = max(costs, default=None, key=operator.itemgetter(0))
    if longest is None or not callable(longest.value):
        return longest
    within = _longest(_held_by(longest.value, longest.name), repeat)
    return within if within is not None and within.seconds > longest.seconds / 2 else longest


def _held_by(function: Any, name: str) -> list[tuple[str, Any]]:
    """Return [(name, value)] of the objects that a function holds: its attributes, closure variables and globals.

    Callable objects are left out. ``name`` is the name of the function, with which the returned names begin.
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
    """The pickler of snapshots. It leaves large containers and arrays out of the pickle.

    A number stands for each container left out: its last number if it still holds the same objects, else a new one.
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
        """Return the address and layout of a large array with gaps, to be pickled in its place: pickling would copy it.

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
    """Return the object that owns the memory of ``array``, which may itself be only a temporary view."""
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
    """Return True if a large array is outside the memory shared with workers, so its bytes must be compared."""
    return share.find_bytes(buffer.address, buffer.nbytes) is None
