"""Many durations in little memory: their sum, and how they are spread, to 3 %."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .report import Spread

_FULL = 4096  # that wait to be counted
_STEPS = 12  # to an octave
_OCTAVES = 44  # 2**44 ns are five hours

Int64 = npt.NDArray[np.int64]


class Durations:
    """Durations in nanoseconds. Written by one thread, read by any.

    ``note`` is ``list.append``: what is noted is counted later, many at once.
    """

    def __init__(self) -> None:
        self._noted: list[int] = []
        self.note = self._noted.append
        self.note_all = self._noted.extend
        self._counts: Int64 = np.zeros(_STEPS * _OCTAVES, np.int64)
        self._total_ns = 0

    def tidy(self) -> None:
        """To be called now and then by who writes."""
        if len(self._noted) > _FULL:
            noted = np.array(self._noted, np.int64)
            self._counts = self._counts + _counts(noted)  # anew: it may be read meanwhile
            self._total_ns += int(noted.sum())
            self._noted.clear()

    def add(self, many: Int64) -> None:
        """Note these, as who writes."""
        self._counts = self._counts + _counts(many)
        self._total_ns += int(many.sum())

    def spread(self) -> Spread:
        """Of all that were noted."""
        noted = np.array(self._noted.copy(), np.int64)
        counts = self._counts + _counts(noted)
        number = int(counts.sum())
        if not number:
            return Spread()
        total_ns = self._total_ns + int(noted.sum())
        upto = np.cumsum(counts)
        median, p99 = (_middle_ns(int(np.searchsorted(upto, share * number))) for share in (0.5, 0.99))
        return Spread(number, total_ns / 1e9, median / 1e9, p99 / 1e9)


def _counts(ns: Int64) -> Int64:
    at = (_STEPS * np.log2(np.maximum(ns, 1))).astype(np.int64)
    return np.bincount(np.minimum(at, _STEPS * _OCTAVES - 1), minlength=_STEPS * _OCTAVES)


def _middle_ns(at: int) -> float:
    return float(2.0 ** ((at + 0.5) / _STEPS))
