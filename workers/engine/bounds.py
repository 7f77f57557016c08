"""Sets how far ahead of the consumer the workers may be, and how many jobs are sent together."""

from __future__ import annotations

import math
from typing import NamedTuple

#: Jobs that together take less than this share a message, so that it costs little compared with its jobs.
BUNDLE_NS = 10_000_000
FAR_BUNDLE_NS = 100_000_000  # the same if a message takes milliseconds, as to another machine
MAX_BUNDLE = 128

# Without max_queue_size, each worker may be ahead by the work of _AHEAD bundles, by twice the slowest recent job (so
# that the others go on meanwhile), or by the loop's longest recent step, whichever is most. All together may be ahead
# by this much memory and this many batches.
_AHEAD = 5
_MAX_AWAY_NS = 1_000_000_000
_AHEAD_NBYTES = 64 << 20
_MAX_AHEAD = 1024

_WEIGHT = 0.1  # weight of the last job in the moving averages
_FADE = 0.99  # decay of the slowest job with each job that follows


class QueueLoad(NamedTuple):
    """The most that a pool holds in memory: QueueLoad(4, 10, 25_000_000)."""

    num_workers: int
    num_batches: int  # finished or being computed ahead of the consumer
    batch_nbytes: int  # of one batch, recent average; 0: unknown


class Bounds:
    """The bounds of a queue, learned from how long finished jobs took and how large their batches are.

    Args:
        num_workers: how many workers share the work.
        max_queue_size: the user's bound; None: chosen here.
        bundle_ns: jobs that together take less than this are sent together.
    """

    def __init__(self, num_workers: int, max_queue_size: int | None = None, bundle_ns: int = BUNDLE_NS) -> None:
        self._bundle_ns = bundle_ns
        self._num_workers = max(1, num_workers)
        self._max_queue_size = max_queue_size
        self._most = math.inf  # the bound that memory has set
        self._job_ns = 0.0  # moving average of a job's duration; 0: unknown yet
        self._job_nbytes = 0.0
        self._slowest_ns = 0.0  # of the recent jobs; decays
        self._away_ns = 0.0

    def resize(self, num_workers: int) -> None:
        """Share the work among ``num_workers`` from now on."""
        self._num_workers = max(1, num_workers)

    def learn(self, job_ns: int, nbytes: int) -> None:
        """Note that a job took ``job_ns``, and that its batch has ``nbytes``."""
        self._slowest_ns = max(job_ns, _FADE * self._slowest_ns)
        self._job_ns += (job_ns - self._job_ns) * (_WEIGHT if self._job_ns else 1.0)
        self._job_nbytes += (nbytes - self._job_nbytes) * (_WEIGHT if self._job_nbytes else 1.0)

    def is_away(self, ns: float) -> None:
        """Note the loop's longest recent step, ``ns``: batches for such a time should be ready when it returns."""
        self._away_ns = min(ns, _MAX_AWAY_NS)

    def bound(self) -> int:
        """Return how many batches may be finished or being computed ahead of the consumer."""
        if self._max_queue_size is not None:
            return self._max_queue_size
        least = 2 * self._num_workers + 2
        if not self._job_ns:
            return int(min(self._most, least))
        enough = self._num_workers * max(_AHEAD * self._bundle_ns, 2 * self._slowest_ns, self._away_ns) / self._job_ns
        fits = _AHEAD_NBYTES / max(self._job_nbytes, 1.0)
        return int(min(self._most, max(least, min(enough, fits, _MAX_AHEAD))))

    def halve(self) -> None:
        """Halve the bound for the lifetime of the pool: batches did not fit into memory, and soon would not fit again.
        A bound set by the user stays."""
        self._most = max(1, self.bound() // 2)

    def load(self) -> QueueLoad:
        """Return the number of workers, the bound, and the size of a batch."""
        return QueueLoad(self._num_workers, self.bound(), int(self._job_nbytes))

    def bundle(self) -> int:
        """Return how many jobs to send together."""
        if not self._job_ns:
            return 1
        return int(max(1, min(MAX_BUNDLE, self._bundle_ns / self._job_ns, self.bound() // (2 * self._num_workers))))

    def bundle_behind(self, num_sent: int) -> int:
        """Return how many jobs to send together after ``num_sent`` jobs of a pass. A pass that was not computed ahead
        begins with single jobs, so that its first batches do not wait for others."""
        return min(self.bundle(), max(1, num_sent // (2 * self._num_workers)))
