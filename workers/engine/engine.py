"""Gives the consumer access to the engine. Engine begins passes and ends the workers; Reading reads one pass.

The consumer is the thread that reads the batches; a pass is one run of a loop over an epoch.

::

    consumer's thread:         Handover             engine's thread: Driver
      Engine: begin, close       -- commands -->           executor.poll -> events -> schedule
      Reading: peek, drop        <-- {number: outcome}     schedule -> outcomes, and what to send -> executor.send

After the start, only the engine's thread changes the schedule and the workers. So a Ctrl-C, which Python raises in the
main thread, never leaves them half changed.

A pass ends when the next one begins, even if the next one begins in ``on_error`` or in another thread. From then on,
waiting for a batch of the old pass raises StalePassError, and all other requests of the old pass are ignored.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from workers.errors import ClosedError, StalePassError, WorkerError
from workers.report.pool import PoolFigures

from . import explanations
from .driver import Driver
from .executor import Executor
from .handover import Handover, Outcome, Outcomes, ready
from .passes import Ahead
from .publishing import Publisher
from .schedule import Schedule
from .watchdog import Timeouts

logger = logging.getLogger("workers")

_ALIVE_S = 1.0  # how often a waiting consumer checks that the engine runs and that its pass is current
_MAX_ADDED = 4096  # most jobs ahead of the loop in an open pass, as the source of a pass may be endless
_is_exiting = threading.Event()


@functools.cache
def watch_for_exit() -> None:
    """Set a flag when the program exits, before finalizers close engines.
    Call this after a finalizer was made, because ``atexit`` calls functions in the reverse order of registration."""
    atexit.register(_is_exiting.set)


MakePublisher: TypeAlias = Callable[[Executor, Schedule, Handover], Publisher]


class Engine:
    """The engine that computes batches in one pool of workers, for the SequenceMap that a loop reads."""

    def __init__(
        self, executor: Executor, schedule: Schedule, options: Timeouts, publisher: MakePublisher | None = None
    ) -> None:
        """Start the engine's thread and the workers.
        ``publisher`` makes the Publisher that shows the pool in ``workers.top``; with None, the pool is not shown."""
        self.executor = executor
        self.schedule = schedule
        self.handover = Handover(executor.wake)
        self._publisher = None if publisher is None else publisher(executor, schedule, self.handover)
        self._driver = Driver(executor, schedule, options, self.handover, self._publisher)
        self.pid = os.getpid()
        self._is_closing = False
        self._is_closed = False
        self._is_started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prefetch-engine", daemon=True)
        try:
            self._start()
        except BaseException:
            self._is_closing = True
            self._is_started.set()
            if self._thread.ident is None:
                self._close()
            else:
                self._thread.join()
            raise
        self._is_started.set()

    def _start(self) -> None:
        """Start the engine's thread, then the workers, which may use up the allowed number of threads and processes."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise explanations.too_few_processes("the thread of the pool could not be started", str(error)) from error
        self.executor.start()

    # -- the consumer's side

    def begin(
        self,
        epoch: int,
        length: int,
        is_open: bool,
        ahead: Ahead | None,
        parcel: Any,
        order: Sequence[int] | None = None,
        first: int = 0,
    ) -> Reading:
        """Begin a pass, and return the handle that reads its batches. Their numbers start at ``first``.
        For the other arguments, see ``AnyEngine.begin``."""
        self.check()
        outcomes: Outcomes = {}
        self.handover.ask(outcomes, first)
        self.order(lambda: self._driver.begin(outcomes, epoch, length, is_open, order, ahead, parcel, first))
        return Reading(self, outcomes, first)

    def revoke(self) -> None:
        """Discard all batches computed ahead, because the data have changed. A call of :meth:`begin` must follow."""
        self.order(self._driver.revoke, at_once=False)

    def resize(self, nb_workers: int) -> None:
        """Set the number of workers, at least 1, without waiting until they have started or ended.
        Workers that were ended because they were idle are started again."""
        self.order(lambda: self._driver.resize(nb_workers))

    def bound(self) -> int:
        return min(self.schedule.bound(), _MAX_ADDED, self.executor.may_add)

    @property
    def figures(self) -> PoolFigures:
        """The statistics of the workers so far: their jobs, times and incidents."""
        return self.executor.figures

    @property
    def has_background_jobs(self) -> bool:
        """True if workers still have jobs to finish."""
        return not self._is_closed and not self.schedule.is_idle

    def cut(self) -> int:
        """Stop sending jobs of the current pass. Return how many were sent. Runs in the engine's thread."""
        return self._driver.cut()

    def order(self, command: Callable[[], None], at_once: bool = True) -> None:
        """Have the engine's thread run ``command``, immediately if ``at_once``, else when the thread next wakes up."""
        self.handover.commands.append(command)
        if at_once:
            self.executor.wake()

    def check_process(self) -> None:
        """Raise WorkerError if this process is a fork of the one that made the engine: a fork has no workers."""
        if os.getpid() != self.pid:
            raise WorkerError("this front-end was made in another process; make a new one after a fork")

    @property
    def has_ended(self) -> bool:
        """True if no more batches will come, because the engine was closed or has failed."""
        return self._is_closing or self._driver.fatal is not None

    @property
    def fatal(self) -> BaseException | None:
        """The error that has ended the engine; None if the engine runs or was closed."""
        return self._driver.fatal

    @property
    def has_ended_workers(self) -> bool:
        """True while the workers are shut down because there were no jobs for them."""
        return self._driver.has_ended_workers

    def check(self) -> None:
        """Raise an error if the engine does not run in this process.
        This is WorkerError in a fork, the error that has ended the engine, or ClosedError if the engine was closed."""
        self.check_process()
        if self._driver.fatal is not None:
            raise self._driver.fatal
        if self._is_closing:
            while _is_exiting.is_set() and threading.current_thread() is not threading.main_thread():
                time.sleep(1.0)  # a daemon thread waits here for the program's end, without an error
            raise ClosedError("the front-end was closed while a batch was asked for; make a new one")

    def close(self) -> None:
        """End the workers and the engine's thread, and wait for their end. May be called again, and in any thread."""
        if os.getpid() != self.pid:
            return  # a fork has copies of our descriptors, but the workers are not its own
        self._is_closing = True
        self.executor.wake()
        if threading.current_thread() is not self._thread:  # the garbage collector may run in the engine's thread
            self._thread.join()

    # -- the engine's thread

    def _run(self) -> None:
        timeout_s: float | None = None
        self._is_started.wait()
        try:
            while not self._is_closing and self._driver.fatal is None:
                timeout_s = self._driver.turn(timeout_s)
        except BaseException as error:
            logger.exception("the engine failed")
            self._driver.fatal = error
        finally:
            self.handover.hint.put(None)
            self._is_closed = True
            self.handover.commands.clear()
            self._close()

    def _close(self) -> None:
        self.executor.close()
        if self._publisher is not None:
            self._publisher.close()


