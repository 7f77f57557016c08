"""Ends workers that have been idle for a minute, and starts them again when there are jobs.

A loop that an exception has ended may still be in memory: a notebook keeps the traceback, and with it the iterator and
its SequenceMap. The engine cannot tell such a loop from one that goes on after a long evaluation. So it ends only the
workers. It keeps the schedule, the finished batches and the parcel (the pickled sequence), so new workers can go on.
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
    Runs in the engine's thread, and blocks this thread until workers have ended."""

    def __init__(self, executor: Executor, schedule: Schedule, watchdog: Watchdog) -> None:
        self._executor = executor
        self._schedule = schedule
        self._watchdog = watchdog
        self._since_s = time.monotonic()  # when workers or the consumer were last seen active
        self._progress: tuple[int, int] | None = None  # the consumer's progress at the last check
        self.has_ended_workers = False  # the workers were ended, and not yet restarted

    def put_off(self) -> None:
        """Count the idle time from now on, because a worker has jobs or has just loaded the sequence."""
        self._since_s = time.monotonic()

    def begin_if_due(self, progress: tuple[int, int]) -> float:
        """End the workers, which have no jobs, if they and the consumer have done nothing for :data:`IDLE_S`.

        Args:
            progress: any value that changes when the consumer (the loop) takes a batch.

        Returns:
            Seconds until the next check, or 0 if the workers were ended, as commands may have come meanwhile.
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

        The timeout is 0 if the workers were started, and None (no limit) if not. There may be no room for new jobs,
        as the consumer has yet to take ``num_untaken`` finished batches.
        """
        schedule = self._schedule
        can_send = schedule.wanted_room() is not None and schedule.room(num_untaken) > 0
        if schedule.is_idle and not can_send:
            return None
        self.end()
        return 0.0

    def end(self) -> None:
        """End the shutdown: start all missing workers, such as those that were ended because they were idle."""
        self._executor.start()
        self.has_ended_workers = False
        self.put_off()
