"""The engine: drives a schedule and an executor, in a thread of its own, and hands the batches over.

::

    consumer's thread                            engine's thread
      begin, add, close   -- commands -->          executor.poll -> events -> schedule
      peek, drop          <-- {number: outcome}    schedule -> outcomes, and what to send -> executor.send

The schedule and the executor belong to the engine's thread alone, so Ctrl-C, which Python raises in the main thread,
never finds them half changed. The outcomes of a pass are numbered as they are handed over. The consumer looks at one,
notes that it has it, and only then drops it: so a Ctrl-C in between costs nothing.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from workers.errors import ClosedError, WorkerError

from . import executors, report
from .executors import Executor
from .remote_errors import unpack
from .schedule import Failure, Schedule

logger = logging.getLogger("workers")

_TICK_S = 0.5  # how often to look at the boards while jobs run
_STACK_S = 0.3  # for a stuck worker to write down its stack
_BEGIN_S = 30.0  # how much longer than job_timeout a worker may take to begin a job: a new replica takes its time
_MAX_ADDED = 4096  # jobs of an open pass: its source may have no end
_ALIVE_S = 1.0  # how often a waiting consumer looks whether the engine still runs


class Outcome(NamedTuple):
    """What the consumer gets: Outcome(3, [batch], 1_250_000, 98_765_432_100)."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    value: Any  # the items of the job, or a Failure
    job_ns: int  # how long the job took
    received_ns: int  # monotonic, when it came


Outcomes = dict[int, Outcome]
Ahead = tuple[int, int, Sequence[int] | None]  # a pass that will come next: (epoch, length, order)


class Options(NamedTuple):
    """What the engine does about jobs that do not end."""

    debug_job_report_timeout: float | None = 30.0
    job_timeout: float | None = None


_is_exiting = threading.Event()


@functools.cache
def watch_for_exit() -> None:
    """Know when the program ends. To be called after the first finalizer was made, so that it is known before that
    runs."""
    atexit.register(_is_exiting.set)


