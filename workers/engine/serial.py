"""Runs jobs in this process, and holds the engine without workers, which computes a batch when the loop asks for it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from workers.batch.tree import makes_fresh_batches, own
from workers.errors import ClosedError, add_note, safe_to_raise
from workers.job import seeding
from workers.job.context import begin_marks, end_marks, stages
from workers.job.cores import JobCoreUse
from workers.job.notes import with_notes
from workers.job.portions import PortionSender
from workers.report.pool import PoolFigures
from workers.report.timeline import LOOP

from .handover import Outcome, Outcomes
from .passes import Ahead
from .remote_errors import exit_code
from .results import Failure, Portion
from .schedule import JobRow

_DETAILED_NS = 4_000_000  # time between two jobs that are measured in detail, which costs 5 us each


def run_here(
    task: Any,
    row: JobRow,
    stream: seeding.Stream,
    worker: int | None,
    seed_globals: bool,
    portions: PortionSender,
) -> tuple[bool, Any, int]:
    """Run a job, which computes a batch, in this thread.

    Args:
        stream: the source of the job's random numbers.
        worker: the number of the worker that this thread is; None in the loop's thread.
        seed_globals: seed global generators, such as ``np.random``; False if other threads, which share them, run jobs.
        portions: sends items that the job yields before its end.

    Returns:
        (True if it succeeded, its items that were not sent or its error, how many ns it took).
    """
    start = time.monotonic_ns()
    _, epoch, index, attempt, payload = row

    def compute() -> list[Any]:
        return own(with_notes(task.run, index, payload, portions), is_fresh)  # type: ignore[no-any-return]

    try:
        portions.num_sent, portions.is_used = 0, False
        is_fresh = payload is None and not task.functions and makes_fresh_batches(task.source)
        value = seeding.run_job(stream, seeding.Job(epoch, index, attempt, worker), compute, seed_globals)
    except BaseException as raised:  # including SystemExit and the like: the loop must know
        if isinstance(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # the user's Ctrl-C, not the job's
        value = safe_to_raise(raised)
        add_note(value, f"raised in batch {index} of epoch {epoch}, in this process")
        try:  # avoid a reference cycle, which would keep this frame's objects until the next garbage collection
            return False, value, time.monotonic_ns() - start
        finally:
            del value
    return True, value, time.monotonic_ns() - start


class SerialEngine:
    """The engine without workers, which computes each batch in the loop's thread when the loop needs it."""

    has_background_jobs = False

    def __init__(self, task: Any, figures: PoolFigures | None = None) -> None:
        self.task = task
        self.figures = figures or PoolFigures()
        self._detailed_ns = 0  # when a job was last measured in detail
        self.stream = task.stream(task.generators())
        self.before = before = list[Any]()  # items that the last job has yielded before its error
        self._portions = PortionSender(lambda items: before.extend(own(items)))  # refers to no engine: no cycle
        self.has_ended = False
        self._has_begun = False
        self._fatal: BaseException | None = None  # the error of worker_init_fn

    def begin_jobs(self) -> None:
        """Call the user's ``worker_init_fn`` once, before the first job in this process."""
        if self._has_begun:
            return
        try:
            self.task.init_worker(0)
        except BaseException as raised:
            if isinstance(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
                raise  # the user's Ctrl-C
            self._fatal = safe_to_raise(raised)
            raise self._fatal from self._fatal.__cause__
        self._has_begun = True

    def run(self, row: JobRow) -> tuple[bool, Any, int]:
        """Run a job in this thread, and from time to time record its stages and its use of cores.
        Return (True if it succeeded, its items or its error, how many ns it took)."""
        start_ns = time.monotonic_ns()
        if start_ns - self._detailed_ns < _DETAILED_NS:
            return run_here(self.task, row, self.stream, None, True, self._portions)
        self._detailed_ns, marks, cores = start_ns, begin_marks(), JobCoreUse()
        try:
            succeeded, value, job_ns = run_here(self.task, row, self.stream, None, True, self._portions)
            end_ns = time.monotonic_ns()
        finally:
            end_marks()
        use = cores.use(job_ns)
        self.figures.finished_here(job_ns, use)
        self.figures.span(LOOP, row.epoch, row.index, start_ns, job_ns, stages(marks, end_ns))
        try:
            return succeeded, value, job_ns
        finally:
            del value  # no reference cycle with an error

    def begin(
        self,
        epoch: int,
        length: int,
        is_open: bool,
        ahead: Ahead | None,
        parcel: Any,
        order: Sequence[int] | None = None,
    ) -> SerialReading:
        self.check()
        return SerialReading(self, epoch, [] if is_open else range(length) if order is None else order)

    def bound(self) -> int:
        return 1

    def check(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        if self.has_ended:
            raise ClosedError("the front-end was closed while a batch was asked for; make a new one")

    def close(self) -> None:
        self.has_ended = True


class SerialReading:
    """The handle by which a loop without workers reads the batches of one pass (its run over an epoch).
    No batch is computed ahead, so a Ctrl-C leaves nothing half done."""

    def __init__(self, engine: SerialEngine, epoch: int, order: Sequence[int]) -> None:
        self.engine = engine
        self.outcomes: Outcomes = {}  # always empty
        self._epoch = epoch
        self._order = order  # the indices of the pass; if it is open, our own list, which grows
        self._items: dict[int, tuple[Any]] = {}  # {index: payload of its job}, if the pass is open
        self._failed: Outcome | None = None  # the failure of a job whose items before the error are delivered first

    @property
    def has_computed(self) -> bool:
        return not self._items

    def add(self, number: int, index: int, item: Any) -> None:
        if isinstance(self._order, list) and number == len(self._order):
            self._items[index] = (item,)
            self._order.append(index)

    def added(self) -> None:
        pass

    def peek(self, number: int, timeout_s: float | None = None, after: int | None = 0) -> Outcome:
        index, failed, self._failed = self._order[number], self._failed, None
        if failed is not None and not (after and failed.index == index):
            failed = None
        outcome = failed or self.repeat(index, 0)
        try:
            if type(outcome.value) is Failure:
                before = self.engine.before
                if failed is None and after is not None and len(before) > after:
                    self._failed = outcome
                    return outcome._replace(value=Portion(before[after:]), job_ns=0)
            elif after:
                return outcome._replace(value=outcome.value[after:])
            return outcome
        finally:
            del outcome, failed  # no reference cycle with an error

    def repeat(self, index: int, runs: int) -> Outcome:
        engine = self.engine
        engine.check()
        engine.begin_jobs()
        row, pid = JobRow(0, self._epoch, index, runs, self._items.get(index)), os.getpid()
        engine.before.clear()
        succeeded, value, ns = engine.run(row)
        try:
            if os.getpid() != pid:  # a child that the job has forked: it must not go on as a second consumer
                os._exit(exit_code(None if succeeded else value))
            engine.check()
            return Outcome(index, value if succeeded else Failure(value, runs + 1), ns, time.monotonic_ns())
        finally:
            del value

    def drop(self, number: int) -> None:
        self._items.pop(self._order[number], None)

    def forget(self, index: int) -> None:
        pass
