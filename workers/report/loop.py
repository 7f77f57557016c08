"""Records when the loop requested and got each batch, and derives how long it waited and how long its steps took."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .durations import Durations
from .report import EpochStart, Spread
from .timeline import LOOP, Incident, LoopStep

_FULL = 3 * 4096  # note() calls tidy() if there are more recorded numbers
_KEPT = 4096  # rows
_KEPT_STARTS = 64
_FADE = 0.998  # the longest step is multiplied by this at each later step

Rows = npt.NDArray[np.int64]  # (n, 3): asked, got, num_ready; or, where a pass starts, 0, 0, its number


class Totals(NamedTuple):
    """Sums over all batches that the loop has received so far. Times are in nanoseconds."""

    num_batches: int = 0
    wait_ns: int = 0
    step_ns: int = 0
    num_ready: int = 0  # finished batches that waited when a batch was requested, in sum
    num_passes: int = 0  # with at least one batch
    first_wait_ns: int = 0  # the part of wait_ns spent on the first batches of passes

    def since(self, before: Totals) -> Totals:
        """Return the sums over the batches received since ``before``, an earlier Totals of the same loop."""
        return Totals(*(now - then for now, then in zip(self, before, strict=True)))


class LoopFigures:
    """The figures of the loop that reads the batches: its waits for batches, and its steps between them.

    Written by the loop's thread; read by any thread.
    """

    def __init__(self) -> None:
        self._noted: list[int] = []  # uncounted rows, flattened
        self._kept: Rows = np.zeros((0, 3), np.int64)
        self._wait, self._step = Durations(), Durations()
        self._totals = Totals()
        self.paid: LoopFigures | None = None  # of the loop whose data are not free, if these are of free data
        self.free: LoopFigures | None = None  # of a loop over the same data, free
        self.longest_ns = 0.0  # the longest recent step; shrinks with each later one
        self._num_passes = 0
        self.reading_ns = 0  # time spent on reading a source in the loop's process, and sending its items
        self.begins = 0.0  # seconds spent on starting passes, in all
        self._starts: dict[int, tuple[int, float, str, int]] = {}  # {number of a pass: (epoch, seconds, why, at)}
        self._first_waits: dict[int, int] = {}  # {number of a pass: ns}
        self._last = 0, 0  # the row counted last: (got, num_ready or number)
        self._counting = threading.Lock()  # without it, a reader could see a count half done

    # -- for the writer

    def begin(self, epoch: int, seconds: float, why: str) -> None:
        """Record that a pass (one run of the loop over an epoch) starts.

        Args:
            epoch: the epoch of the pass.
            seconds: how long it took to start the pass.
            why: why it took long, e.g. "2 workers had to be started"; "" if there was no special reason.
        """
        self.begins += seconds
        self._starts[self._num_passes] = epoch, seconds, why, time.monotonic_ns()
        self._starts.pop(self._num_passes - _KEPT_STARTS, None)
        self._noted += (0, 0, self._num_passes)
        self._num_passes += 1

    def note(self, asked_ns: int, got_ns: int, num_ready: int) -> None:
        """Record a delivered batch: when it was requested and when it was delivered, by the monotonic clock.

        ``num_ready`` is the number of finished batches that waited for the loop when it requested this one.
        """
        noted = self._noted
        noted += (asked_ns, got_ns, num_ready)
        if len(noted) > _FULL:
            self.tidy()

    def tidy(self) -> None:
        """Add the batches recorded since the last call to the totals and distributions."""
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
        """Return the sums over all batches that the loop has received so far."""
        self.tidy()
        return self._totals

    # -- for readers; all but copy() are called on a copy

    def copy(self) -> LoopFigures:
        """Return a copy whose totals and distributions include all batches recorded so far."""
        copied = LoopFigures()
        with self._counting:
            copied._kept, copied._totals, copied._last, copied.begins = (
                self._kept,
                self._totals,
                self._last,
                self.begins,
            )
            copied.longest_ns, copied.reading_ns = self.longest_ns, self.reading_ns
            copied._first_waits, copied._starts = self._first_waits.copy(), self._starts.copy()
            for mine, other in ((copied._wait, self._wait), (copied._step, self._step)):
                mine._counts, mine._total_ns = other._counts, other._total_ns
            copied._noted += self._noted.copy()
        copied.tidy()
        return copied

    @property
    def interval(self) -> float:
        """Seconds per batch, with the starts of passes but for the first one, in which workers start."""
        totals, first_s = self._totals, self._starts[0][1] if 0 in self._starts else 0.0
        in_ns = totals.wait_ns + totals.step_ns - self._first_waits.get(0, 0)
        return (self.begins - first_s + in_ns / 1e9) / max(totals.num_batches, 1)

    @property
    def last_ns(self) -> int:
        """The time (monotonic clock) when the last batch was delivered; 0 if the last pass has delivered none."""
        return self._last[0]

    @property
    def spreads(self) -> tuple[Spread, Spread]:
        """The distributions of (waits for batches, steps from a batch's delivery to the request for the next one)."""
        return self._wait.spread(), self._step.spread()

    def steps(self) -> list[LoopStep]:
        """Return the most recent steps of the loop: when each batch was requested and delivered."""
        return [LoopStep(*row) for row in self._kept.tolist() if row[0]]

    def starts(self) -> list[EpochStart]:
        """Return the cost of starting each recent pass over an epoch, if the pass has delivered a batch."""
        waits = self._first_waits
        return [
            EpochStart(epoch, seconds, waits[number] / 1e9, why)
            for number, (epoch, seconds, why, _) in self._starts.items()
            if number in waits
        ]

    def incidents(self) -> list[Incident]:
        """Return the starts of the most recent passes over an epoch, as incidents for the timeline."""
        return [Incident(at_ns, LOOP, "epoch", str(epoch)) for epoch, _, _, at_ns in self._starts.values()]


def _durations(rows: Rows, last: tuple[int, int]) -> tuple[Rows, Rows, dict[int, int]]:
    """Return (waits, steps, {number of a pass over an epoch: wait for its first batch}) in nanoseconds.

    A wait lasts from the request for a batch to its delivery, and a step from the delivery to the next request.

    Args:
        rows: for each batch, the times of its request and delivery, and the number of finished batches at the request;
            for each start of a pass, 0, 0 and the number of the pass.
        last: the last two values of the row before ``rows``.
    """
    asked, got = rows[:, 0], rows[:, 1]
    before = np.concatenate([[last], rows[:-1, 1:]])
    is_batch = asked > 0
    is_first = is_batch & (before[:, 0] == 0)
    steps = (asked - before[:, 0])[is_batch & ~is_first]
    firsts = zip(before[is_first, 1].tolist(), (got - asked)[is_first].tolist(), strict=True)
    return (got - asked)[is_batch], steps, dict(firsts)
