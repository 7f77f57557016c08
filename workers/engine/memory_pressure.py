"""What the driver does while batches wait for memory: has workers give up what they keep, and looks what is left.

A worker keeps slots for later batches, and learns with its next jobs which ones the loop has let go of. So before a
batch is tried again all workers are asked to give up what is free (``trim``); what a slot takes is the machine's again
when both ends have unmapped it, so their answers are waited for. One that is stopped does not answer: after a second it
is done without.
"""

from __future__ import annotations

import logging
import time

from workers import limits
from workers.batch.memory_limit import DoesNotFit, available_nbytes

from . import explanations
from .delivery import Failure, Result
from .executor import Executor
from .handover import Handover
from .schedule import Schedule
from .waiting_for_memory import NextStep

logger = logging.getLogger("workers")

_ANSWER_S = 1.0  # for workers that have nothing to do, to give up what they keep


class MemoryPressure:
    """Runs in: the engine's thread. Blocks: never."""

    def __init__(self, executor: Executor, schedule: Schedule, handover: Handover) -> None:
        self._executor = executor
        self._schedule = schedule
        self._handover = handover
        self._errors: dict[int, DoesNotFit] = {}  # {ticket: what its job has raised for want of memory}
        self._seen = ((0, 0), False)  # the consumer's progress, and whether it waits, at the last look
        self._is_trimmed = False  # the workers were asked to give up what they keep, since something has changed
        self._asked: dict[int, int] = {}  # {worker: how many answers it owes}, e.g. {3: 1}
        self._until_s = 0.0  # so long they are waited for
        self._held: dict[int, int] = {}  # {worker: bytes of its batches that the loop holds}
        self._is_told = False

    def lacked(self, ticket: int, error: DoesNotFit) -> None:
        """A job did not get the memory for its batch."""
        schedule = self._schedule
        if schedule.parked.add(ticket, error.nbytes):
            self._errors.clear()
            if not self._is_told:  # once is enough
                self._is_told = True
                logger.warning("%s", explanations.waits_for_memory(*schedule.place_of(ticket), error, schedule.load()))
        self._errors[ticket] = error
        self._is_trimmed = False

    def trimmed(self, worker: int, nbytes: int) -> None:
        """A worker has given up what it kept; ``nbytes`` of its batches are still held."""
        self._held[worker] = nbytes
        owed = self._asked.pop(worker, 1) - 1
        if owed:
            self._asked[worker] = owed

    def left_s(self) -> float | None:
        """How long answers are waited for yet; None: for none."""
        left_s = self._until_s - time.monotonic()
        return left_s if self._asked and left_s > 0 else None

    def look(self) -> bool:
        """Go on with what waits for memory, as far as it goes now. All that can be delivered is. Returns: whether there
        is more, an error."""
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
        """The engine wants to sleep until something has changed. False: it has, since the last look."""
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
