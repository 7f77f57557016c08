"""Watches the workers for jobs that do not end, reports where they hang, and ends workers that take too long."""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, Protocol

from . import explanations
from .executor import Executor, Stuck
from .renewal import Renewal
from .schedule import Schedule

logger = logging.getLogger("workers")

TICK_S = 0.5  # time between two checks of the workers while jobs run
STACK_S = 0.3  # the time that a stuck worker has to write down its stack
_BEGIN_S = 30.0  # how much longer than job_timeout a worker may take to start a job: loading a replica takes time


class Timeouts(Protocol):
    """The user's time limits for jobs, in seconds; None for no limit. See :class:`workers.SequenceMap`."""

    @property
    def debug_job_report_timeout(self) -> float | None: ...
    @property
    def job_timeout(self) -> float | None: ...
    @property
    def max_worker_memory(self) -> int | None: ...


class Asked(NamedTuple):
    """A pending request to a worker to write down its stack, because it seems to hang."""

    due: float  # monotonic time when the stack should be written, and is read
    sending: int  # the sending of the job that it was in; 0: it was loading the sequence


class Watchdog:
    """The watchdog of one pool, which finds jobs that do not end, and ends their workers.
    Runs in the engine's thread, and never blocks."""

    def __init__(self, executor: Executor, schedule: Schedule, options: Timeouts) -> None:
        self._executor = executor
        self._schedule = schedule
        self._timeout = options.job_timeout
        self._patience = options.debug_job_report_timeout
        self._loading: dict[int, float] = {}  # {worker: since when it has been loading the sequence}
        self._reported: dict[int, float] = {}  # {worker: when to report its job again}
        self._asked: dict[int, Asked] = {}
        self._hopeless: set[int] = set()  # workers that are stuck and cannot be ended
        self._looked = 0.0
        self._renewal = Renewal(executor, schedule, options.max_worker_memory)

    # -- notifications of the engine

    def loading(self, worker: int) -> None:
        self._loading[worker] = time.monotonic()

    def loaded(self, worker: int) -> None:
        self._loading.pop(worker, None)

    def died(self, worker: int) -> None:
        self._loading.pop(worker, None)
        self._reported.pop(worker, None)
        self._asked.pop(worker, None)
        self._renewal.died(worker)

    # -- checks

    @property
    def waits_for_stacks(self) -> bool:
        return bool(self._asked)

    @property
    def sees_loading(self) -> bool:
        """True if any worker is starting, or loading the sequence."""
        return bool(self._loading)

    def longest_sleep_s(self) -> float:
        """Return how many seconds the engine may sleep while jobs run, and still check the workers in time."""
        return STACK_S / 2 if self._asked else min(TICK_S, (self._timeout or 60.0) / 4)

    def tick(self) -> None:
        """Check the workers if :data:`TICK_S` has passed since the last check, and report the stacks that are due."""
        now = time.monotonic()
        if now - self._looked > TICK_S:
            self.look()
            self._renewal.look()
        if self._asked:
            self._report_stacks(now)

    def look(self) -> None:
        """Tell the schedule which job each worker is in, and find workers that take too long.
        Request the stack of a worker that does not finish its job, and kill a worker that starts none of its jobs."""
        now = self._looked = time.monotonic()
        self._executor.figures.bound = self._schedule.bound()
        for worker in self._schedule.workers():
            sending, since_ns = self._executor.look(worker)
            now_ns = time.monotonic_ns()
            self._schedule.saw(worker, sending, since_ns, now_ns)
            if self._timeout is not None and worker not in self._hopeless:
                unbegun_s = self._schedule.unbegun_ns(worker, now_ns) / 1e9
                if unbegun_s > self._timeout + _BEGIN_S:
                    self._kill(worker, Stuck(unbegun_s=unbegun_s))
                    continue
            seconds = now - (since_ns / 1e9 if sending else self._loading.get(worker, now))
            is_due = self._patience is not None and seconds > self._patience and now > self._reported.get(worker, 0.0)
            if worker not in self._asked and (is_due or (sending and self._is_late(worker, seconds))):
                # A late worker is killed only after its stack was written.
                self._reported[worker] = now + (self._patience or 0.0)
                self._executor.ask_stack(worker)
                self._asked[worker] = Asked(now + STACK_S, sending)

    def _is_late(self, worker: int, seconds: float) -> bool:
        return self._timeout is not None and seconds > self._timeout and worker not in self._hopeless

    def _report_stacks(self, now: float) -> None:
        for worker in [worker for worker, asked in self._asked.items() if now >= asked.due]:
            asked = self._asked.pop(worker)
            sending, since_ns = self._executor.look(worker)
            if sending != asked.sending or not (sending or worker in self._loading):
                continue  # the job has ended after all
            stack, pid = self._executor.take_stack(worker)
            seconds = now - (since_ns / 1e9 if sending else self._loading[worker])
            if sending and self._is_late(worker, seconds):
                self._kill(worker, Stuck(job_timeout_s=self._timeout, stack=stack))
            else:
                place = self._schedule.place_of(self._schedule.ticket(worker, sending)) if sending else None
                text = explanations.stalled(worker, pid, place, seconds, stack, self._timeout)
                self._executor.figures.tell(self._executor.number(worker), "stalled", text.splitlines()[0])
                logger.warning("%s", text)

    def _kill(self, worker: int, why: Stuck) -> None:
        if not self._executor.kill(worker, why):
            self._hopeless.add(worker)
            if why.stack:
                logger.warning(
                    "%s is over, but a thread cannot be ended. Its stack:\n%s", explanations.overdue(why), why.stack
                )
