"""Keeps the sum of many durations, and their quantiles to within 3 %, in little memory."""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .report import Spread

_FULL = 4096  # tidy() adds the recorded durations to the bins if there are more
_STEPS = 12  # bins per octave
_OCTAVES = 44  # 2**44 ns are five hours

Int64 = npt.NDArray[np.int64]


class DurationSum(NamedTuple):
    """The number and sum of many durations."""

    number: int = 0
    ns: int = 0

    def since(self, before: DurationSum) -> DurationSum:
        """Return the number and sum of the durations recorded since ``before``, an earlier sum of the same ones."""
        return DurationSum(self.number - before.number, self.ns - before.ns)


class Durations:
    """A histogram of durations in nanoseconds. One thread writes it; any thread may read it.

    ``note`` is cheap, because it only appends to a list. Durations are added to the bins later, many at a time.
    """

    def __init__(self) -> None:
        self._noted: list[int] = []
        self.note = self._noted.append
        self.note_all = self._noted.extend
        self._counts: Int64 = np.zeros(_STEPS * _OCTAVES, np.int64)
        self._total_ns = 0
        self._counting = threading.Lock()  # without it, a reader could see a count half done

    def tidy(self) -> None:
        """Add the durations recorded since the last time to the bins, if they are many. The writer calls this often."""
        if len(self._noted) > _FULL:
            with self._counting:
                self._add(np.array(self._noted, np.int64))
                self._noted.clear()

    def add(self, many: Int64) -> None:
        """Add these durations, in nanoseconds, to the bins immediately. Only the writer's thread may call this."""
        with self._counting:
            self._add(many)

    def _add(self, many: Int64) -> None:
        self._counts = self._counts + _counts(many)  # a new array, since copies may share the old one
        self._total_ns += int(many.sum())

    def sum(self) -> DurationSum:
        """Return the number and sum of all durations recorded so far. Takes less time than ``spread``."""
        with self._counting:
            noted = self._noted.copy()
            return DurationSum(int(self._counts.sum()) + len(noted), self._total_ns + sum(noted))

    def spread(self) -> Spread:
        """Return the number, sum, median and 99th percentile of all durations recorded so far."""
        with self._counting:
            noted = np.array(self._noted.copy(), np.int64)
            counts, total_ns = self._counts + _counts(noted), self._total_ns + int(noted.sum())
        number = int(counts.sum())
        if not number:
            return Spread()
        upto = np.cumsum(counts)
        median, p99 = (_middle_ns(int(np.searchsorted(upto, share * number))) for share in (0.5, 0.99))
        return Spread(number, total_ns / 1e9, median / 1e9, p99 / 1e9)


def _counts(ns: Int64) -> Int64:
    at = (_STEPS * np.log2(np.maximum(ns, 1))).astype(np.int64)
    return np.bincount(np.minimum(at, _STEPS * _OCTAVES - 1), minlength=_STEPS * _OCTAVES)


def _middle_ns(at: int) -> float:
    return float(2.0 ** ((at + 0.5) / _STEPS))
