"""How far ahead of the consumer the workers may be, and how many jobs travel together."""

from __future__ import annotations

import math
from typing import NamedTuple

#: Results of jobs that take less than this travel together: a message then costs little against its jobs.
BUNDLE_NS = 10_000_000
FAR_BUNDLE_NS = 100_000_000  # the same where a message costs milliseconds, as to another machine
MAX_BUNDLE = 128

# Where max_queue_size is left to us: enough for the work of so many bundles, or for twice the slowest of the last jobs
# (so that the other workers go on meanwhile), or for as long as the loop lately was away; and for this much memory; up
# to so many batches.
_AHEAD = 5
_MAX_AWAY_NS = 1_000_000_000
_AHEAD_NBYTES = 64 << 20
_MAX_AHEAD = 1024

_WEIGHT = 0.1  # of the last job in the moving averages
_FADE = 0.99  # of the slowest job, with each one that follows


class QueueLoad(NamedTuple):
    """What a pool holds in memory at most: QueueLoad(4, 10, 25_000_000)."""

    num_workers: int
    num_batches: int  # finished or in work ahead of the consumer
    batch_nbytes: int  # of one, lately; 0: not known


class Bounds:
    """Knows from the jobs that have ended how long one takes and how large its batch is.

    Args:
        num_workers: how many workers share the work.
        max_queue_size: the bound that the user wants; None: chosen here.
        bundle_ns: jobs that together take less travel together.
    """

    def __init__(self, num_workers: int, max_queue_size: int | None = None, bundle_ns: int = BUNDLE_NS) -> None:
        self._bundle_ns = bundle_ns
        self._num_workers = max(1, num_workers)
        self._max_queue_size = max_queue_size
        self._most = math.inf  # as far as memory has let us
        self._job_ns = 0.0  # moving average of a job's duration; 0: not known yet
        self._job_nbytes = 0.0
        self._slowest_ns = 0.0  # of the last jobs; fades
        self._away_ns = 0.0

    def resize(self, num_workers: int) -> None:
        """So many share the work from now on."""
        self._num_workers = max(1, num_workers)

    def learn(self, job_ns: int, nbytes: int) -> None:
        """A job has taken ``job_ns``, and its batch has ``nbytes``."""
        self._slowest_ns = max(job_ns, _FADE * self._slowest_ns)
        self._job_ns += (job_ns - self._job_ns) * (_WEIGHT if self._job_ns else 1.0)
        self._job_nbytes += (nbytes - self._job_nbytes) * (_WEIGHT if self._job_nbytes else 1.0)

    def is_away(self, ns: float) -> None:
        """So long the loop lately asked for no batch: workers that go on meanwhile have the next ones for it."""
        self._away_ns = min(ns, _MAX_AWAY_NS)

    def bound(self) -> int:
        """How many batches may be finished or in work ahead of the consumer."""
        if self._max_queue_size is not None:
            return self._max_queue_size
        least = 2 * self._num_workers + 2
        if not self._job_ns:
            return int(min(self._most, least))
        enough = self._num_workers * max(_AHEAD * self._bundle_ns, 2 * self._slowest_ns, self._away_ns) / self._job_ns
        fits = _AHEAD_NBYTES / max(self._job_nbytes, 1.0)
        return int(min(self._most, max(least, min(enough, fits, _MAX_AHEAD))))

    def halve(self) -> None:
        """Batches did not fit into memory. From now on at most half as many as now, for as long as the pool lives:
        what was too much once would soon be so again. Where the user has chosen, that stays."""
        self._most = max(1, self.bound() // 2)

    def load(self) -> QueueLoad:
        """What the workers and the batches ahead of the consumer take."""
        return QueueLoad(self._num_workers, self.bound(), int(self._job_nbytes))

    def bundle(self) -> int:
        """How many jobs to send together."""
        if not self._job_ns:
            return 1
        return int(max(1, min(MAX_BUNDLE, self._bundle_ns / self._job_ns, self.bound() // (2 * self._num_workers))))

    def bundle_behind(self, num_sent: int) -> int:
        """The same where so many jobs of a pass were sent. A pass of which nothing was made ahead begins with single
        jobs, so that its first batches do not wait for others."""
        return min(self.bundle(), max(1, num_sent // (2 * self._num_workers)))
