"""What the consumer reads a pass with: it waits for outcomes, and has failed jobs run again.

A pass is over when the next one begins, wherever that happens: in ``on_error``, or in another thread. Whoever still
reads it is told so, and nothing that it asks for touches the new one.
"""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from workers.errors import StalePassError

from .handover import Outcome, Outcomes

if TYPE_CHECKING:
    from .engine import Engine

_ALIVE_S = 1.0  # how often who waits looks whether the engine still runs, and whether another pass has begun


class Reading:
    """The outcomes of a pass, numbered as they come. Used by: the consumer's thread.

    Attributes:
        outcomes: {number: outcome}, as far as they are there and not dropped.
    """

    def __init__(self, engine: Engine, outcomes: Outcomes, first: int = 0) -> None:
        self.engine = engine
        self.outcomes = outcomes
        self._handover = engine.handover
        self._first = first

    def peek(self, number: int, timeout_s: float | None = None) -> Outcome:
        """Outcome ``number``, which stays there until :meth:`drop`.

        Blocks: until it is there; at most ``timeout_s``.

        Raises:
            queue.Empty: ``timeout_s`` is over. StalePassError: another pass has begun. ClosedError, or what ended the
                engine.
        """
        outcomes = self.outcomes
        if number - 1 in outcomes:  # a Ctrl-C has kept us from it
            self.drop(number - 1)
        outcome = outcomes.get(number)
        if outcome is not None and os.getpid() == self.engine.pid:
            return outcome
        if self._handover.outcomes is outcomes:
            self._handover.wait_for(number)
        return self._wait(outcomes, number, timeout_s)

    def drop(self, number: int) -> None:
        """The consumer has outcome ``number``."""
        if self._handover.outcomes is self.outcomes:
            self._handover.drop(number)

    def add(self, number: int, index: int, item: Any) -> None:
        """Job ``number`` of an open pass, for batch ``index``, unless it is there. :meth:`added` must follow."""
        shipped = self.engine.executor.ship(item)
        self._order(lambda: self.engine.schedule.add(number, index, shipped), at_once=False)

    def added(self) -> None:
        """Tell the engine of what was added."""
        self.engine.executor.wake()

    def repeat(self, index: int, runs: int) -> Outcome:
        """Batch ``index``, whose job has failed in ``runs`` runs, once more. Blocks and raises: as :meth:`peek`."""
        outcomes: Outcomes = {}

        def command() -> None:
            self._handover.repeat(outcomes)
            self.engine.schedule.repeat(index, runs)

        self._order(command)
        return self._wait(outcomes, index, None)

    def cut(self) -> int:
        """Have no more of this pass computed. Blocks: a moment.

        Returns:
            The number of the first outcome that will not come.
        """
        reply: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._order(lambda: reply.put(self._first + self.engine.cut()))
        while True:
            self.engine.check()
            try:
                return reply.get(timeout=_ALIVE_S)
            except queue.Empty:
                if self._handover.outcomes is not self.outcomes:
                    raise StalePassError("this iterator is over: another pass was begun meanwhile") from None

    def forget(self, index: int) -> None:
        """Batch ``index``, which has failed, will not be repeated."""
        self._order(lambda: self.engine.schedule.forget(index))

    def _order(self, command: Callable[[], None], at_once: bool = True) -> None:
        def order() -> None:
            if self._handover.is_handed_to(self.outcomes):
                command()

        self.engine.order(order, at_once)

    def _wait(self, outcomes: Outcomes, key: int, timeout_s: float | None) -> Outcome:
        handover, engine = self._handover, self.engine
        engine.check_process()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            handover.is_waiting = True  # before looking: else it might come in between
            outcome = outcomes.get(key)
            if outcome is not None:
                return outcome
            engine.check()
            if handover.outcomes is not self.outcomes:
                handover.hint.put(None)  # it may have been meant for who reads the other one
                raise StalePassError("this iterator is over: another pass was begun while it waited for a batch")
            if handover.commands:  # a Ctrl-C may have kept us from waking it
                engine.executor.wake()
            handover.wake_if_wanted()
            left = _ALIVE_S if deadline is None else min(_ALIVE_S, deadline - time.monotonic())
            try:
                handover.hint.get(timeout=max(left, 0.0))
            except queue.Empty:
                if deadline is not None and time.monotonic() >= deadline:
                    raise
