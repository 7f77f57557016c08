"""The engine, as the consumer has it: begins passes, closes.

::

    consumer's thread:         Handover             engine's thread: Driver
      Engine: begin, close       -- commands -->           executor.poll -> events -> schedule
      Reading: peek, drop        <-- {number: outcome}     schedule -> outcomes, and what to send -> executor.send

The schedule and the executor belong to the engine's thread alone, so Ctrl-C, which Python raises in the main thread,
never finds them half changed.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from workers.errors import ClosedError, WorkerError
from workers.figures.pool import PoolFigures

from . import report
from .driver import Driver
from .executor import Executor
from .handover import Handover, Outcomes
from .passes import Ahead
from .publishing import Publisher
from .reading import Reading
from .schedule import Schedule
from .watchdog import Timeouts

logger = logging.getLogger("workers")

_MAX_ADDED = 4096  # jobs of an open pass: its source may have no end
_is_exiting = threading.Event()


@functools.cache
def watch_for_exit() -> None:
    """Know when the program ends. To be called after the first finalizer was made, so that it is known before that
    runs."""
    atexit.register(_is_exiting.set)


MakePublisher: TypeAlias = Callable[[Executor, Schedule, Handover], Publisher]


class Engine:
    """One pool of workers, for as long as its front-end lives."""

    def __init__(
        self, executor: Executor, schedule: Schedule, options: Timeouts, publisher: MakePublisher | None = None
    ) -> None:
        """``publisher``: makes what publishes its figures; None: nobody does."""
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
        """The thread first: the workers may take the last processes that are allowed."""
        try:
            self._thread.start()
        except RuntimeError as error:
            raise report.too_few_processes("the thread of the pool could not be started", str(error)) from error
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
        """The consumer starts to read a pass, which ends the one before.

        Args:
            epoch: the pass is this epoch.
            length: in batches; 0 with ``is_open``.
            is_open: its jobs are handed in by :meth:`Reading.add`.
            ahead: the pass that will most likely come next, to be worked on early.
            parcel: the replica that the jobs are to be done on from now on; None: as before.
            order: the indices of its batches, any sequence that does not change; None: 0 to ``length`` - 1.
            first: the number of its first outcome.
        """
        self.check()
        outcomes: Outcomes = {}
        self.handover.ask(outcomes, first)
        self.order(lambda: self._driver.begin(outcomes, epoch, length, is_open, order, ahead, parcel, first))
        return Reading(self, outcomes, first)

    def revoke(self) -> None:
        """Forget what was computed ahead: it is out of date. To be followed by :meth:`begin`."""
        self.order(self._driver.revoke, at_once=False)

    def resize(self, nb_workers: int) -> None:
        """Have so many workers from now on, at least 1, also where they had been ended for want of work. Returns at
        once."""
        self.order(lambda: self._driver.resize(nb_workers))

    def bound(self) -> int:
        """How many jobs an open pass may have ahead of the consumer."""
        return min(self.schedule.bound(), _MAX_ADDED, self.executor.may_add)

    @property
    def figures(self) -> PoolFigures:
        """What the workers have done so far."""
        return self.executor.figures

    @property
    def has_background_jobs(self) -> bool:
        """Whether a worker has something to do."""
        return not self._is_closed and not self.schedule.is_idle

    def cut(self) -> int:
        """See :meth:`Driver.cut`. Runs in: the engine's thread."""
        return self._driver.cut()

    def order(self, command: Callable[[], None], at_once: bool = True) -> None:
        """Have the engine's thread do this; if not ``at_once``, when something else wakes it."""
        self.handover.commands.append(command)
        if at_once:
            self.executor.wake()

    def check_process(self) -> None:
        """Raise WorkerError in a fork, which has no workers."""
        if os.getpid() != self.pid:
            raise WorkerError("this front-end was made in another process; make a new one after a fork")

    @property
    def has_ended(self) -> bool:
        """There will be no more outcomes."""
        return self._is_closing or self._driver.fatal is not None

    @property
    def fatal(self) -> BaseException | None:
        """What has ended it, other than :meth:`close`."""
        return self._driver.fatal

    @property
    def is_resting(self) -> bool:
        """The workers were ended for want of work."""
        return self._driver.is_resting

    def check(self) -> None:
        """Raise what has ended the engine, if it has ended."""
        self.check_process()
        if self._driver.fatal is not None:
            raise self._driver.fatal
        if self._is_closing:
            while _is_exiting.is_set() and threading.current_thread() is not threading.main_thread():
                time.sleep(1.0)  # a daemon thread, which ends with the program: without a last word
            raise ClosedError("the front-end was closed while a batch was asked for; make a new one")

    def close(self) -> None:
        """End the workers. Blocks: until they are gone. May be repeated, and called from anywhere."""
        if os.getpid() != self.pid:
            return  # a fork has copies of our descriptors, and no business with the workers
        self._is_closing = True
        self.executor.wake()
        if threading.current_thread() is not self._thread:  # else the garbage collector runs in it
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
