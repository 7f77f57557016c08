"""The engine, as the consumer has it: begins passes, waits for outcomes, closes.

::

    consumer's thread: Engine       Handover         engine's thread: Driver
      begin, add, close    -- commands -->             executor.poll -> events -> schedule
      peek, drop           <-- {number: outcome}       schedule -> outcomes, and what to send -> executor.send

The schedule and the executor belong to the engine's thread alone, so Ctrl-C, which Python raises in the main thread,
never finds them half changed.
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
from typing import Any

from workers.errors import ClosedError, WorkerError

from .driver import Driver
from .executor import Executor
from .handover import Handover, Outcome, Outcomes
from .passes import Ahead
from .schedule import Schedule
from .watchdog import Options

logger = logging.getLogger("workers")

_MAX_ADDED = 4096  # jobs of an open pass: its source may have no end
_ALIVE_S = 1.0  # how often a waiting consumer looks whether the engine still runs


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
        self._handover = Handover(executor.wake)
        self._driver = Driver(executor, schedule, options, self._handover)
        self._pid = os.getpid()
        self._is_closing = False
        self._is_closed = False
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

        self._handover.ask(outcomes)
        self._order(lambda: self._driver.begin(outcomes, epoch, length, is_open, order, ahead, parcel))

    def add(self, number: int, index: int, item: Any) -> None:
        """Job ``number`` of the open pass, for batch ``index``. Nothing happens where it is there already."""
        shipped = self._executor.ship(item)
        self._order(lambda: self._schedule.add(number, index, shipped))

    def bound(self) -> int:
        """How many jobs an open pass may have ahead of the consumer."""
        return min(self._schedule.bound(), _MAX_ADDED)

    @property
    def outcomes(self) -> Outcomes:
        """{number: outcome} of the pass, as far as they are there and not dropped."""
        return self._handover.outcomes

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
        outcomes = self._handover.outcomes
        if number - 1 in outcomes:  # a Ctrl-C has kept us from it
            self.drop(number - 1)
        return self._wait(outcomes, number, timeout_s)

    def drop(self, number: int) -> None:
        """The consumer has outcome ``number``."""
        self._handover.drop(number)

    def repeat(self, index: int, runs: int) -> Outcome:
        """Batch ``index`` of the pass, whose job has failed in ``runs`` runs, once more. Blocks: until it is there."""
        outcomes: Outcomes = {}

        def command() -> None:
            self._handover.repeat(outcomes)
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
            self._handover.is_waiting = True  # before looking: else it might come in between
            outcome = outcomes.get(key)
            if outcome is not None:
                return outcome
            self._check()
            if self._handover.commands:  # a Ctrl-C may have kept us from waking it
                self._executor.wake()
            self._handover.wake_if_wanted()
            left = _ALIVE_S if deadline is None else min(_ALIVE_S, deadline - time.monotonic())
            try:
                self._handover.hint.get(timeout=max(left, 0.0))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise

    def _order(self, command: Callable[[], None]) -> None:
        self._handover.commands.append(command)
        self._executor.wake()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise WorkerError("this front-end was made in another process; make a new one after a fork")

    @property
    def has_ended(self) -> bool:
        """There will be no more outcomes."""
        return self._is_closing or self._driver.fatal is not None

    def _check(self) -> None:
        self._check_process()
        if self._driver.fatal is not None:
            raise self._driver.fatal
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

    # -- the engine's thread

    def _run(self) -> None:
        timeout_s: float | None = None
        try:
            while not self._is_closing and self._driver.fatal is None:
                timeout_s = self._driver.turn(timeout_s)
        except BaseException as error:
            logger.exception("the engine failed")
            self._driver.fatal = error
        finally:
            self._handover.hint.put(None)
            self._is_closed = True
            self._handover.commands.clear()
            self._executor.close()
