"""Renews a worker whose memory exceeds ``max_worker_memory``: it finishes its jobs, and another one replaces it.

Memory that a library leaks, or a cache without a limit, would otherwise fill the machine in a long training.
"""

from __future__ import annotations

import logging
import time

from workers.limits import private_nbytes
from workers.report.units import nbytes as in_words

from .executor import Executor
from .schedule import Schedule

logger = logging.getLogger("workers")

_LOOK_S = 1.0  # between two checks
_TIMES = 2  # checks in a row that find too much: a job may need it for a moment


class Renewal:
    """The renewal of one pool's workers, one at a time. Runs in the engine's thread.

    ``limit``: the most bytes of memory of its own that a worker may have; None for no limit.
    """

    def __init__(self, executor: Executor, schedule: Schedule, limit: int | None) -> None:
        self._executor, self._schedule, self._limit = executor, schedule, limit
        self._looked_s = time.monotonic()
        self._over: dict[int, int] = {}  # {worker: how many checks in a row have found too much}
        self._seen: set[int] = set()  # workers that a check has found within the limit
        self._leaving: int | None = None  # the worker that is being renewed

    def look(self) -> None:
        """Check the workers' memory if it is time, and retire the first worker that has too much."""
        if self._limit is None:
            return
        now_s = time.monotonic()
        if self._leaving is not None:
            self._schedule.retire_also(self._leaving)  # a resize may have revoked it
        elif now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            for worker in self._schedule.workers():
                if self._has_too_much(worker):
                    return

    def _has_too_much(self, worker: int) -> bool:
        assert self._limit is not None
        lane = self._executor.figures.lanes.get(self._executor.number(worker))
        nbytes = 0 if lane is None or lane.pid is None else private_nbytes(lane.pid)
        if nbytes <= self._limit:
            self._over.pop(worker, None)
            if nbytes:
                self._seen.add(worker)
            return False
        self._over[worker] = self._over.get(worker, 0) + 1
        if self._over[worker] < _TIMES:
            return False
        if worker not in self._seen:
            logger.warning(
                "worker %d needs %s from the start, so max_worker_memory=%s cannot be kept: give more",
                self._executor.number(worker),
                in_words(nbytes),
                in_words(self._limit),
            )
            self._limit = None
            return True
        logger.info("worker %d is renewed: it has %s of memory", self._executor.number(worker), in_words(nbytes))
        self._leaving = worker
        self._schedule.retire_also(worker)
        return True

    def died(self, worker: int) -> None:
        """Start the replacement of the renewed worker, once it has ended."""
        self._over.pop(worker, None)
        self._seen.discard(worker)
        if worker == self._leaving:
            self._leaving = None
            self._executor.start()
