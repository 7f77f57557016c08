"""What passes between the consumer's thread and the engine's: commands one way, outcomes the other.

The outcomes of a pass are numbered as they are handed over. The consumer looks at one, notes that it has it, and only
then drops it: so a Ctrl-C in between costs nothing. There is no lock: what both threads change is a dict, a deque or a
flag, each changed by a single step of the interpreter.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .delivery import Result

NEVER = 2**62  # outcomes


class Outcome(NamedTuple):
    """What the consumer gets: Outcome(3, [batch], 1_250_000, 98_765_432_100)."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    value: Any  # the items of the job, or a Failure
    job_ns: int  # how long the job took
    received_ns: int  # monotonic, when it came


Outcomes = dict[int, Outcome]


class Handover:
    """Shared by the two threads.

    The engine sleeps, with work to send and no room for it, until the consumer has taken ``wake_at`` outcomes. It sets
    that number and only then looks how many were taken; the consumer takes and only then looks at the number. So what
    is taken in between is seen by one of them, or by both. The consumer wakes it once for each number: a second time
    is not needed, as the engine never sleeps on a number that was reached before.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake  # the engine
        self.commands: deque[Callable[[], None]] = deque()  # for the engine to run
        self.hint: queue.SimpleQueue[None] = queue.SimpleQueue()  # something may be there that is waited for
        self.is_waiting = False  # the consumer wants a hint
        # The consumer's:
        self.outcomes: Outcomes = {}  # {number: outcome} of the pass that it has asked for
        self.num_taken = 0  # of the same pass
        self._waits_for = -1  # the number of the outcome that it last had to wait for
        self._woken_at = -1  # the number that it last woke the engine for
        # The engine's:
        self._handed = self.outcomes  # of the pass being read
        self._num_handed = 0
        self._wake_at = NEVER
        self._is_to_tell = False  # the consumer is to wake it when it waits
        self._repeated: Outcomes = {}  # {index: outcome}, the one that was asked for again

    # -- the consumer

    def ask(self, outcomes: Outcomes, first: int = 0) -> None:
        """The consumer wants another pass, whose outcomes will come here, numbered from ``first``. The engine is to be
        woken after this."""
        before, self.outcomes = self.outcomes, outcomes
        before.clear()  # else an old iterator, which somebody may keep, would hold the batches
        self.num_taken, self._woken_at, self._waits_for = first, -1, -1
        if self.is_waiting:  # another thread, for the pass before
            self.hint.put(None)

    def drop(self, number: int) -> None:
        """The consumer has outcome ``number``."""
        self.outcomes.pop(number, None)
        self.num_taken = number + 1
        if self.num_taken >= self._wake_at:
            self.wake_if_wanted()

    def wait_for(self, number: int) -> None:
        """The consumer has all outcomes before ``number``, which is not there, and goes on only with that."""
        self._waits_for = number
        if self._is_to_tell:
            self._wake()

    def wake_if_wanted(self) -> None:
        """Wake the engine if it waits for what was taken."""
        wake_at = self._wake_at
        if self.num_taken >= wake_at and wake_at != self._woken_at:
            self._wake()
            self._woken_at = wake_at  # afterwards: a Ctrl-C may come in between

    # -- the engine

    def begin(self, outcomes: Outcomes, first: int = 0) -> None:
        """The pass of :meth:`ask` begins."""
        before, self._handed, self._num_handed = self._handed, outcomes, first
        if before is not outcomes:
            before.clear()  # of what has come since

    def is_handed_to(self, outcomes: Outcomes) -> bool:
        """Whether these are the outcomes of the pass being read."""
        return self._handed is outcomes

    def repeat(self, outcomes: Outcomes) -> None:
        """What is repeated goes here."""
        self._repeated = outcomes

    def hand_over(self, outcomes: list[tuple[int, Result]], repeated: list[tuple[int, Result]]) -> None:
        """Give these to the consumer, each as (index, result), and a hint if it waits."""
        handed = self._handed
        for number, (index, (value, job_ns, received_ns)) in enumerate(outcomes, self._num_handed):
            handed[number] = Outcome(index, value, job_ns, received_ns)
        self._num_handed += len(outcomes)
        for index, result in repeated:
            self._repeated[index] = Outcome(index, *result)
        if self.is_waiting:
            self.is_waiting = False
            self.hint.put(None)

    @property
    def num_untaken(self) -> int:
        """How many outcomes the consumer has not taken."""
        return len(self._handed)

    @property
    def progress(self) -> tuple[int, int]:
        """Another one when something was handed over, or taken."""
        return self._num_handed, len(self._handed)

    @property
    def is_awaited(self) -> bool:
        """Whether the consumer has had to wait for what is handed over next: it has done with all before."""
        return self._waits_for >= self._num_handed

    def sleep_until_asked(self, progress: tuple[int, int], is_awaited: bool) -> bool:
        """The engine wants to sleep until the consumer takes one more, or has to wait. False: it has, since it was as
        far as ``progress`` and ``is_awaited``."""
        self._wake_at = progress[0] - progress[1] + 1
        self._is_to_tell = True  # first set, then compared
        return (progress, is_awaited) == (self.progress, self.is_awaited)

    def sleep_without(self, room: int, num_untaken: int) -> bool:
        """The engine wants to sleep until the consumer has taken ``room`` of the ``num_untaken`` outcomes that there
        were. False: it has done so."""
        self._is_to_tell = False
        self._wake_at = wake_at = self._num_handed - num_untaken + room  # first set, then compared
        return self._num_handed - len(self._handed) < wake_at

    def sleep(self) -> None:
        """The engine wants to sleep, whatever the consumer takes."""
        self._is_to_tell = False
        self._wake_at = NEVER
