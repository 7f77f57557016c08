"""Keep a worker's free shared-memory slots for later batches; choose which to use next, and which to give up.

A worker keeps as much memory as it recently used at one time, since it would soon have to allocate that much again.
Slots beyond this are given up, the least recently used first. Slots are listed by size, so that one that fits is found
immediately.
"""

from __future__ import annotations

import itertools
import time

from .slots import Slot

_WINDOW_S = 4.0
_GIVE_UP_S = 0.05  # the minimum time between giving up two slots
#: How many times larger than requested a slot may be. The limits exist because a loop that keeps one array keeps its
#: whole slot. The first is for the largest ("main") slots of a batch, as their sizes may vary; the second, for others.
_MAX_TIMES_MAIN, _MAX_TIMES = 16, 2
_SPARE_TIMES = 2  # while sizes change, all slots together may hold this many times the peak


class Peak:
    """The most bytes of shared memory that a worker used at one time in the last 4 to 8 seconds."""

    def __init__(self) -> None:
        self._now = self._before = 0
        self._since_s = self._asked_s = time.monotonic()

    def see(self, nbytes: int) -> None:
        """Record that ``nbytes`` are in use now."""
        if nbytes > self._now:
            self._now = nbytes

    def is_enough(self, nbytes: int) -> bool:
        """Return True if ``nbytes`` are at least the recent peak, so that they would have been enough."""
        return nbytes >= self._now and nbytes >= self._before

    def is_due(self) -> bool:
        """Return True if a slot may be given up now; the result is True at most once every 0.05 seconds.

        Call this often, since it also starts a new window for the peak when the last one is over.
        """
        now_s = time.monotonic()
        if now_s - self._asked_s <= _GIVE_UP_S:
            return False
        self._asked_s = now_s
        if now_s - self._since_s > _WINDOW_S:
            self._since_s, self._before, self._now = now_s, self._now, 0
        return True


class FreeSlots:
    """The free shared-memory slots of one worker, by size."""

    def __init__(self) -> None:
        self._of_size: dict[int, list[Slot]] = {}  # {nbytes: slots, most recently used last}; no list is empty
        self._order = itertools.count()
        self.nbytes = 0  # of all free slots

    def __bool__(self) -> bool:
        return bool(self._of_size)

    def add(self, slot: Slot) -> None:
        slot.freed = next(self._order)
        self._of_size.setdefault(slot.nbytes, []).append(slot)
        self.nbytes += slot.nbytes

    def take(self, nbytes: int, is_main: bool) -> Slot | None:
        """Remove and return the smallest free slot of at least ``nbytes``; None if no slot fits.

        Among slots of one size, the most recently used is taken, as it is most likely in the processor's caches.

        Args:
            nbytes: bytes to hold, including the slot's header.
            is_main: True if the slot is one of the largest of its batch. It may then be up to 16 times larger than
                ``nbytes``; otherwise, twice as large.
        """
        sizes = self._of_size
        if nbytes not in sizes:
            most = nbytes * (_MAX_TIMES_MAIN if is_main else _MAX_TIMES)
            nbytes = min((size for size in sizes if nbytes <= size <= most), default=0)
            if not nbytes:
                return None
        return self._pop(nbytes, -1)

    def _pop(self, nbytes: int, at: int) -> Slot:
        slots = self._of_size[nbytes]
        slot = slots.pop(at)
        if not slots:
            del self._of_size[nbytes]
        self.nbytes -= nbytes
        return slot

    def take_dispensable(self, nbytes: int, peak: Peak, has_spare: bool = False) -> Slot | None:
        """Remove and return the least recently used free slot that can be given up; None if all are needed.

        Args:
            nbytes: the total size of all slots of the worker, free or in use.
            peak: the recent peak of memory in use; the remaining slots must be at least as large together.
            has_spare: True if the remaining slots must be at least twice as large as the peak.
        """
        if has_spare:
            nbytes //= _SPARE_TIMES
        oldest = sorted(self._of_size.values(), key=lambda slots: slots[0].freed)
        size = next((slots[0].nbytes for slots in oldest if peak.is_enough(nbytes - slots[0].nbytes)), None)
        return None if size is None else self._pop(size, 0)

    def take_all(self) -> list[Slot]:
        slots = list(itertools.chain(*self._of_size.values()))
        self._of_size.clear()
        self.nbytes = 0
        return slots
