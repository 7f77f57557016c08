"""How the loop fares: for each batch, when it was asked for and when it was there."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .durations import Durations
from .report import EpochStart, Spread
from .timeline import LoopStep

_FULL = 3 * 4096  # numbers that wait to be counted
_KEPT = 4096  # steps, at least
_KEPT_STARTS = 64
_FADE = 0.998  # of the longest step, with each one that follows

Rows = npt.NDArray[np.int64]  # (n, 3): asked, got, num_ready; or 0, 0, number of the pass that begins


class Totals(NamedTuple):
    """Of all batches so far. Times in nanoseconds."""

    num_batches: int = 0
    wait_ns: int = 0
    step_ns: int = 0
    num_ready: int = 0  # sum over the batches
    num_passes: int = 0  # of which a batch was had
    first_wait_ns: int = 0  # what of wait_ns was for the first batches of these

    def since(self, before: Totals) -> Totals:
        """What has come after ``before``."""
        return Totals(*(now - then for now, then in zip(self, before, strict=True)))


class LoopFigures:
    """Written by the thread of the loop; read by any."""

    def __init__(self) -> None:
        self._noted: list[int] = []  # rows that are not counted yet, one behind the other
        self._kept: Rows = np.zeros((0, 3), np.int64)
        self._wait, self._step = Durations(), Durations()
        self._totals = Totals()
        self.longest_ns = 0.0  # of the last steps; fades
        self._num_passes = 0
        self.begins = 0.0  # seconds that beginning all passes has taken
        self._starts: dict[int, tuple[int, float, str]] = {}  # {number of a pass: (epoch, seconds, why)}, the last ones
        self._first_waits: dict[int, int] = {}  # {number of a pass: ns}
        self._last = 0, 0  # the row that was counted last: (got, num_ready or number)
        self._counting = threading.Lock()  # who reads meanwhile would read the half of it

    # -- who writes

    def begin(self, epoch: int, seconds: float, why: str) -> None:
        """A pass begins, which has taken these seconds."""
        self.begins += seconds
        self._starts[self._num_passes] = epoch, seconds, why
        self._starts.pop(self._num_passes - _KEPT_STARTS, None)
        self._noted += (0, 0, self._num_passes)
        self._num_passes += 1

    def note(self, asked_ns: int, got_ns: int, num_ready: int) -> None:
        """A batch was asked for when ``num_ready`` were finished, and was had."""
        noted = self._noted
        noted += (asked_ns, got_ns, num_ready)
        if len(noted) > _FULL:
            self.tidy()

    def tidy(self) -> None:
        """Count what was noted."""
        with self._counting:
            self._count()

    def _count(self) -> None:
        rows = np.array(self._noted, np.int64).reshape(-1, 3)
        if not len(rows):
            return
        waits, steps, firsts = _durations(rows, self._last)
        self._wait.add(waits)
        self._step.add(steps)
        self.longest_ns = max(float(steps.max(initial=0)), self.longest_ns * _FADE ** len(steps))
        before = self._totals
        self._last = int(rows[-1, 1]), int(rows[-1, 2])
        self._first_waits = {**self._first_waits, **firsts}
        for number in [*self._first_waits][:-_KEPT_STARTS]:
            del self._first_waits[number]
        self._kept = np.concatenate([self._kept, rows])[-_KEPT:]
        self._totals = Totals(
            before.num_batches + len(waits),
            before.wait_ns + int(waits.sum()),
            before.step_ns + int(steps.sum()),
            before.num_ready + int(rows[rows[:, 0] > 0, 2].sum()),
            before.num_passes + len(firsts),
            before.first_wait_ns + sum(firsts.values()),
        )
        self._noted.clear()

    def totals(self) -> Totals:
        """Of all up to now."""
        self.tidy()
        return self._totals

    # -- who reads

    def copy(self) -> LoopFigures:
        """As it is now, all counted."""
        copied = LoopFigures()
        with self._counting:
            copied._kept, copied._totals, copied._last, copied.begins = (
                self._kept,
                self._totals,
                self._last,
                self.begins,
            )
            copied.longest_ns = self.longest_ns
            copied._first_waits, copied._starts = self._first_waits.copy(), self._starts.copy()
            for mine, other in ((copied._wait, self._wait), (copied._step, self._step)):
                mine._counts, mine._total_ns = other._counts, other._total_ns
            copied._noted += self._noted.copy()
        copied.tidy()
        return copied

    @property
    def last_ns(self) -> int:
        """When the last batch was had, of a copy; 0: a pass has just begun."""
        return self._last[0]

    @property
    def spreads(self) -> tuple[Spread, Spread]:
        """Of (the waits, the steps), of a copy."""
        return self._wait.spread(), self._step.spread()

    def steps(self) -> list[LoopStep]:
        """The last ones, of a copy."""
        return [LoopStep(*row) for row in self._kept.tolist() if row[0]]

    def starts(self) -> list[EpochStart]:
        """Of the last passes of which a batch was had, of a copy."""
        waits = self._first_waits
        return [
            EpochStart(epoch, seconds, waits[number] / 1e9, why)
            for number, (epoch, seconds, why) in self._starts.items()
            if number in waits
        ]


def _durations(rows: Rows, last: tuple[int, int]) -> tuple[Rows, Rows, dict[int, int]]:
    """(waits, steps, {number of a pass: the wait for its first batch}) in nanoseconds. ``last``: of the row before."""
    asked, got = rows[:, 0], rows[:, 1]
    before = np.concatenate([[last], rows[:-1, 1:]])
    is_batch = asked > 0
    is_first = is_batch & (before[:, 0] == 0)
    steps = (asked - before[:, 0])[is_batch & ~is_first]
    firsts = zip(before[is_first, 1].tolist(), (got - asked)[is_first].tolist(), strict=True)
    return (got - asked)[is_batch], steps, dict(firsts)
