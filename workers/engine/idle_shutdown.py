"""Ends workers that have had nothing to do for a minute, and starts them again when there is something.

A loop that an exception has left still stands where it was: a notebook keeps the traceback, and with it the iterator
and its front-end. It cannot be told from a loop that goes on after a long evaluation. So only the processes are given
up: the schedule, the batches that are finished and what the workers work on stay, and new workers go on.
"""

from __future__ import annotations

import logging
import time

from .executor import Executor
from .schedule import Schedule
from .watchdog import Watchdog

logger = logging.getLogger("workers")

REST_S = 60.0  # without anything to do, until workers are ended


class IdleShutdown:
    """Runs in: the engine's thread. Blocks: a moment, while idle workers end."""

    def __init__(self, executor: Executor, schedule: Schedule, watchdog: Watchdog) -> None:
        self._executor = executor
        self._schedule = schedule
        self._watchdog = watchdog
        self._since_s = time.monotonic()  # when workers or the consumer were last seen to do something
        self._progress: tuple[int, int] | None = None  # the consumer's, when that was last looked at
        self.is_resting = False  # the workers were ended

    def put_off(self) -> None:
        """The workers have something to do, or one has just loaded what it works on."""
        self._since_s = time.monotonic()

    def begin_if_due(self, progress: tuple[int, int]) -> float:
        """The workers have nothing to do, and the consumer is as far as ``progress``: end them if that has lasted.

        Returns:
            How long it may last until then, in seconds; 0: they were ended, and what has come meanwhile is to be
            looked at.
        """
        if progress != self._progress:
            self._progress = progress
            self.put_off()
        left_s = self._since_s + REST_S - time.monotonic()
        if left_s > 0:
            return left_s
        self.put_off()
        workers = self._schedule.workers()
        if not self._executor.rest():
            return REST_S
        for worker in workers:
            self._watchdog.died(worker)
            self._schedule.died(worker, running=0)
        self.is_resting = True
        logger.debug("%d workers had nothing to do for %g s, and were ended", len(workers), REST_S)
        return 0.0

    def end_if_needed(self, num_untaken: int) -> float | None:
        """Start the workers again if one of them could be sent something, with ``num_untaken`` outcomes that the
        consumer has not taken. Returns: how long the next poll may take."""
        schedule = self._schedule
        can_send = schedule.wanted_room() is not None and schedule.room(num_untaken) > 0
        if schedule.is_idle and not can_send:
            return None
        self.end()
        return 0.0

    def end(self) -> None:
        """Start the workers that are not there."""
        self._executor.start()
        self.is_resting = False
        self.put_off()
