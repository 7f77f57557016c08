"""Write the results of jobs into a worker's shared-memory slots, from which the consumer reads them."""

from __future__ import annotations

import math
import weakref
from typing import Any, NamedTuple

import numpy as np

from workers.errors import integrity_error
from workers.job import seeding

from .free_slots import FreeSlots, Peak
from .label import LABEL_NBYTES, WORD_NBYTES
from .memory_limit import DoesNotFit
from .places import NOTHING, Planned, is_of, places_of, places_within, round_up, slot_size
from .slots import BYTE, HEADER_NBYTES, MAX_SLOTS, SMALL_NBYTES, Lease, Placed, Rest, Slot, new_slot
from .tree import (
    Array,
    ArrayPlace,
    Layout,
    copy_into,
    dense_strides,
    digest_of,
    dumps,
    exact,
    flatten,
    is_plain,
)

_BLOCK_NBYTES = 1 << 20  # of a slot for small batches
_MAX_LAYOUTS_NBYTES = 1 << 20  # pickled; enough for thousands of usual layouts
_PLAIN = frozenset({int, float, bool, str, type(None)})


class News(NamedTuple):
    """The changes to a worker's slots and layouts, which its next message announces to the reader."""

    slots: list[tuple[int, int]]  # new ones, as (number, nbytes), e.g. [(3, 1048576)]
    gone: list[int]  # slots given up
    descriptors: list[int]  # of the new slots
    forgets: bool  # all layouts announced before are forgotten
    layouts: list[bytes]  # new ones, each a pickled Layout


_AROUND = "around"  # the first part of the key of a layout with arrays made by workers.empty()