class Reading:
    """The handle by which a loop reads the batches of one pass (its run over an epoch) from an Engine."""

    def __init__(self, engine: Engine, outcomes: Outcomes, first: int = 0) -> None:
        self.engine = engine
        self.outcomes = outcomes
        self._handover = engine.handover
        self._first = first

    has_computed = False

    def peek(self, number: int, timeout_s: float | None = None, after: int | None = 0) -> Outcome:
        outcomes = self.outcomes
        if number - 1 in outcomes:  # a Ctrl-C interrupted drop()
            self.drop(number - 1)
        outcome = ready(outcomes, number, after)
        if outcome is not None and os.getpid() == self.engine.pid:
            return outcome
        if self._handover.outcomes is outcomes:
            self._handover.wait_for(number)
        return self._wait(outcomes, number, timeout_s, after)

    def drop(self, number: int) -> None:
        if self._handover.outcomes is self.outcomes:
            self._handover.drop(number)

    def add(self, number: int, index: int, item: Any) -> None:
        shipped = self.engine.executor.ship(item)
        self._order(lambda: self.engine.schedule.add(number, index, shipped), at_once=False)

    def added(self) -> None:
        self.engine.executor.wake()

    def repeat(self, index: int, runs: int) -> Outcome:
        outcomes: Outcomes = {}

        def command() -> None:
            self._handover.repeat(outcomes)
            self.engine.schedule.repeat(index, runs)

        self._order(command)
        return self._wait(outcomes, index, None)

    def cut(self) -> int:
        """Stop the sending of jobs of this pass, and wait until the engine's thread has confirmed this.

        Returns:
            The number of the first batch that the workers will not deliver. They deliver all batches before it.
        """
        reply: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._order(lambda: reply.put(self._first + self.engine.cut()))
        while True:
            self.engine.check()
            try:
                return reply.get(timeout=_ALIVE_S)
            except queue.Empty:
                if self._handover.outcomes is not self.outcomes:
                    raise StalePassError("this iterator is over: another pass has begun meanwhile") from None

    def forget(self, index: int) -> None:
        self._order(lambda: self.engine.schedule.forget(index))

    def _order(self, command: Callable[[], None], at_once: bool = True) -> None:
        def order() -> None:
            if self._handover.is_handed_to(self.outcomes):
                command()

        self.engine.order(order, at_once)

    def _wait(self, outcomes: Outcomes, key: int, timeout_s: float | None, after: int | None = None) -> Outcome:
        handover, engine = self._handover, self.engine
        engine.check_process()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        handover.waits_since_ns = time.monotonic_ns()
        try:
            while True:
                handover.is_waiting = True  # set before the check: the outcome may arrive in between
                outcome = ready(outcomes, key, after)
                if outcome is not None:
                    return outcome
                engine.check()
                if handover.outcomes is not self.outcomes:
                    handover.hint.put(None)  # pass on a hint that may be meant for the reader of the new pass
                    raise StalePassError("this iterator is over: another pass began while it waited for a batch")
                if handover.commands:  # a Ctrl-C may have prevented the wake-up
                    engine.executor.wake()
                handover.wake_if_wanted()
                left = _ALIVE_S if deadline is None else min(_ALIVE_S, deadline - time.monotonic())
                try:
                    handover.hint.get(timeout=max(left, 0.0))
                except queue.Empty:
                    if deadline is not None and time.monotonic() >= deadline:
                        raise
        finally:
            handover.waits_since_ns = 0
