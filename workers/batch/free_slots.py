"""The free slots (pieces of shared memory) that a worker keeps for later batches: which to use next, which to give up.

Slots are listed by size, so that one of the right size is found at once. As much memory is kept as was recently in use
at once, because a later message would have to allocate again what is given up now. The rest is given up, least recently
used slots first.
"""

from __future__ import annotations

import itertools
import time

from .slots import Slot

_WINDOW_S = 4.0
_GIVE_UP_S = 0.05  # the least time between two slots given up
#: How many times larger than requested a slot may be; whoever keeps an array keeps its whole slot. The first is for the
#: main slots of a batch, whose size may change from batch to batch, the second for others.
_MAX_TIMES_MAIN, _MAX_TIMES = 16, 2
_SPARE_TIMES = 2  # all slots may hold this many times the peak for a while, if sizes change


class Peak:
    """The most bytes of a worker's shared memory in use at once in the last 1 to 2 times ``_WINDOW_S`` seconds."""

    def __init__(self) -> None:
        self._now = self._before = 0
        self._since_s = self._asked_s = time.monotonic()

    def see(self, nbytes: int) -> None:
        """Record that ``nbytes`` are in use now."""
        if nbytes > self._now:
            self._now = nbytes

    def is_enough(self, nbytes: int) -> bool:
        """Return True if ``nbytes`` are at least the peak, the most bytes that were recently in use at once."""
        return nbytes >= self._now and nbytes >= self._before

    def is_due(self) -> bool:
        """Return True if a slot may be given up now: at most once in ``_GIVE_UP_S`` seconds.

        Call it often, as it also ends the time window over which the peak is taken.
        """
        now_s = time.monotonic()
        if now_s - self._asked_s <= _GIVE_UP_S:
            return False
        self._asked_s = now_s
        if now_s - self._since_s > _WINDOW_S:
            self._since_s, self._before, self._now = now_s, self._now, 0
        return True


class FreeSlots:
    """The free slots (unused pieces of shared memory) of one worker, by size."""

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
        """Remove and return the smallest free slot (piece of shared memory) that holds ``nbytes``; None: none fits.

        Of one size, the most recently used slot is taken, which is most likely in the processor's caches.

        Args:
            nbytes: bytes to hold, including the slot's header.
            is_main: the slot is among the largest of its batch. Others get no slot that is much too large for them.
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
        """Remove and return the least recently used free slot (piece of shared memory) that is not needed; None: none.

        Args:
            nbytes: the size of all slots of the worker together, free or in use.
            peak: the most bytes recently in use at once, which the remaining slots must cover.
            has_spare: True: the remaining slots must cover twice the peak.
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