class SlotWriter:
    """The writer that copies results of jobs, or items of a stream, into shared-memory slots. Blocks: never.

    Each large array of a batch has its own slot; if a batch has more than ``max_slots`` of them, they share slots.
    """

    def __init__(self, max_slots: int = MAX_SLOTS) -> None:
        self._max_slots = max_slots
        self._slots: dict[int, Slot] = {}  # {number: slot}
        self._nbytes = 0  # of all slots
        self._free = FreeSlots()
        self._kept: list[Slot] = []  # slots whose empty() arrays the user's code still holds
        self._peak = Peak()
        self._next_number = 0
        self._block: Slot | None = None  # collects small batches until the next message
        self._main_nbytes = 0  # of the content of the largest slot, in the last batch with empty() arrays
        self._job_slots: list[Slot] = []  # slots that empty() has used in this job
        self._layouts: dict[Any, Planned] = {}  # {spec, dtypes, shapes, strides: layout}; the reader knows all of them
        self._layouts_nbytes = 0  # of the pickled layouts
        self._last: tuple[Any, Planned] = (None, NOTHING)  # (spec, its layout)
        self._news = News([], [], [], False, [])

    # -- slots

    def _take(self, nbytes: int, is_main: bool = True) -> Slot:
        """Return a free or new slot with room for ``nbytes``; ``is_main`` is as in :meth:`FreeSlots.take`."""
        return self._take_sized(slot_size(nbytes), is_main)

    def _take_sized(self, nbytes: int, is_main: bool) -> Slot:
        """Return a slot as :meth:`_take` does, for ``nbytes`` that :func:`slot_size` has already rounded up."""
        if self._kept:
            self._look_at_kept()
        slot = self._free.take(HEADER_NBYTES + nbytes, is_main)
        if slot is not None:
            slot.used = HEADER_NBYTES
            self._peak.see(self._nbytes - self._free.nbytes)
            return slot
        try:
            slot, descriptor = new_slot(self._next_number, nbytes)
        except DoesNotFit as error:
            # The slots of this job will be freed, but its retry needs them again.
            error.nbytes += sum(slot.nbytes - HEADER_NBYTES for slot in self._job_slots)
            raise
        self._next_number += 1
        self._slots[slot.number] = slot
        self._nbytes += slot.nbytes
        self._peak.see(self._nbytes - self._free.nbytes)
        while (other := self._free.take_dispensable(self._nbytes, self._peak, not is_main)) is not None:
            self._give_up(other)
        self._news.slots.append((slot.number, slot.nbytes))
        self._news.descriptors.append(descriptor)
        return slot

    def _give_up(self, slot: Slot) -> None:
        del self._slots[slot.number]
        self._nbytes -= slot.nbytes
        self._news.gone.append(slot.number)

    def release(self, numbers: list[int]) -> None:
        """Take back the slots with these ``numbers``, which the consumer has released.

        To save allocations, as much memory is kept as was recently in use at one time. The rest is given up slowly.

        Raises:
            IntegrityError: the consumer does not have one of these slots.
        """
        for number in numbers:
            slot = self._slots.get(number)
            if slot is None or not slot.is_out:
                raise integrity_error(f"slot {number} was released, but the reader does not have it")
            slot.is_out = False
            self._free.add(slot)
        if self._free and self._peak.is_due():
            spare = self._free.take_dispensable(self._nbytes, self._peak)
            if spare is not None:
                self._give_up(spare)

    def give_up_free(self) -> None:
        """Give up all free slots instead of keeping them for later batches."""
        self._look_at_kept()
        for slot in self._free.take_all():
            self._give_up(slot)

    def _look_at_kept(self) -> None:
        for slot in [slot for slot in self._kept if slot.lease is None or slot.lease() is None]:
            self._kept.remove(slot)
            self._free.add(slot)

    # -- a job

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Array:
        """Return an uninitialised array in a slot of the current job; a small one is in ordinary memory."""
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(int(length) for length in shape)
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes <= SMALL_NBYTES or dtype.hasobject or min(shape) < 0:
            return np.empty(shape, dtype)
        slot = self._job_slots[self._slot_for(nbytes, nbytes)]
        lease = slot.lease() if slot.lease is not None else None
        if lease is None:
            lease = Lease((slot.nbytes,), BYTE, slot.buffer)
            slot.lease = weakref.ref(lease)
        array: Array = np.ndarray(shape, dtype, lease, slot.used)
        slot.used = round_up(slot.used + nbytes)
        return array

    def _slot_for(self, nbytes: int, new_nbytes: int) -> int:
        """Return the index of the job's slot for an array of ``nbytes``; add a slot of ``new_nbytes`` if necessary."""
        slots = self._job_slots
        is_full = len(slots) >= self._max_slots
        if is_full or nbytes <= SMALL_NBYTES:
            for at in range(len(slots) - 1, -1, -1):
                if slots[at].used + nbytes <= slots[at].nbytes:
                    return at
        new_nbytes = max(new_nbytes, 2 * slots[-1].nbytes) if is_full else new_nbytes
        slots.append(self._take(new_nbytes, new_nbytes >= self._main_nbytes // 2))
        return len(slots) - 1

    def write(self, result: Any, sending: int) -> Placed:
        """Copy a job's ``result`` into slots, label it with ``sending``, and return its place.
        ``sending`` is the number under which the job, or the item of a stream, was sent.
        """
        arrays: list[Array] = []
        others: list[Any] = []
        spec = flatten(result, arrays, others)
        del result
        rest: Rest = others or None
        if others and not all(type(each) in _PLAIN and (type(each) is not str or len(each) < 256) for each in others):
            rest = dumps(others)
            if len(rest) > SMALL_NBYTES:
                arrays.append(np.frombuffer(rest, BYTE))
                rest = True
        if self._job_slots:
            return self._write_around(spec, arrays, rest, sending)
        last_spec, planned = self._last
        if not is_of(last_spec, planned.places, spec, arrays):
            key = (spec, *[(exact(array.dtype), array.shape, dense_strides(array)) for array in arrays])
            planned = self._layouts.get(key) or self._plan(key, spec, arrays)
            # A structured dtype can be changed in place, so its identity proves nothing.
            self._last = (spec, planned) if all(is_plain(array.dtype) for array in arrays) else (None, NOTHING)
        digest, places, nbytes, sizes = planned
        if nbytes <= SMALL_NBYTES:
            slot = self._block
            if slot is None or slot.used + LABEL_NBYTES + nbytes > slot.nbytes:
                slot = self._block = self._take(_BLOCK_NBYTES)
                slot.used = 0
            offset = slot.used
            slot.used += LABEL_NBYTES + nbytes
            slots = [slot]
        else:
            slots, offset = self._take_all(sizes), 0
        at = offset // WORD_NBYTES
        for slot in slots:  # before the copy, so that no old label precedes a partly overwritten batch
            slot.words[at], slot.words[at + 1] = sending, digest
        for array, (dtype, shape, strides, at, start) in zip(arrays, places, strict=True):
            copy_into(np.ndarray(shape, dtype, slots[at].buffer, offset + start, strides), array)
        for slot in slots:
            slot.is_out = True
        return Placed(digest, [slot.number for slot in slots], offset, nbytes, rest)

    def _take_all(self, sizes: tuple[tuple[int, bool], ...]) -> list[Slot]:
        slots: list[Slot] = []
        try:
            for nbytes, is_main in sizes:
                slots.append(self._take_sized(nbytes, is_main))
        except BaseException as error:
            if isinstance(error, DoesNotFit):
                error.nbytes += sum(slot.nbytes - HEADER_NBYTES for slot in slots)
            for slot in slots:
                self._free.add(slot)
            raise
        return slots

    def _plan(self, key: Any, spec: Any, arrays: list[Array]) -> Planned:
        places, lengths = places_of(arrays, self._max_slots)
        sizes = tuple([(slot_size(each), each >= max(lengths) // 2) for each in lengths])
        return self._planned(key, Layout(spec, places), sum(round_up(array.nbytes) for array in arrays), sizes)

    def _planned(self, key: Any, layout: Layout, nbytes: int, sizes: tuple[tuple[int, bool], ...]) -> Planned:
        pickled = dumps(layout)
        planned = self._layouts[key] = Planned(digest_of(pickled), layout.places, nbytes, sizes)
        self._layouts_nbytes += len(pickled)
        self._news.layouts.append(pickled)
        return planned

    def _write_around(self, spec: Any, arrays: list[Array], rest: Rest, sending: int) -> Placed:
        """Write a result as :meth:`write` does, but do not copy arrays that already lie in slots of the job."""
        slots = self._job_slots
        there = places_within(arrays, slots)
        left = [array.nbytes for array, place in zip(arrays, there, strict=True) if place is None]
        small_nbytes = sum(round_up(nbytes) for nbytes in left if nbytes <= SMALL_NBYTES)
        places = [place or self._place(array, small_nbytes) for array, place in zip(arrays, there, strict=True)]
        nbytes = sum(slot.used for slot in slots) - HEADER_NBYTES * len(slots)
        self._main_nbytes = max(slot.used for slot in slots) - HEADER_NBYTES
        key = (_AROUND, spec, *[(exact(place.dtype), *place[1:]) for place in places])
        digest, *_ = self._layouts.get(key) or self._planned(key, Layout(spec, tuple(places)), nbytes, ())
        for slot in slots:
            slot.words[0], slot.words[1] = sending, digest
            slot.is_out = True
        return Placed(digest, [slot.number for slot in slots], 0, nbytes, rest)

    def _place(self, array: Array, small_nbytes: int) -> ArrayPlace:
        """Copy ``array`` into a slot of the job; return its place. A new slot for small arrays has ``small_nbytes``."""
        at = self._slot_for(array.nbytes, array.nbytes if array.nbytes > SMALL_NBYTES else small_nbytes)
        slot = self._job_slots[at]
        place = ArrayPlace(array.dtype, array.shape, dense_strides(array), at, slot.used)
        copy_into(np.ndarray(place.shape, place.dtype, slot.buffer, place.offset, place.strides), array)
        slot.used = round_up(slot.used + array.nbytes)
        return place

    def end_job(self, numbers: list[int]) -> None:
        """Finish a job that used :func:`empty`; the caller must have dropped all references to its result.

        If the user's code still holds an array in a slot (``self.buffer = empty(...)``), the consumer gets a copy of
        the slot, so that later writes do not change the batch, and its number in ``numbers``, the result's slots.
        """
        for slot in self._job_slots:
            held = slot.lease is not None and slot.lease() is not None
            slot.lease = slot.lease if held else None
            if slot.number in numbers:
                if held:
                    copy = self._take(slot.nbytes - HEADER_NBYTES)
                    copy.bytes[: slot.used] = slot.bytes[: slot.used]
                    numbers[numbers.index(slot.number)] = copy.number
                    copy.is_out, slot.is_out = True, False
                    self._kept.append(slot)
            else:
                slot.is_out = False  # writing the result may have failed after this slot was labelled
                (self._kept.append if held else self._free.add)(slot)
        self._job_slots = []

    @property
    def num_new_slots(self) -> int:
        """The number of new slots that no message has announced yet. Each has an open file descriptor."""
        return len(self._news.slots)

    @property
    def used_empty(self) -> bool:
        return bool(self._job_slots)

    def take_news(self) -> News:
        """Return the changes since the last message; small batches from now on go into another slot than before."""
        news, self._news = self._news, News([], [], [], False, [])
        self._block = None
        if self._layouts_nbytes > _MAX_LAYOUTS_NBYTES:  # batches keep having new shapes: both ends forget all layouts
            self._layouts.clear()
            self._layouts_nbytes = 0
            self._last = (None, NOTHING)
            self._news = self._news._replace(forgets=True)
        return news


#: The writer of this worker process; None in any other process.
writer: SlotWriter | None = None


def empty(shape: int | tuple[int, ...], dtype: Any = float) -> np.ndarray[Any, Any]:
    """Return an uninitialised array in the shared memory from which the loop will get the batch.

    In a job of a worker process, fill the array and return it, by itself or as part of a batch: it reaches the consumer
    without a copy. Small arrays (up to 32 KB) are copied all the same, and so is an array that you keep after the job.
    Anywhere else, this is the same as ``numpy.empty``.

    Args:
        shape: the lengths of the array's axes.
        dtype: as for ``numpy.empty``.

    Returns:
        An array in C order.
    """
    if writer is None or seeding.current_job() is None:
        return np.empty(shape, dtype)
    return writer.empty(shape, dtype)
