"""Runs the engine: passes the events of workers to the schedule, and carries out the decisions of the schedule."""

from __future__ import annotations

import logging
import time
from typing import Any

from workers.batch.memory_limit import DoesNotFit
from workers.errors import IntegrityError, PrefetchError, safe_to_raise

from . import explanations
from .executor import (
    Cancelled,
    Detail,
    Died,
    Done,
    Event,
    Executor,
    Failed,
    NotStarted,
    Started,
    Trimmed,
    WorkerReady,
    Yielded,
)
from .handover import Handover, Outcomes
from .idle_shutdown import IdleShutdown
from .memory_pressure import MemoryPressure
from .passes import Ahead
from .publishing import Publisher
from .remote_errors import RemoteFailure, unpack
from .results import Failure, Result
from .schedule import Schedule
from .watchdog import Timeouts, Watchdog

logger = logging.getLogger("workers")


class Driver:
    """The main loop of one engine, which handles the events of workers and sends jobs. Runs in the engine's thread."""

    def __init__(
        self,
        executor: Executor,
        schedule: Schedule,
        options: Timeouts,
        handover: Handover,
        publisher: Publisher | None = None,
    ) -> None:
        self._executor = executor
        self._schedule = schedule
        self._handover = handover
        self._watchdog = Watchdog(executor, schedule, options)
        self._idle_shutdown = IdleShutdown(executor, schedule, self._watchdog)
        self._publisher = publisher
        self._memory = MemoryPressure(executor, schedule, handover)
        self._ahead: Ahead | None = None  # the next pass
        self._nb_workers: int | None = None  # set by resize(); None: as many as at the start
        self.fatal: BaseException | None = None  # the error that ends the engine

    # -- the consumer's commands

    def begin(
        self,
        outcomes: Outcomes,
        epoch: int,
        length: int,
        is_open: bool,
        order: Any,
        ahead: Ahead | None,
        parcel: Any,
        first: int,
    ) -> None:
        """Begin a pass (one run of a loop over an epoch). Its batches go to ``outcomes``. See ``Engine.begin``."""
        if parcel is not None:
            self._schedule.revoke()  # batches computed ahead are out of date
            self._executor.update(parcel)
            for worker in self._schedule.workers():
                self._watchdog.loading(worker)
        self._handover.begin(outcomes, first)
        self._ahead = ahead
        self._schedule.begin(epoch, length, is_open, order)
        self._executor.figures.bound = self._schedule.bound()
        if self._publisher is not None:
            self._publisher.begin(length, is_open)

    def revoke(self) -> None:
        """Discard all batches and cancel all jobs, because the data have changed. A new pass is about to begin."""
        self._ahead = None
        self._schedule.revoke()

    def cut(self) -> int:
        """Stop sending jobs of the current pass. Return how many of its jobs have been sent."""
        self._ahead = None
        return self._schedule.cut()

    def resize(self, nb_workers: int) -> None:
        """Set the number of workers. Start missing ones, and end surplus ones when they have finished their jobs."""
        self._nb_workers = nb_workers
        self._schedule.resize(nb_workers)
        self._executor.resize(nb_workers)
        try:
            self._idle_shutdown.end()
        except (OSError, PrefetchError) as error:
            logger.warning("the pool goes on with fewer than %d workers: %s", nb_workers, error)
        self._retire()

    @property
    def has_ended_workers(self) -> bool:
        """True while the workers are shut down because there were no jobs for them. May be read in any thread."""
        return self._idle_shutdown.has_ended_workers

    def _retire(self) -> None:
        """Send no more jobs to surplus workers, which are the workers with the highest numbers."""
        executor, schedule, most = self._executor, self._schedule, self._nb_workers
        if most is not None:
            schedule.retire(worker for worker in schedule.workers() if executor.number(worker) >= most)

    # -- a turn

    def turn(self, timeout_s: float | None) -> float | None:
        """Wait at most ``timeout_s`` for events, handle them, send jobs. Return the next timeout; None for no limit."""
        for event in self._executor.poll(timeout_s):
            self._handle(event)
            if self.fatal is not None:  # later events may come from a worker that has no sequence to work on
                self._deliver()
                return None
        self._obey()
        self._watchdog.tick()
        if self._schedule.may_relieve():
            self._relieve()
        while not self._send_all():
            pass
        for worker in self._schedule.may_go():
            self._executor.dismiss(worker)
            self._lose(worker)
        if self._publisher is not None:
            self._publisher.look()
            self._schedule.is_away(self._publisher.longest_ns)
        return self._patience()

    def _relieve(self) -> None:
        """Move the waiting jobs of stuck workers to other workers. A job that was started meanwhile is not moved."""
        schedule, executor = self._schedule, self._executor
        self._watchdog.look()  # update each worker's current job: by old data, one may only seem to be stuck
        stuck = schedule.to_relieve(time.monotonic_ns())
        for worker, sending in stuck.items():
            executor.cancel(worker, sending, is_unwanted=False)
            schedule.saw(worker, *executor.look(worker), time.monotonic_ns())
        for worker, rows in schedule.relieve(stuck):
            executor.send(worker, rows)

    def _send_all(self) -> bool:
        """Deliver finished batches, send jobs, and prepare to sleep. Return False if there is already more to do."""
        schedule = self._schedule
        self._look_ahead()
        self._deliver()
        if schedule.parked and self._memory.look():
            self._deliver()
        num_untaken = self._handover.num_untaken
        for worker, rows in schedule.plan(num_untaken):
            self._executor.send(worker, rows)
        self._cancel()
        if self._look_ahead():
            return False
        if schedule.parked:
            return self._memory.sleep()
        wanted = schedule.wanted_room()
        missing = 0 if wanted is None else wanted - schedule.room(num_untaken)
        if missing <= 0:  # nothing is left to send, or something other than room is missing
            self._handover.sleep()
            return True
        return self._handover.sleep_without(missing, num_untaken)

    def _look_ahead(self) -> bool:
        """Start computing the next pass if all jobs of the current one are sent. Return True if it was started."""
        if self._ahead is None or not self._schedule.may_look_ahead:
            return False
        self._schedule.ahead(*self._ahead)
        self._ahead = None
        return True

    def _obey(self) -> None:
        while self._handover.commands:
            self._handover.commands.popleft()()
        self._cancel()

    def _cancel(self) -> None:
        for worker, sending in self._schedule.cancelled.items():
            self._executor.cancel(worker, sending)
        self._schedule.cancelled.clear()

    def _patience(self) -> float | None:
        if self._handover.commands:
            return 0.0
        if self._schedule.parked and (left_s := self._memory.left_s()) is not None:
            return left_s
        if self._idle_shutdown.has_ended_workers:
            return self._idle_shutdown.end_if_needed(self._handover.num_untaken)
        schedule, watchdog = self._schedule, self._watchdog
        if not schedule.is_idle or any(self._executor.look(worker)[0] for worker in schedule.workers()):
            self._idle_shutdown.put_off()
            return 0.02 if schedule.may_relieve() else watchdog.longest_sleep_s()
        if watchdog.waits_for_stacks:
            return watchdog.longest_sleep_s()
        if watchdog.sees_loading:
            return None  # WorkerReady will end the poll
        return self._idle_shutdown.begin_if_due(self._handover.progress)

    def _deliver(self) -> None:
        self._handover.hand_over(self._schedule.take_outcomes(), self._schedule.take_repeated())

    def _handle(self, event: Event) -> None:
        if isinstance(event, (Done, Yielded)):
            self._done(event)
        elif isinstance(event, Failed):
            self._failed(event)
        elif isinstance(event, Cancelled):
            self._schedule.cancelled_by(event.worker, event.sending)
        elif isinstance(event, Started):
            self._schedule.started(event.worker)
            self._retire()  # resize() may have made this worker surplus before it started
            self._watchdog.loading(event.worker)
        elif isinstance(event, WorkerReady):
            self._schedule.ready(event.worker)
            self._watchdog.loaded(event.worker)
            self._idle_shutdown.put_off()
        elif isinstance(event, Trimmed):
            self._memory.trimmed(event.worker, event.nbytes)
        elif isinstance(event, NotStarted):
            self._lose(event.worker)
        elif isinstance(event, Died):
            pid, how = event.death.pid, explanations.how(event.death)
            logger.warning("worker %d (process %s) was lost: %s", event.worker, pid, how)
            self._watchdog.died(event.worker)
            self._schedule.died(event.worker, event.running, event.death, event.death.is_with_server)
        else:
            self.fatal = event.error

    def _lose(self, worker: int) -> None:
        """Remove a worker that has ended while it ran no job."""
        self._watchdog.died(worker)
        self._schedule.died(worker, 0)

    def _done(self, event: Done | Yielded) -> None:
        schedule, end = self._schedule, event if isinstance(event, Done) else None
        worker, sending, value, nbytes = event.worker, event.sending, event.value, event.nbytes
        ticket = schedule.ticket(worker, sending) if end is None else schedule.take_back(worker, sending)
        if end is not None:
            _note(self._executor, schedule, ticket, end.job_ns, end.detail)
        if ticket is None:
            self._executor.skip(value)
            return
        self._executor.figures.nbytes += nbytes
        try:
            items = self._executor.read(value, sending)
        except IntegrityError as error:  # nothing else in shared memory can be trusted either
            self.fatal = error
            return
        except BaseException as raised:  # unpickling runs the user's code, even sys.exit(); memory may run out
            items = Failure(safe_to_raise(raised), schedule.runs_before(ticket) + 1)
        if end is None:
            schedule.add_portion(ticket, sending, items, nbytes)
        else:
            items = schedule.last_items(ticket, sending, items)
            schedule.finish(ticket, Result(items, end.job_ns, time.monotonic_ns()), end.job_ns, nbytes)

    def _failed(self, event: Failed) -> None:
        worker, sending, error, job_ns, detail = event
        schedule = self._schedule
        ticket = schedule.take_back(worker, sending)
        _note(self._executor, schedule, ticket, job_ns, detail)
        if ticket is None:
            return
        if isinstance(error, RemoteFailure):
            epoch, index = schedule.place_of(ticket)
            error = unpack(error, f"batch {index} of epoch {epoch}")
        if isinstance(error, IntegrityError):
            self.fatal = error
            return
        if isinstance(error, DoesNotFit):
            self._memory.lacked(ticket, error)
            return
        failure = Failure(error, schedule.runs_before(ticket) + 1)
        schedule.finish(ticket, Result(failure, job_ns, time.monotonic_ns()))


def _note(executor: Executor, schedule: Schedule, ticket: int | None, job_ns: int, detail: Detail | None) -> None:
    """Record a finished job in the figures of the pool, if its worker has sent details."""
    if detail is not None:
        epoch, index = schedule.place_of(ticket)
        executor.figures.span(detail.number, epoch, index, detail.start_ns, job_ns, detail.stages)
