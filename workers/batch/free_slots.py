"""The slots that a worker keeps for later batches: which one serves next, and which ones go.

Each size has a list of its own, so that a slot of the right size is found at once. Memory in the sum of what was in use
at once lately stays: what one message gives up, a later one would have to make again. The rest goes, those slots first
that were used longest ago.
"""

from __future__ import annotations

import itertools
import time

from .slots import Slot

_WINDOW_S = 4.0
_GIVE_UP_S = 0.05  # between two slots that are given up
#: So many times what it is taken for may a slot be, for who keeps the array keeps all of it: for the largest array of a
#: batch, whose size may change from batch to batch, and for others.
_MAX_TIMES_MAIN, _MAX_TIMES = 16, 2
_SPARE_TIMES = 2  # free slots may hold so many times what was in use at once, for a while, where sizes change


class Peak:
    """The most bytes in use at once, lately: within the last one to two windows of ``_WINDOW_S``."""

    def __init__(self) -> None:
        self._now = self._before = 0
        self._since_s = self._asked_s = time.monotonic()

    def see(self, nbytes: int) -> None:
        """So many are in use now."""
        if nbytes > self._now:
            self._now = nbytes

    def is_enough(self, nbytes: int) -> bool:
        """Whether so many are as many as were in use at once."""
        return nbytes >= self._now and nbytes >= self._before

    def is_due(self) -> bool:
        """Whether a slot may go now, which is every ``_GIVE_UP_S``. To be asked often: it moves the window on."""
        now_s = time.monotonic()
        if now_s - self._asked_s <= _GIVE_UP_S:
            return False
        self._asked_s = now_s
        if now_s - self._since_s > _WINDOW_S:
            self._since_s, self._before, self._now = now_s, self._now, 0
        return True


class FreeSlots:
    """Slots that hold nothing, of all sizes."""

    def __init__(self) -> None:
        self._of_size: dict[int, list[Slot]] = {}  # {nbytes: those of this size, the last one used last}; none is empty
        self._order = itertools.count()
        self.nbytes = 0  # of all

    def __bool__(self) -> bool:
        return bool(self._of_size)

    def add(self, slot: Slot) -> None:
        slot.freed = next(self._order)
        self._of_size.setdefault(slot.nbytes, []).append(slot)
        self.nbytes += slot.nbytes

    def take(self, nbytes: int, is_main: bool) -> Slot | None:
        """The slot to use for so many bytes, header included, the last one of its size: its pages are warm.

        It is the smallest that holds them.

        Args:
            is_main: it is for the largest array of a batch. Smaller ones get no slot that is much too large for them.
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
        """The one used longest ago without which the rest of all ``nbytes`` is still what was in use at once.

        Args:
            has_spare: only if there is much more than that.
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
