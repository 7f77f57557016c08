"""The worker's end of the slots: puts what jobs return into shared memory."""

from __future__ import annotations

import math
import os
import time
import weakref
from typing import Any, NamedTuple

import numpy as np

from workers.errors import integrity_error

from . import shared_memory
from .label import LABEL_NBYTES, WORD_NBYTES
from .memory_limit import DoesNotFit
from .slots import BYTE, HEADER_NBYTES, SMALL_NBYTES, Lease, Placed, Rest, Slot
from .tree import (
    ALIGNMENT,
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
_MAX_LAYOUTS_NBYTES = 1 << 20  # pickled: thousands of usual layouts
_WINDOW_S = 4.0
_GIVE_UP_S = 0.05  # between two slots that are given up
_PLAIN = frozenset({int, float, bool, str, type(None)})


class Peak:
    """The most slots in use at once, lately: within the last one to two windows of ``_WINDOW_S``."""

    def __init__(self) -> None:
        self._now = self._before = 0
        self._since_s = self._gave_up_s = time.monotonic()

    def see(self, num_used: int) -> None:
        """So many are in use now."""
        if num_used > self._now:
            self._now = num_used

    def may_give_up(self, num_slots: int) -> bool:
        """Whether one of ``num_slots`` is to go. To be asked often: it is what moves the window on."""
        now_s = time.monotonic()
        if now_s - self._since_s > _WINDOW_S:
            self._since_s, self._before, self._now = now_s, self._now, 0
        may = num_slots > max(self._now, self._before) and now_s - self._gave_up_s > _GIVE_UP_S
        if may:
            self._gave_up_s = now_s
        return may


class News(NamedTuple):
    """What the next message has to tell."""

    slots: list[tuple[int, int]]  # new ones, as (number, nbytes), e.g. [(3, 1048576)]
    gone: list[int]  # slots that were given up
    descriptors: list[int]  # of the new slots
    forgets: bool  # all layouts that were told of before are forgotten
    layouts: list[bytes]  # new ones, each a pickled Layout


class Planned(NamedTuple):
    """A layout that was seen before."""

    digest: int
    places: tuple[ArrayPlace, ...]
    nbytes: int


_NOTHING = Planned(0, (), 0)
_AROUND = "around"  # begins the key of a layout of which parts lie where workers.empty() has put them


def _round_up(nbytes: int, step: int = ALIGNMENT) -> int:
    return -(-nbytes // step) * step


def _is_of(last_spec: Any, places: tuple[ArrayPlace, ...], spec: Any, arrays: list[Array]) -> bool:
    """Whether the last layout fits: a look instead of a look-up, which would have to hash dtypes."""
    if spec != last_spec or len(arrays) != len(places):
        return False
    for array, (dtype, shape, strides, _, _) in zip(arrays, places, strict=True):
        if array.shape != shape or array.dtype is not dtype or dense_strides(array) != strides:
            return False
    return True


class SlotWriter:
    """Puts the results of a worker's jobs into slots. Runs in: worker. Blocks: never."""

    def __init__(self) -> None:
        self._slots: dict[int, Slot] = {}
        self._free: list[Slot] = []  # the last one was used last: its pages are warm
        self._kept: list[Slot] = []  # whose empty() arrays the user's code still holds
        self._peak = Peak()
        self._next_number = 0
        self._block: Slot | None = None  # collects small batches until the next message
        self._job_slots: list[Slot] = []  # what empty() has handed out in this job
        self._expected_nbytes = 0  # of a whole batch, as the last one was
        self._layouts: dict[Any, Planned] = {}  # {what identifies a layout: it}; the reader has all of them
        self._layouts_nbytes = 0  # pickled
        self._last: tuple[Any, Planned] = (None, _NOTHING)  # (spec, its layout)
        self._news = News([], [], [], False, [])

    # -- slots

    def _take(self, nbytes: int) -> Slot:
        """A slot for ``nbytes`` behind its header."""
        if self._kept:
            self._look_at_kept()
        free = self._free
        for at in range(len(free) - 1, -1, -1):
            if free[at].nbytes >= nbytes + HEADER_NBYTES:
                slot = free.pop(at)
                slot.used = HEADER_NBYTES
                self._peak.see(len(self._slots) - len(free))
                return slot
        if free:  # too small: the batches have grown
            self._give_up(free.pop(0))
        # Sizes in steps of an eighth, so that batches of similar sizes can use each other's slots. Pages that
        # are never touched cost nothing.
        nbytes = _round_up(nbytes, max(shared_memory.PAGE, 1 << max(0, nbytes.bit_length() - 4)))
        try:
            descriptor = shared_memory.create(nbytes, header_nbytes=HEADER_NBYTES)
        except DoesNotFit as error:
            # The slots of this job are given back, and wanted again.
            error.nbytes += sum(slot.nbytes - HEADER_NBYTES for slot in self._job_slots)
            raise
        try:
            buffer = shared_memory.attach(descriptor, nbytes, header_nbytes=HEADER_NBYTES)
            slot = Slot(self._next_number, HEADER_NBYTES + nbytes, buffer)
        except BaseException:
            os.close(descriptor)
            raise
        self._next_number += 1
        slot.used = HEADER_NBYTES
        self._slots[slot.number] = slot
        self._peak.see(len(self._slots) - len(free))
        self._news.slots.append((slot.number, slot.nbytes))
        self._news.descriptors.append(descriptor)
        return slot

    def _give_up(self, slot: Slot) -> None:
        del self._slots[slot.number]
        self._news.gone.append(slot.number)

    def release(self, numbers: list[int]) -> None:
        """The consumer has let go of these.

        As many slots stay as were in use at once lately: what one message gives up, a later one has to make again.
        The others go slowly, those first that were used longest ago.

        Raises:
            IntegrityError: one of them holds nothing that the consumer could have let go of.
        """
        for number in numbers:
            slot = self._slots.get(number)
            if slot is None or not slot.is_out:
                raise integrity_error(f"slot {number} was released, which the reader does not have")
            slot.is_out = False
            self._free.append(slot)
        if self._free and self._peak.may_give_up(len(self._slots)):
            self._give_up(self._free.pop(0))

    def give_up_free(self) -> None:
        """Memory is short: keep nothing for later batches."""
        self._look_at_kept()
        for slot in self._free:
            self._give_up(slot)
        self._free.clear()

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
            lease = Lease((slot.nbytes,), BYTE, slot.buffer)
            slot.lease = weakref.ref(lease)
        array: Array = np.ndarray(shape, dtype, lease, slot.used)
        slot.used = _round_up(slot.used + nbytes)
        return array

    def write(self, result: Any, sending: int) -> Placed:
        """Put a job's result into slots. ``sending``: what it is labelled with."""
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
        if not _is_of(last_spec, planned.places, spec, arrays):
            key = (spec, *[(exact(array.dtype), array.shape, dense_strides(array)) for array in arrays])
            planned = self._layouts.get(key) or self._plan(key, spec, arrays)
            # A structured dtype can be changed in place, so being the same object says nothing.
            self._last = (spec, planned) if all(is_plain(array.dtype) for array in arrays) else (None, _NOTHING)
        digest, places, nbytes = planned
        if nbytes <= SMALL_NBYTES:
            slot = self._block
            if slot is None or slot.used + LABEL_NBYTES + nbytes > slot.nbytes:
                slot = self._block = self._take(_BLOCK_NBYTES)
                slot.used = 0
            offset = slot.used
            slot.used += LABEL_NBYTES + nbytes
        else:
            slot = self._take(nbytes)
            offset = 0
            self._expected_nbytes = nbytes
        buffer = slot.buffer
        words, at = slot.words, offset // WORD_NBYTES
        words[at], words[at + 1] = sending, digest  # first: what lay here is not to be taken for whole
        for array, (dtype, shape, strides, _, start) in zip(arrays, places, strict=True):
            copy_into(np.ndarray(shape, dtype, buffer, offset + start, strides), array)
        slot.is_out = True
        return Placed(digest, [slot.number], offset, nbytes, rest)

    def _plan(self, key: Any, spec: Any, arrays: list[Array]) -> Planned:
        nbytes, places = sum(_round_up(array.nbytes) for array in arrays), []
        end = LABEL_NBYTES if nbytes <= SMALL_NBYTES else HEADER_NBYTES
        for array in arrays:
            places.append(ArrayPlace(array.dtype, array.shape, dense_strides(array), 0, end))
            end += _round_up(array.nbytes)
        return self._planned(key, Layout(spec, tuple(places)), nbytes)

    def _planned(self, key: Any, layout: Layout, nbytes: int) -> Planned:
        pickled = dumps(layout)
        planned = self._layouts[key] = Planned(digest_of(pickled), layout.places, nbytes)
        self._layouts_nbytes += len(pickled)
        self._news.layouts.append(pickled)
        return planned

    def _write_around(self, spec: Any, arrays: list[Array], rest: Rest, sending: int) -> Placed:
        """The same where some arrays already lie in slots of this job."""
        slots = self._job_slots
        places = []
        for array in arrays:
            start = shared_memory.address_of(array)
            for at, slot in enumerate(slots):
                offset = start - slot.address
                # Dense arrays only: a strided one may begin inside a slot and reach back out of it.
                if 0 <= offset < slot.nbytes and (array.flags.c_contiguous or array.flags.f_contiguous):
                    strides = None if array.flags.c_contiguous else array.strides
                    places.append(ArrayPlace(array.dtype, array.shape, strides, at, offset))
                    break
            else:
                places.append(self._place(array, slots))
        nbytes = sum(slot.used for slot in slots) - HEADER_NBYTES * len(slots)
        self._expected_nbytes = nbytes
        key = (_AROUND, spec, *[(exact(place.dtype), *place[1:]) for place in places])
        digest, _, _ = self._layouts.get(key) or self._planned(key, Layout(spec, tuple(places)), nbytes)
        for slot in slots:
            slot.words[0], slot.words[1] = sending, digest
            slot.is_out = True
        return Placed(digest, [slot.number for slot in slots], 0, nbytes, rest)

    def _place(self, array: Array, slots: list[Slot]) -> ArrayPlace:
        """Copy ``array`` behind what lies in the job's slots."""
        for at, slot in enumerate(slots):  # noqa: B007
            if slot.used + array.nbytes <= slot.nbytes:
                break
        else:
            at, slot = len(slots), self._take(array.nbytes)
            slots.append(slot)
        place = ArrayPlace(array.dtype, array.shape, dense_strides(array), at, slot.used)
        copy_into(np.ndarray(place.shape, place.dtype, slot.buffer, place.offset, place.strides), array)
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
                    copy = self._take(slot.nbytes - HEADER_NBYTES)
                    copy.bytes[: slot.used] = slot.bytes[: slot.used]
                    numbers[numbers.index(slot.number)] = copy.number
                    copy.is_out, slot.is_out = True, False
                    self._kept.append(slot)
            else:
                slot.is_out = False  # writing the result may have failed after this slot was labelled
                (self._kept if held else self._free).append(slot)
        self._job_slots = []

    @property
    def used_empty(self) -> bool:
        return bool(self._job_slots)

    def take_news(self) -> News:
        """What is new since the last message; ends the open block."""
        news, self._news = self._news, News([], [], [], False, [])
        self._block = None
        if self._layouts_nbytes > _MAX_LAYOUTS_NBYTES:  # batches of ever new shapes: both ends start anew
            self._layouts.clear()
            self._layouts_nbytes = 0
            self._last = (None, _NOTHING)
            self._news = self._news._replace(forgets=True)
        return news
