"""The free slots that a worker keeps for later batches: which slot to use next, and which to give up.

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
    """The most bytes in use at once recently, within the last one to two windows of ``_WINDOW_S``."""

    def __init__(self) -> None:
        self._now = self._before = 0
        self._since_s = self._asked_s = time.monotonic()

    def see(self, nbytes: int) -> None:
        """Note that ``nbytes`` are in use now."""
        if nbytes > self._now:
            self._now = nbytes

    def is_enough(self, nbytes: int) -> bool:
        """Return True if ``nbytes`` cover the peak."""
        return nbytes >= self._now and nbytes >= self._before

    def is_due(self) -> bool:
        """Return True if a slot may be given up now, every ``_GIVE_UP_S``. Call it often: it moves the window on."""
        now_s = time.monotonic()
        if now_s - self._asked_s <= _GIVE_UP_S:
            return False
        self._asked_s = now_s
        if now_s - self._since_s > _WINDOW_S:
            self._since_s, self._before, self._now = now_s, self._now, 0
        return True


class FreeSlots:
    """The free slots of a worker, of all sizes."""

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
        """Remove and return the smallest slot that holds ``nbytes``, header included; None: none fits.

        Of one size, the most recently used slot is taken, because its pages are warm.

        Args:
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
        """Remove and return the least recently used slot that the peak does not need; None: all are needed.

        Args:
            nbytes: of all slots of the worker, free or in use.
            peak: what the remaining slots must cover.
            has_spare: give up a slot only if there is much more memory than the peak.
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
