"""Slots: the memory that batches are delivered in, its use by the worker and its lease to the consumer.

A slot belongs to the worker that made it. The worker writes a batch into it (or the job has already, see
:func:`empty`) and names it in the result; from then on it is the consumer's. The batch's arrays are views of a
*lease*, an array over the slot; numpy keeps a lease alive while any view of it lives, and its death is noted in a
list without running any Python code. The numbers of freed slots go back to the worker with its next jobs.

    worker:    take -> fill -> (result names it) ................................ released -> take ...
    consumer:                    lease -> views ... last view gone -> freed -> (jobs name it)

Small batches share a slot, and the consumer copies them out at once: a copy of a few kilobytes is cheaper than a
lease, and no batch that is kept holds more memory than it has.
"""

from __future__ import annotations

import math
import os
import pickle
import weakref
from collections import deque
from typing import Any

import numpy as np

from . import shared_memory
from .layout import ALIGNMENT, Array, Layout, Place, dense_strides, dumps, flatten, unflattener

SMALL_NBYTES = 32 << 10  # up to here a batch is copied out
_BLOCK_NBYTES = 1 << 20  # of a slot for small batches
_MAX_LAYOUTS = 256
_BYTE = np.dtype(np.uint8)
_PLAIN = frozenset({int, float, bool, str, type(None)})

Rest = bytes | bool | list[Any] | None
Row = tuple[int, list[int], int, int, Rest]


class Lease(np.ndarray[Any, Any]):
    """All bytes of a slot. Views of it are plain arrays; while one lives, so does the lease."""


