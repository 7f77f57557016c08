"""Retries batches that did not fit into memory, after workers have freed the memory that they keep for later batches.

A worker keeps slots (pieces of shared memory) for later batches. It learns only with its next jobs which slots the loop
has released. So before a batch is retried, all workers are asked to give up their free slots (``trim``). The memory of
a slot is free when the loop's process and the worker have both unmapped it, so the engine waits for the answers of the
workers. If answers are missing after a second, the engine goes on without them: those workers are suspended.
"""

from __future__ import annotations

import logging
import time

from workers import limits
from workers.batch.memory_limit import DoesNotFit, available_nbytes

from . import explanations
from .executor import Executor
from .handover import Handover
from .results import Failure, Result
from .schedule import Schedule
from .waiting_for_memory import NextStep

logger = logging.getLogger("workers")

_ANSWER_S = 1.0  # how long to wait for idle workers to answer trim


class MemoryPressure:
    """The retries of batches that did not fit into memory. Runs in the engine's thread, and never blocks."""

    def __init__(self, executor: Executor, schedule: Schedule, handover: Handover) -> None:
        self._executor = executor
        self._schedule = schedule
        self._handover = handover
        self._errors: dict[int, DoesNotFit] = {}  # {ticket: the error of its job}
        self._seen = ((0, 0), False)  # the consumer's progress, and whether it waits, at the last check
        self._is_trimmed = False  # the workers were asked to trim, and nothing has changed since
        self._asked: dict[int, int] = {}  # {worker: how many answers it owes}, e.g. {3: 1}
        self._until_s = 0.0  # monotonic, until when to wait for the answers
        self._held: dict[int, int] = {}  # {worker: bytes of its batches that the loop holds}
        self._is_told = False  # the warning was logged

    def lacked(self, ticket: int, error: DoesNotFit) -> None:
        """Record that there was no memory for the batch with this ``ticket``, so that it waits to be retried."""
        schedule = self._schedule
        if schedule.parked.add(ticket, error.nbytes):
            self._errors.clear()
            if not self._is_told:  # one warning is enough
                self._is_told = True
                logger.warning("%s", explanations.waits_for_memory(*schedule.place_of(ticket), error, schedule.load()))
        self._errors[ticket] = error
        self._is_trimmed = False

    def trimmed(self, worker: int, nbytes: int) -> None:
        """Record that a worker has freed its spare memory, and that the loop still holds ``nbytes`` of its batches."""
        self._held[worker] = nbytes
        owed = self._asked.pop(worker, 1) - 1
        if owed:
            self._asked[worker] = owed

    def left_s(self) -> float | None:
        """Return how many more seconds to wait for workers that were asked to free memory; None for no wait."""
        left_s = self._until_s - time.monotonic()
        return left_s if self._asked and left_s > 0 else None

    def look(self) -> bool:
        """Retry a batch that waits for memory, if it may fit now. Call this when nothing is left to deliver.

        Returns:
            True if there is now an error to deliver, because a batch does not fit at all.
        """
        schedule, parked = self._schedule, self._schedule.parked
        seen, self._seen = self._seen, (self._handover.progress, self._handover.is_awaited)
        if seen != self._seen:
            parked.moved()
            self._is_trimmed = False
        while parked.waiting and schedule.is_idle:
            if not self._is_trimmed:
                self._trim()
            for gone in {*self._asked, *self._held}.difference(schedule.workers()):
                self._asked.pop(gone, None)
                self._held.pop(gone, None)
            if self.left_s():
                break
            step = parked.step(available_nbytes(), self._seen[1])
            if step is NextStep.WAIT:
                break
            if step is NextStep.GIVE_UP:
                self._give_up(parked.give_up())
                return True
            self._is_trimmed = False
        return False

    def sleep(self) -> bool:
        """Prepare to sleep until the consumer takes a batch or starts to wait.
        Return False if the consumer has done either since the last :meth:`look`."""
        return self._handover.sleep_until_asked(*self._seen)

    def _trim(self) -> None:
        for worker in self._schedule.ready_workers():
            self._executor.trim(worker)
            self._asked[worker] = self._asked.get(worker, 0) + 1
        self._until_s, self._is_trimmed = time.monotonic() + _ANSWER_S, True

    def _give_up(self, ticket: int) -> None:
        schedule = self._schedule
        held = sum(self._held.values())
        limit, available = limits.memory(), available_nbytes()
        cause = self._errors.pop(ticket)
        error = explanations.does_not_fit(*schedule.place_of(ticket), cause, held, schedule.load(), limit, available)
        schedule.finish(ticket, Result(Failure(error, schedule.runs_before(ticket) + 1)))