class Engine:
    """One pool of workers, for as long as its front-end lives."""

    def __init__(self, executor: Executor, schedule: Schedule, options: Options) -> None:
        self._executor = executor
        self._schedule = schedule
        self._options = options
        self._commands: deque[Callable[[], None]] = deque()
        self.outcomes: Outcomes = {}  # of the pass that the consumer has asked for, by number
        self._handed = self.outcomes  # the engine's: of the pass being read
        self._number = 0  # of its next one
        self._repeated: Outcomes = {}  # by index
        self._hint: queue.SimpleQueue[None] = queue.SimpleQueue()  # something may be there that is waited for
        self._is_waiting = False  # the consumer wants a hint
        self._ahead: Ahead | None = None
        self._wake_at = (-1,)  # the consumer wakes the engine when no more than this many batches are left to take
        self._woken_at = self._wake_at  # the consumer has done so
        self._loading: dict[int, float] = {}  # {worker: since when it loads the sequence}
        self._reported: dict[int, float] = {}  # {worker: when to report its job again}
        self._stacks: dict[int, tuple[float, int]] = {}  # {worker: (when to read its stack, of which serial)}
        self._hopeless: set[int] = set()  # workers that are stuck and cannot be ended
        self._looked = 0.0
        self._pid = os.getpid()
        self._is_closing = False
        self._is_closed = False
        self._fatal: BaseException | None = None
        executor.start()
        self._thread = threading.Thread(target=self._run, name="prefetch-engine", daemon=True)
        self._thread.start()

    # -- the consumer's side

    def begin(
        self,
        epoch: int,
        length: int,
        is_open: bool,
        ahead: Ahead | None,
        parcel: Any,
        order: Sequence[int] | None = None,
    ) -> None:
        """The consumer starts to read a pass.

        Args:
            epoch: the pass is this epoch.
            length: in batches; 0 with ``is_open``.
            is_open: its jobs are handed in by :meth:`add`.
            ahead: the pass that will most likely come next, to be worked on early.
            parcel: the replica that the jobs are to be done on from now on; None: as before.
            order: the indices of its batches, any sequence that does not change; None: 0 to ``length`` - 1.
        """
        self._check()
        outcomes: Outcomes = {}

        def command() -> None:
            if parcel is not None:
                self._schedule.revoke()  # what was computed ahead is out of date
                self._executor.update(parcel)
                self._loading = dict.fromkeys(self._schedule.workers(), time.monotonic())
            self._handed, self._number = outcomes, 0
            self._ahead = ahead
            self._schedule.begin(epoch, length, is_open, order)

        self.outcomes = outcomes
        self._order(command)

    def add(self, number: int, index: int, item: Any) -> None:
        """Job ``number`` of the open pass, for batch ``index``. Nothing happens where it is there already."""
        shipped = self._executor.ship(item)
        self._order(lambda: self._schedule.add(number, index, shipped))

    def bound(self) -> int:
        """How many jobs an open pass may have ahead of the consumer."""
        return min(self._schedule.bound(), _MAX_ADDED)

    @property
    def has_background_jobs(self) -> bool:
        """Whether a worker has something to do."""
        return not self._is_closed and not self._schedule.is_idle

    def peek(self, number: int, timeout_s: float | None = None) -> Outcome:
        """Outcome ``number`` of the pass, which stays there until :meth:`drop`.

        Blocks: until it is there; at most ``timeout_s``.

        Raises:
            queue.Empty: ``timeout_s`` is over. ClosedError, or what ended the engine.
        """
        if number - 1 in self.outcomes:  # a Ctrl-C has kept us from it
            self.drop(number - 1)
        return self._wait(self.outcomes, number, timeout_s)

    def drop(self, number: int) -> None:
        """The consumer has outcome ``number``."""
        self.outcomes.pop(number, None)
        self._wake_if_wanted()

    def repeat(self, index: int, runs: int) -> Outcome:
        """Batch ``index`` of the pass, whose job has failed in ``runs`` runs, once more. Blocks: until it is there."""
        outcomes: Outcomes = {}

        def command() -> None:
            self._repeated = outcomes
            self._schedule.repeat(index, runs)

        self._order(command)
        return self._wait(outcomes, index, None)

    def forget(self, index: int) -> None:
        """Batch ``index`` of the pass, which has failed, will not be repeated."""
        self._order(lambda: self._schedule.forget(index))

    def _wait(self, outcomes: Outcomes, key: int, timeout_s: float | None) -> Outcome:
        self._check_process()
        outcome = outcomes.get(key)
        if outcome is not None:
            return outcome
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._is_waiting = True  # before looking: else it might come in between
            outcome = outcomes.get(key)
            if outcome is not None:
                return outcome
            self._check()
            if self._commands:  # a Ctrl-C may have kept us from waking it
                self._executor.wake()
            self._wake_if_wanted()
            left = _ALIVE_S if deadline is None else min(_ALIVE_S, deadline - time.monotonic())
            try:
                self._hint.get(timeout=max(left, 0.0))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise

    def _wake_if_wanted(self) -> None:
        at = self._wake_at
        if len(self.outcomes) <= at[0] and at is not self._woken_at:
            self._executor.wake()
            self._woken_at = at  # afterwards: a Ctrl-C may come in between

    def _order(self, command: Callable[[], None]) -> None:
        self._commands.append(command)
        self._executor.wake()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise WorkerError("this front-end was made in another process; make a new one after a fork")

    @property
    def has_ended(self) -> bool:
        """There will be no more outcomes."""
        return self._is_closing or self._fatal is not None

    def _check(self) -> None:
        self._check_process()
        if self._fatal is not None:
            raise self._fatal
        if self._is_closing:
            while _is_exiting.is_set() and threading.current_thread() is not threading.main_thread():
                time.sleep(1.0)  # a daemon thread, which ends with the program: without a last word
            raise ClosedError("the front-end was closed while a batch was asked for; make a new one")

    def close(self) -> None:
        """End the workers. Blocks: until they are gone. May be repeated, and called from anywhere."""
        if os.getpid() != self._pid or self._is_closed:
            return  # a fork has copies of our descriptors, and no business with the workers
        self._is_closing = True
        self._executor.wake()
        if threading.current_thread() is not self._thread:  # else the garbage collector runs in it
            self._thread.join()

    # -- the engine's side

    def _run(self) -> None:
        timeout_s: float | None = None
        try:
            while not self._is_closing and self._fatal is None:
                timeout_s = self._turn(timeout_s)
        except BaseException as error:
            logger.exception("the engine failed")
            self._fatal = error
        finally:
            self._hint.put(None)
            self._close_executor()

    def _close_executor(self) -> None:
        self._is_closed = True
        self._commands.clear()
        self._executor.close()

    def _turn(self, timeout_s: float | None) -> float | None:
        """Turn the crank once. Returns: how long the next poll may take."""
        for event in self._executor.poll(timeout_s):
            self._handle(event)
        if self._fatal is not None:
            return None  # what else has come may be of a worker that has nothing to work on
        self._obey()
        schedule, executor = self._schedule, self._executor
        now = time.monotonic()
        if now - self._looked > _TICK_S:
            self._look(now)
        if schedule.may_relieve():
            self._look(now)  # at what they are in now: who is stuck must not be guessed
            for worker, rows in schedule.relieve(time.monotonic_ns()):
                executor.send(worker, rows)
        if self._stacks:
            self._report_stacks(now)
        while True:
            if self._ahead is not None and schedule.may_look_ahead:
                schedule.ahead(*self._ahead)
                self._ahead = None
            self._deliver()
            untaken = len(self._handed)
            for worker, rows in schedule.plan(untaken):
                executor.send(worker, rows)
            self._cancel()
            # Set first, compared after: whatever the consumer took in between is seen here or there.
            wanted, room = schedule.wanted_room(), schedule.room(untaken)
            at = -1 if wanted is None or room >= wanted else untaken + room - wanted
            self._wake_at = (at,)
            if self._ahead is not None and schedule.may_look_ahead:
                continue
            if len(self._handed) > at:
                break
        return self._patience()

    def _obey(self) -> None:
        while self._commands:
            self._commands.popleft()()
        self._cancel()

    def _cancel(self) -> None:
        for worker, serial in self._schedule.cancelled.items():
            self._executor.cancel(worker, serial)
        self._schedule.cancelled.clear()

    def _patience(self) -> float | None:
        if self._commands:
            return 0.0
        schedule = self._schedule
        if schedule.may_relieve():
            return 0.02
        if self._stacks:
            return _STACK_S / 2
        if schedule.is_idle and not any(self._executor.look(worker)[0] for worker in schedule.workers()):
            return None
        return min(_TICK_S, (self._options.job_timeout or 60.0) / 4)

    def _deliver(self) -> None:
        for index, result in self._schedule.take_outcomes():
            self._handed[self._number] = Outcome(index, *result)
            self._number += 1
        for index, result in self._schedule.take_repeated():
            self._repeated[index] = Outcome(index, *result)
        if self._is_waiting:
            self._is_waiting = False
            self._hint.put(None)

    def _handle(self, event: tuple[Any, ...]) -> None:
        kind, schedule = event[0], self._schedule
        if kind is executors.DONE:
            _, worker, serial, value, ns, nbytes = event
            if not schedule.wants(worker, serial):
                schedule.done(worker, serial, None)
                self._executor.skip(value)
                return
            try:
                outcome: Any = (self._executor.read(value), ns, time.monotonic_ns())
            except Exception as raised:  # unpickling runs the user's code; mapping may want too much
                failure = Failure(raised, schedule.runs_before(worker, serial) + 1)
                outcome = (failure, ns, time.monotonic_ns())
            schedule.done(worker, serial, outcome, ns, nbytes)
        elif kind is executors.FAILED:
            _, worker, serial, error, ns = event
            epoch, index = schedule.place_of(worker, serial)
            if not isinstance(error, BaseException):
                error = unpack(error, f"batch {index} of epoch {epoch}")
            failure = Failure(error, schedule.runs_before(worker, serial) + 1)
            schedule.done(worker, serial, (failure, ns, time.monotonic_ns()))
        elif kind is executors.STARTED:
            schedule.started(event[1])
            self._loading[event[1]] = time.monotonic()
        elif kind is executors.READY:
            schedule.ready(event[1])
            self._loading.pop(event[1], None)
        elif kind is executors.DIED:
            _, worker, serial, death = event
            logger.warning("worker %d (process %s) was lost: %s", worker, death.pid, death.how)
            for known in (self._loading, self._reported, self._stacks):
                known.pop(worker, None)
            schedule.died(worker, serial, death)
        else:
            self._fatal = event[1]

    # -- jobs that do not end

    def _look(self, now: float) -> None:
        self._looked = now
        timeout, patience = self._options.job_timeout, self._options.debug_job_report_timeout
        for worker in self._schedule.workers():
            serial, since_ns = self._executor.look(worker)
            now_ns = time.monotonic_ns()
            self._schedule.saw(worker, serial, since_ns, now_ns)
            unbegun = self._schedule.unbegun_ns(worker, now_ns) / 1e9
            if timeout is not None and unbegun > timeout + _BEGIN_S and worker not in self._hopeless:
                why = f"did not begin its jobs for {unbegun:.0f} s"
                if not self._executor.kill(worker, why, ""):
                    self._hopeless.add(worker)
                continue
            seconds = now - (since_ns / 1e9 if serial else self._loading.get(worker, now))
            is_late = timeout is not None and serial and seconds > timeout and worker not in self._hopeless
            is_due = patience is not None and seconds > patience and now > self._reported.get(worker, 0.0)
            if worker not in self._stacks and (is_late or is_due):
                # If it is late: its stack first, and when that is written it is killed.
                self._reported[worker] = now + (patience or 0.0)
                self._executor.ask_stack(worker)
                self._stacks[worker] = now + _STACK_S, serial

    def _report_stacks(self, now: float) -> None:
        for worker in [worker for worker, (due, _) in self._stacks.items() if now >= due]:
            _, asked = self._stacks.pop(worker)
            serial, since_ns = self._executor.look(worker)
            if serial != asked or not (serial or worker in self._loading):
                continue  # the job has ended after all
            stack, pid = self._executor.take_stack(worker)
            timeout = self._options.job_timeout
            if not serial:
                logger.warning("%s", report.stalled(worker, pid, None, now - self._loading[worker], stack, timeout))
                continue
            seconds = now - since_ns / 1e9
            if timeout is not None and seconds > timeout and worker not in self._hopeless:
                why = f"{report.TIMEOUT} = {timeout:g} s"
                if not self._executor.kill(worker, why, stack):
                    self._hopeless.add(worker)
                    logger.warning("%s is over, but a thread cannot be ended:\n%s", why, stack)
            else:
                place = self._schedule.place_of(worker, serial)
                logger.warning("%s", report.stalled(worker, pid, place, seconds, stack, timeout))
