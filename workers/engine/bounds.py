"""Decides how many batches workers may compute ahead of the consumer (the loop), and how many jobs share a message."""

from __future__ import annotations

import math
from typing import NamedTuple

#: Jobs that together take less than this share a message, so that sending it costs little compared with the jobs.
BUNDLE_NS = 10_000_000
FAR_BUNDLE_NS = 100_000_000  # the same where a message takes milliseconds, e.g. to another machine
MAX_BUNDLE = 128

# Without max_queue_size, each worker may be ahead by the work of _AHEAD bundles, by twice the slowest recent job (so
# that the others go on meanwhile), or by the loop's longest recent step, whichever is most. All together may be ahead
# by at most _AHEAD_NBYTES of memory and _MAX_AHEAD batches.
_AHEAD = 5
_MAX_AWAY_NS = 1_000_000_000
_AHEAD_NBYTES = 64 << 20
_MAX_AHEAD = 1024

_WEIGHT = 0.1  # weight of the last job in the moving averages
_FADE = 0.99  # decay of the slowest job with each job that follows


class QueueLoad(NamedTuple):
    """How many batches a pool of workers may hold in memory, and their size, e.g. QueueLoad(4, 10, 25_000_000)."""

    num_workers: int
    num_batches: int  # finished or being computed ahead of the consumer
    batch_nbytes: int  # of one batch, recent average; 0: unknown


class Bounds:
    """The limits on batches ahead of the consumer and on jobs in one message, learned from finished jobs.

    Args:
        num_workers: how many workers share the work.
        max_queue_size: the user's limit on the batches ahead of the consumer (the loop); None to choose it here.
        bundle_ns: jobs that together take less than this many nanoseconds are sent in one message.
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
        """Set how many workers share the work from now on."""
        self._num_workers = max(1, num_workers)

    def learn(self, job_ns: int, nbytes: int) -> None:
        """Add the duration of a finished job, in nanoseconds, and the size of its batch to the running averages."""
        self._slowest_ns = max(job_ns, _FADE * self._slowest_ns)
        self._job_ns += (job_ns - self._job_ns) * (_WEIGHT if self._job_ns else 1.0)
        self._job_nbytes += (nbytes - self._job_nbytes) * (_WEIGHT if self._job_nbytes else 1.0)

    def is_away(self, ns: float) -> None:
        """Record ``ns``, the longest time that the loop has recently gone without asking for a batch.
        The workers may then be ahead by that much work, so that they need not stop in such a time."""
        self._away_ns = min(ns, _MAX_AWAY_NS)

    def bound(self) -> int:
        """Return how many batches, finished or being computed, may be ahead of the consumer (the loop)."""
        if self._max_queue_size is not None:
            return self._max_queue_size
        least = 2 * self._num_workers + 2
        if not self._job_ns:
            return int(min(self._most, least))
        enough = self._num_workers * max(_AHEAD * self._bundle_ns, 2 * self._slowest_ns, self._away_ns) / self._job_ns
        fits = _AHEAD_NBYTES / max(self._job_nbytes, 1.0)
        return int(min(self._most, max(least, min(enough, fits, _MAX_AHEAD))))

    def halve(self) -> None:
        """Halve the bound for the lifetime of the pool, unless it is set by the user.
        This is called when a batch did not fit into memory: with as many ahead, another soon would not fit either."""
        self._most = max(1, self.bound() // 2)

    def load(self) -> QueueLoad:
        """Return the number of workers, how many batches may be ahead of the consumer, and the mean size of a batch."""
        return QueueLoad(self._num_workers, self.bound(), int(self._job_nbytes))

    def bundle(self) -> int:
        """Return how many jobs to send to a worker in one message."""
        if not self._job_ns:
            return 1
        return int(max(1, min(MAX_BUNDLE, self._bundle_ns / self._job_ns, self.bound() // (2 * self._num_workers))))

    def bundle_behind(self, num_sent: int) -> int:
        """Return how many jobs to send in one message, after ``num_sent`` jobs of a pass were sent.
        A pass begins with single jobs, so that its first batches do not wait for the others of a message."""
        return min(self.bundle(), max(1, num_sent // (2 * self._num_workers)))