class _LeaseReference(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("number",)
    number: int


def _round_up(nbytes: int, step: int = ALIGNMENT) -> int:
    return -(-nbytes // step) * step


class Slot:
    """A piece of shared memory, as its worker has it."""

    __slots__ = ("address", "buffer", "bytes", "lease", "nbytes", "number", "used")

    def __init__(self, number: int, nbytes: int, buffer: Any) -> None:
        self.number = number
        self.nbytes = nbytes
        self.buffer = buffer
        self.bytes = np.ndarray((nbytes,), _BYTE, buffer)
        self.address = int(self.bytes.__array_interface__["data"][0])
        self.used = 0  # bytes from the start that are spoken for
        self.lease: weakref.ref[Lease] | None = None  # what a job's empty() arrays are views of


class SlotWriter:
    """Puts the results of a worker's jobs into slots. Runs in: worker. Blocks: never."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}
        self._free: list[Slot] = []  # the last one was used last: its pages are warm
        self._kept: list[Slot] = []  # whose empty() arrays the user's code still holds
        self._next_number = 0
        self._block: Slot | None = None  # collects small batches until the next message
        self._job_slots: list[Slot] = []  # what empty() has handed out in this job
        self._expected_nbytes = 0  # of a whole batch, as the last one was
        self._layouts: dict[Any, tuple[int, tuple[Place, ...], int]] = {}  # {(spec, arrays): (number, places, size)}
        self._layout_numbers: dict[Layout, int] = {}
        self._last: tuple[Any, tuple[int, tuple[Place, ...], int]] = (None, (0, (), 0))  # (spec, from _layouts)
        # What the next message has to tell:
        self.new_slots: list[tuple[int, int]] = []
        self.new_descriptors: list[int] = []
        self.gone: list[int] = []
        self.new_layouts: list[tuple[int, bytes]] = []

    # -- slots

    def _take(self, nbytes: int) -> Slot:
        if self._kept:
            self._look_at_kept()
        free = self._free
        for at in range(len(free) - 1, -1, -1):
            if free[at].nbytes >= nbytes:
                slot = free.pop(at)
                slot.used = 0
                return slot
        if free:  # too small: the batches have grown
            self._give_up(free.pop(0))
        # Sizes in steps of an eighth, so that batches of similar sizes can use each other's slots. Pages that
        # are never touched cost nothing.
        nbytes = _round_up(nbytes, max(shared_memory.PAGE, 1 << max(0, nbytes.bit_length() - 4)))
        descriptor = shared_memory.create(nbytes)
        try:
            slot = Slot(self._next_number, nbytes, shared_memory.attach(descriptor, nbytes))
        except BaseException:
            os.close(descriptor)
            raise
        self._next_number += 1
        self._slots[slot.number] = slot
        self.new_slots.append((slot.number, nbytes))
        self.new_descriptors.append(descriptor)
        return slot

    def _give_up(self, slot: Slot) -> None:
        del self._slots[slot.number]
        self.gone.append(slot.number)

    def release(self, numbers: list[int], keep: int) -> None:
        """The consumer has let go of these; at most ``keep`` slots stay free."""
        self._free.extend(self._slots[number] for number in numbers)
        while len(self._free) > keep:
            self._give_up(self._free.pop(0))

    def _look_at_kept(self) -> None:
        for slot in [slot for slot in self._kept if slot.lease is None or slot.lease() is None]:
            self._kept.remove(slot)
            self._free.append(slot)

    # -- a job

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """See :func:`workers.empty`."""
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(int(length) for length in shape)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes <= SMALL_NBYTES or dtype.hasobject or min(shape) < 0:
            return np.empty(shape, dtype)
        for slot in self._job_slots:
            if slot.used + nbytes <= slot.nbytes:
                break
        else:
            slot = self._take(max(nbytes, self._expected_nbytes))
            self._job_slots.append(slot)
        lease = slot.lease() if slot.lease is not None else None
        if lease is None:
            lease = Lease((slot.nbytes,), _BYTE, slot.buffer)
            slot.lease = weakref.ref(lease)
        array: Array = np.ndarray(shape, dtype, lease, slot.used)
        slot.used = _round_up(slot.used + nbytes)
        return array

    def write(self, result: Any) -> Row:
        """Put a job's result into slots.

        Returns:
            (layout, slots, offset, nbytes, rest) of its row. ``rest`` is a pickle, or True where that lies behind
            the arrays, or the list itself where it holds nothing but plain numbers and short strings.
        """
        arrays: list[Array] = []
        others: list[Any] = []
        spec = flatten(result, arrays, others)
        del result
        rest: Rest = others or None
        if others and not all(type(each) in _PLAIN and (type(each) is not str or len(each) < 256) for each in others):
            rest = dumps(others)
            if len(rest) > SMALL_NBYTES:
                arrays.append(np.frombuffer(rest, _BYTE))
                rest = True
        if self._job_slots:
            return self._write_around(spec, arrays, rest)
        if not self._is_as_last(spec, arrays):
            key = (spec, tuple([(a.dtype, a.shape, dense_strides(a)) for a in arrays]))
            self._last = spec, self._layouts.get(key) or self._plan(key, spec, arrays)
        number, places, nbytes = self._last[1]
        if nbytes <= SMALL_NBYTES:
            slot = self._block
            if slot is None or slot.used + nbytes > slot.nbytes:
                slot = self._block = self._take(_BLOCK_NBYTES)
            offset = slot.used
            slot.used += nbytes
        else:
            slot = self._take(nbytes)
            offset = 0
            self._expected_nbytes = nbytes
        buffer = slot.buffer
        for array, (dtype, shape, strides, _, start) in zip(arrays, places, strict=True):
            np.ndarray(shape, dtype, buffer, offset + start, strides)[...] = array
        return number, [slot.number], offset, nbytes, rest

    def _is_as_last(self, spec: Any, arrays: list[Array]) -> bool:
        """Whether the last layout fits: a look instead of a look-up, which would have to hash dtypes."""
        last_spec, (_, places, _) = self._last
        if spec != last_spec or len(arrays) != len(places):
            return False
        for array, (dtype, shape, strides, _, _) in zip(arrays, places, strict=True):
            if array.shape != shape or array.dtype is not dtype or dense_strides(array) != strides:
                return False
        return True

    def _plan(self, key: Any, spec: Any, arrays: list[Array]) -> tuple[int, tuple[Place, ...], int]:
        places, end = [], 0
        for array in arrays:
            places.append(Place(array.dtype, array.shape, dense_strides(array), 0, end))
            end += _round_up(array.nbytes)
        number = self._layout_number(Layout(spec, tuple(places)))
        planned = self._layouts[key] = number, tuple(places), end
        return planned

    def _layout_number(self, layout: Layout) -> int:
        number = self._layout_numbers.get(layout)
        if number is None:
            number = len(self._layout_numbers)
            self._layout_numbers[layout] = number
            self.new_layouts.append((number, dumps(layout)))
        return number

    def _write_around(self, spec: Any, arrays: list[Array], rest: Rest) -> Row:
        """The same where some arrays already lie in slots of this job."""
        slots = self._job_slots
        places = []
        for array in arrays:
            start = int(array.__array_interface__["data"][0])
            for at, slot in enumerate(slots):
                offset = start - slot.address
                # Dense arrays only: a strided one may begin inside a slot and reach back out of it.
                if 0 <= offset < slot.nbytes and (array.flags.c_contiguous or array.flags.f_contiguous):
                    strides = None if array.flags.c_contiguous else array.strides
                    places.append(Place(array.dtype, array.shape, strides, at, offset))
                    break
            else:
                places.append(self._place(array, slots))
        nbytes = sum(slot.used for slot in slots)
        self._expected_nbytes = nbytes
        number = self._layout_number(Layout(spec, tuple(places)))
        return number, [slot.number for slot in slots], 0, nbytes, rest

    def _place(self, array: Array, slots: list[Slot]) -> Place:
        """Copy ``array`` behind what lies in the job's slots."""
        for at, slot in enumerate(slots):  # noqa: B007
            if slot.used + array.nbytes <= slot.nbytes:
                break
        else:
            at, slot = len(slots), self._take(array.nbytes)
            slots.append(slot)
        place = Place(array.dtype, array.shape, dense_strides(array), at, slot.used)
        np.ndarray(place.shape, place.dtype, slot.buffer, place.offset, place.strides)[...] = array
        slot.used = _round_up(slot.used + array.nbytes)
        return place

    def end_job(self, numbers: list[int]) -> None:
        """A job that used :func:`empty` is over, and its result (in ``numbers``, changed in place) is dropped.

        Where the user's code still holds an array of it (``self.buffer = empty(...)``), the consumer gets a copy:
        what the job writes later must not show in a batch that is delivered.
        """
        for slot in self._job_slots:
            held = slot.lease is not None and slot.lease() is not None
            slot.lease = slot.lease if held else None
            if slot.number in numbers:
                if held:
                    copy = self._take(slot.nbytes)
                    copy.bytes[: slot.used] = slot.bytes[: slot.used]
                    numbers[numbers.index(slot.number)] = copy.number
                    self._kept.append(slot)
            else:
                (self._kept if held else self._free).append(slot)
        self._job_slots = []

    @property
    def used_empty(self) -> bool:
        return bool(self._job_slots)

    def take_news(self) -> tuple[list[tuple[int, int]], list[int], list[int], list[tuple[int, bytes]]]:
        """(new slots, gone slots, descriptors, new layouts) since the last message; ends the open block."""
        news = self.new_slots, self.gone, self.new_descriptors, self.new_layouts
        self.new_slots, self.gone, self.new_descriptors, self.new_layouts = [], [], [], []
        self._block = None
        if len(self._layout_numbers) > _MAX_LAYOUTS:  # batches of ever new shapes: start anew
            self._layouts.clear()
            self._layout_numbers.clear()
            self._last = (None, (0, (), 0))
        return news


class SlotReader:
    """Makes batches of what one worker has written. Runs in: consumer. Blocks: never."""

    def __init__(self) -> None:
        self._buffers: dict[int, Any] = {}  # {slot: its memory}
        self._layouts: dict[int, tuple[tuple[Place, ...], Any]] = {}
        self._leases: dict[int, _LeaseReference] = {}
        self._freed: deque[_LeaseReference] = deque()  # appended to by the death of a lease, in any thread
        self._copied: set[int] = set()  # slots whose batches were all copied out

    def learn(
        self, slots: list[tuple[int, int]], gone: list[int], layouts: list[tuple[int, bytes]], files: list[int]
    ) -> None:
        """Take note of new slots, slots that are no more, and new layouts. Closes ``files``."""
        for number in gone:
            self._buffers.pop(number, None)
        for (number, nbytes), file in zip(slots, files, strict=True):
            try:
                self._buffers[number] = shared_memory.attach(file, nbytes)
            finally:
                os.close(file)
        for number, pickled in layouts:
            layout: Layout = pickle.loads(pickled)
            self._layouts[number] = layout.places, unflattener(layout.spec)

    def read(self, number: int, slots: list[int], offset: int, nbytes: int, rest: Rest) -> Any:
        """The batch of a result row."""
        places, build = self._layouts[number]
        if nbytes <= SMALL_NBYTES or shared_memory.num_mapped() > shared_memory.MAX_MAPPED:
            self._copied.update(slots)
            buffers = [self._buffers[slot] for slot in slots]
            arrays = [
                np.ndarray(shape, dtype, buffers[at], offset + start, strides).copy("K")
                for dtype, shape, strides, at, start in places
            ]
        else:
            buffers = [self._lease(slot) for slot in slots]
            arrays = [
                np.ndarray(shape, dtype, buffers[at], offset + start, strides)
                for dtype, shape, strides, at, start in places
            ]
        if rest is None or type(rest) is list:
            return build(iter(arrays), iter(rest or ()))
        others = pickle.loads(arrays.pop() if rest is True else rest)  # type: ignore[arg-type]
        return build(iter(arrays), iter(others))

    def skip(self, slots: list[int]) -> None:
        """Nobody wants the batch in these slots any more."""
        self._copied.update(slots)

    def _lease(self, number: int) -> Lease:
        buffer = self._buffers[number]
        lease = Lease((len(buffer),), _BYTE, buffer)
        reference = self._leases[number] = _LeaseReference(lease, self._freed.append)
        reference.number = number
        return lease  # type: ignore[no-any-return]

    def take_freed(self) -> list[int]:
        """The slots that the consumer has let go of since the last call."""
        freed = list(self._copied)
        self._copied.clear()
        while self._freed:
            number = self._freed.popleft().number
            del self._leases[number]
            freed.append(number)
        return freed
