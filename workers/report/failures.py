"""Counts the samples and batches of a loop that raised an error and were skipped, replaced or tried again."""

from __future__ import annotations

import threading
from collections import Counter

from workers.job.notes import SampleFailure

from .report import FailedSample

_MOST_KEPT = 1000  # different failures


class Failures:
    """The failures that a loop has met. Written by the thread of the loop; read by any thread."""

    def __init__(self) -> None:
        self._counts: dict[FailedSample, int] = {}  # {failure, its count left at 0: how often it came}
        self._totals: Counter[str] = Counter()  # {"skipped": 3}, of all failures
        self._lost = 0  # samples lost in the current pass
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Count anew the samples that are lost: a pass begins."""
        with self._lock:
            self._lost = 0

    def note(self, epoch: int, batch: int, failures: list[SampleFailure]) -> int:
        """Record ``failures``, those of batch ``batch``. Return how many samples were lost so far in this pass.

        A sample is lost if it was skipped or replaced by another one; a batch that was skipped counts as one.
        """
        with self._lock:
            for sample, what, error in failures:
                failed = FailedSample(epoch, batch, sample, what, error)
                if failed in self._counts or len(self._counts) < _MOST_KEPT:
                    self._counts[failed] = self._counts.get(failed, 0) + 1
                self._totals[what] += 1
                self._lost += what != "retried"
            return self._lost

    def totals(self) -> dict[str, int]:
        """Return how many samples and batches were skipped, redrawn or retried so far, e.g. {"skipped": 3}."""
        with self._lock:
            return dict(self._totals)

    def all(self) -> list[FailedSample]:
        """Return the first 1,000 different failures, in the order in which the loop met them."""
        with self._lock:
            return [failed._replace(times=times) for failed, times in self._counts.items()]
