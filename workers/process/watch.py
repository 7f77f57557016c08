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
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share
from workers.batch.shared_memory import address_of

from . import tensors
from .arrays import SHARED_NBYTES, Memory
from .replica import Pickler

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


class Watch:
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
            states: attributes that count as these: see :class:`workers.process.replica.Pickler`.
        """
        start_s = time.monotonic()
        last, now = self._last, self._look(task, is_exact, states or {})
        self._now = now
        is_same = bool(now.pickle) and last.pickle == now.pickle and last.versions == now.versions
        is_same = is_same and _are_equal(last.buffers, now.buffers)
        seconds = time.monotonic() - start_s
        if last.pickle:
            self.tell_if_long(task, seconds)
        # The bytes of arrays are left to Parcel.compare.
        return not is_same or (is_exact and any(map(_is_ours, now.buffers)))

    def commit(self) -> None:
        """The workers have what was seen."""
        self._last = self._now

    def tell_if_long(self, task: Any, seconds: float) -> None:
        """Say once why an epoch's start takes so long, if it does: because of looking, or of comparing arrays."""
        if self._has_told or seconds <= _LONG_S:
            return
        self._has_told = True
        costs, source = [], getattr(task, "source", None)
        for name, value in getattr(source, "__dict__", {}).items():
            start_s = time.monotonic()
            try:
                Pickler(io.BytesIO(), protocol=5, buffer_callback=lambda buffer: False).dump(value)
            except Exception:  # on its own it may not be what is sent
                continue
            nbytes = getattr(value, "nbytes", 0)
            costs.append((time.monotonic() - start_s + nbytes / 1e10, name, value))
        where = ""
        if costs:
            _, name, value = max(costs, key=operator.itemgetter(0))
            size = _size_of(value)
            where = f", most of it for {type(source).__name__}.{name} ({type(value).__name__}, {size})"
        logger.warning(
            "to see whether anything has changed took %.0f ms at the beginning of an epoch%s. Hold such data in arrays "
            "of workers.share(), or define no hooks",
            1e3 * seconds,
            where,
        )

    def look_at(self, part: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Seen | None:
        """What there is to see of a part of the task that was looked at last; None: it cannot be pickled on its own."""
        file = io.BytesIO()
        pickler = _Looking(file, self._kept, self._numbers, is_exact)
        pickler.states = states
        try:
            pickler.dump(part)
        except Exception:  # reducers raise what they like
            return None
        is_whole = is_exact or all(kept.is_plain for kept in pickler.seen.values())
        return Seen(file.getvalue(), pickler.buffers, pickler.versions, is_whole)

    def _look(self, task: Any, is_exact: bool, states: dict[int, dict[str, Any]]) -> Seen:
        file = io.BytesIO()
        pickler = _Looking(file, self._kept, self._numbers, is_exact)
        pickler.states = states
        try:
            pickler.dump(task)
        except Exception:  # Pickled says what it is
            return Seen(b"", [], [])
        self._kept = pickler.seen
        return Seen(file.getvalue(), pickler.buffers, pickler.versions)


def _size_of(value: Any) -> str:
    if hasattr(value, "nbytes"):
        return f"{value.nbytes:,} bytes"
    return f"{len(value):,} items" if hasattr(value, "__len__") else "one object"


class _Looking(Pickler):
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
