"""Ends workers that have been idle for a minute, and starts them again when there are jobs.

A loop that an exception has ended may still be in memory: a notebook keeps the traceback, and with it the iterator and
its SequenceMap. The engine cannot tell it from a loop that goes on after a long evaluation. So only the workers are
ended. The schedule, the finished batches and the parcel (the pickled sequence) stay, and new workers go on from there.
"""

from __future__ import annotations

import logging
import time

from .executor import Executor
from .schedule import Schedule
from .watchdog import Watchdog

logger = logging.getLogger("workers")

IDLE_S = 60.0  # idle time after which workers are ended


class IdleShutdown:
    """The shutdown and restart of one pool's idle workers.
    Runs in the engine's thread, which waits until workers have ended."""

    def __init__(self, executor: Executor, schedule: Schedule, watchdog: Watchdog) -> None:
        self._executor = executor
        self._schedule = schedule
        self._watchdog = watchdog
        self._since_s = time.monotonic()  # when workers or the consumer were last seen active
        self._progress: tuple[int, int] | None = None  # the consumer's progress at the last check
        self.has_ended_workers = False  # the workers were ended

    def put_off(self) -> None:
        """Restart the idle time, because workers have jobs, or one has just loaded the sequence."""
        self._since_s = time.monotonic()

    def begin_if_due(self, progress: tuple[int, int]) -> float:
        """End the workers, which have no jobs, if they and the consumer have done nothing for :data:`IDLE_S`.

        Args:
            progress: any value that changes when the consumer (the loop) takes a batch.

        Returns:
            Seconds until the workers may be ended, or 0 if they were, as commands may have come meanwhile.
        """
        if progress != self._progress:
            self._progress = progress
            self.put_off()
        left_s = self._since_s + IDLE_S - time.monotonic()
        if left_s > 0:
            return left_s
        self.put_off()
        workers = self._schedule.workers()
        if not self._executor.end_idle():
            return IDLE_S
        for worker in workers:
            self._watchdog.died(worker)
            self._schedule.died(worker, running=0)
        self.has_ended_workers = True
        logger.debug("%d workers were ended after they were idle for %g s", len(workers), IDLE_S)
        return 0.0

    def end_if_needed(self, num_untaken: int) -> float | None:
        """Start the workers again if there are jobs to send. Return the timeout of the engine's next turn.

        It is 0 if they were started, and None (no limit) if they stay ended. ``num_untaken``: how many finished batches
        the consumer has not taken.
        """
        schedule = self._schedule
        can_send = schedule.wanted_room() is not None and schedule.room(num_untaken) > 0
        if schedule.is_idle and not can_send:
            return None
        self.end()
        return 0.0

    def end(self) -> None:
        """Start the workers that are missing, such as those that were ended because they were idle."""
        self._executor.start()
        self.has_ended_workers = False
        self.put_off()
