"""Decides how many batches workers may compute ahead of the consumer (the loop), and how many jobs share a message."""

from __future__ import annotations

import math
from typing import NamedTuple

#: Jobs that together take less than this are sent in one message, so that messages cost little compared with jobs.
BUNDLE_NS = 10_000_000
FAR_BUNDLE_NS = 100_000_000  # the same for messages that take milliseconds, e.g. to another machine
MAX_BUNDLE = 128

# Without max_queue_size, each worker may compute ahead of the loop for the longest of these times: that of _AHEAD
# bundles, twice that of the slowest recent job (during which the other workers go on), and that of the loop's longest
# recent step. All workers together may be ahead by at most _AHEAD_NBYTES of memory and _MAX_AHEAD batches.
_AHEAD = 5
_MAX_AWAY_NS = 1_000_000_000
_AHEAD_NBYTES = 64 << 20
_MAX_AHEAD = 1024

_WEIGHT = 0.1  # weight of the last job in the moving averages
_FADE = 0.99  # factor by which each later job lowers the time of the slowest job


class QueueLoad(NamedTuple):
    """What a pool may hold in memory, e.g. QueueLoad(num_workers=4, num_batches=10, batch_nbytes=25_000_000)."""

    num_workers: int
    num_batches: int  # that may be finished or being computed ahead of the consumer
    batch_nbytes: int  # the average size of recent batches; 0: unknown


class Bounds:
    """The limits on the batches ahead of the consumer and on the jobs in a message, learned from finished jobs.

    Args:
        num_workers: how many workers share the work.
        max_queue_size: the user's limit on the batches ahead of the consumer (the loop); None to choose a limit here.
        bundle_ns: jobs that together take less than this many nanoseconds are sent in one message.
    """

    def __init__(self, num_workers: int, max_queue_size: int | None = None, bundle_ns: int = BUNDLE_NS) -> None:
        self._bundle_ns = bundle_ns
        self._num_workers = max(1, num_workers)
        self._max_queue_size = max_queue_size
        self._most = math.inf  # the limit that halve() has set
        self._job_ns = 0.0  # moving average of a job's duration; 0: unknown yet
        self._job_nbytes = 0.0
        self._slowest_ns = 0.0  # duration of the slowest recent job; decays
        self._away_ns = 0.0

    def resize(self, num_workers: int) -> None:
        """Set the number of workers that share the jobs from now on."""
        self._num_workers = max(1, num_workers)

    def learn(self, job_ns: int, nbytes: int) -> None:
        """Update the averages with the duration of a finished job, in nanoseconds, and with the size of its batch."""
        self._slowest_ns = max(job_ns, _FADE * self._slowest_ns)
        self._job_ns += (job_ns - self._job_ns) * (_WEIGHT if self._job_ns else 1.0)
        self._job_nbytes += (nbytes - self._job_nbytes) * (_WEIGHT if self._job_nbytes else 1.0)

    def is_away(self, ns: float) -> None:
        """Record that the loop has recently gone up to ``ns`` nanoseconds without asking for a batch.
        The workers may then compute ahead for as long, so that they need not pause while the loop is away."""
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
        """Halve the bound until the pool ends, as a batch did not fit into memory. Keep a bound that the user has set.
        With as many batches ahead of the loop as before, another batch would soon not fit either."""
        self._most = max(1, self.bound() // 2)

    def load(self) -> QueueLoad:
        """Return the number of workers, how many batches may be ahead of the consumer, and the average batch size."""
        return QueueLoad(self._num_workers, self.bound(), int(self._job_nbytes))

    def bundle(self) -> int:
        """Return how many jobs to send to a worker in one message."""
        if not self._job_ns:
            return 1
        return int(max(1, min(MAX_BUNDLE, self._bundle_ns / self._job_ns, self.bound() // (2 * self._num_workers))))

    def bundle_behind(self, num_sent: int) -> int:
        """Return how many jobs to send in one message, after ``num_sent`` jobs of a pass were sent.
        A pass begins with single jobs, as a worker may keep its first results until all jobs of a message are done."""
        return min(self.bundle(), max(1, num_sent // (2 * self._num_workers)))
