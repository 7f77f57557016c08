"""Passes commands from the consumer's thread to the engine's, and outcomes (batches or errors of jobs) back.

The outcomes of a pass (one run of a loop over an epoch) are numbered as they are handed over. The consumer, which is
the loop, reads an outcome, notes that it has it, and only then drops it, so a Ctrl-C in between loses nothing. There is
no lock: both threads change only a dict, a deque or a flag, each in a single step of the interpreter.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .delivery import Result

NEVER = 2**62  # outcomes


class Outcome(NamedTuple):
    """What a job delivers to the consumer, a value or a Failure: Outcome(3, [batch], 1_250_000, 98_765_432_100)."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not needed
    value: Any  # the items of the job, or a Failure
    job_ns: int  # how long the job took
    received_ns: int  # monotonic, when it arrived


Outcomes = dict[int, Outcome]


class Handover:
    """The data shared by the consumer's thread, which reads outcomes (batches or errors), and the engine's thread.

    An engine with jobs to send, but no room for them, sleeps until the consumer has taken ``wake_at`` outcomes. It sets
    this number first, and then checks how many were taken; the consumer first takes, and then checks the number. So at
    least one of them sees what is taken in between. The consumer wakes the engine once for each number: that is enough,
    as the engine never sleeps on a number that has already been reached.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake  # wakes the engine
        self.commands: deque[Callable[[], None]] = deque()  # for the engine to run
        self.hint: queue.SimpleQueue[None] = queue.SimpleQueue()  # what the consumer waits for may have arrived
        self.is_waiting = False  # the consumer wants a hint
        self.waits_since_ns = 0  # since when the consumer waits for an outcome; 0: it does not
        # The consumer's:
        self.outcomes: Outcomes = {}  # {number: outcome} of the pass that it asked for last
        self.num_taken = 0  # of the same pass
        self._waits_for = -1  # the number of the outcome that it last had to wait for
        self._woken_at = -1  # the value of _wake_at for which it last woke the engine
        # The engine's:
        self._handed = self.outcomes  # the outcomes of the pass being read
        self._num_handed = 0
        self._wake_at = NEVER
        self._is_to_tell = False  # the consumer must wake the engine when it waits
        self._repeated: Outcomes = {}  # {index: outcome} of the batch being retried

    # -- the consumer

    def ask(self, outcomes: Outcomes, first: int = 0) -> None:
        """Ask for another pass over an epoch, whose outcomes (batches or errors) are to be put into ``outcomes``,
        numbered from ``first``. The caller must then wake the engine."""
        before, self.outcomes = self.outcomes, outcomes
        before.clear()  # otherwise an old iterator that is kept would hold the batches
        self.num_taken, self._woken_at, self._waits_for = first, -1, -1
        if self.is_waiting:  # another thread waits, for the previous pass
            self.hint.put(None)

    def drop(self, number: int) -> None:
        """Release outcome ``number`` (a batch or an error), which the consumer has. Wake the engine if it wants
        this."""
        self.outcomes.pop(number, None)
        self.num_taken = number + 1
        if self.num_taken >= self._wake_at:
            self.wake_if_wanted()

    def wait_for(self, number: int) -> None:
        """Record that the consumer has finished with all outcomes (batches or errors) before ``number``, and now waits
        for that one. Wake the engine if it asked for this."""
        self._waits_for = number
        if self._is_to_tell:
            self._wake()

    def wake_if_wanted(self) -> None:
        """Wake the engine if the consumer has taken as many outcomes (batches or errors) as it sleeps for."""
        wake_at = self._wake_at
        if self.num_taken >= wake_at and wake_at != self._woken_at:
            self._wake()
            self._woken_at = wake_at  # set last: a Ctrl-C may come in between

    # -- the engine

    def begin(self, outcomes: Outcomes, first: int = 0) -> None:
        """Put outcomes (batches or errors) into ``outcomes``, numbered from ``first``, from now on: the pass over an
        epoch that :meth:`ask` asked for begins."""
        before, self._handed, self._num_handed = self._handed, outcomes, first
        if before is not outcomes:
            before.clear()  # of outcomes that were handed over since ask()

    def is_handed_to(self, outcomes: Outcomes) -> bool:
        """Return True if ``outcomes`` is the dict into which the batches of the current pass are put."""
        return self._handed is outcomes

    def repeat(self, outcomes: Outcomes) -> None:
        """Put the outcomes (batches or errors) of retried jobs into ``outcomes`` from now on, as {index: outcome}."""
        self._repeated = outcomes

    def hand_over(self, outcomes: list[tuple[int, Result]], repeated: list[tuple[int, Result]]) -> None:
        """Give results to the consumer, as (index of the batch, result), and wake it if it waits. ``repeated``: those
        of retried jobs."""
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
        """The number of batches (or errors of jobs) that were handed over and that the consumer has not taken."""
        return len(self._handed)

    @property
    def progress(self) -> tuple[int, int]:
        """(number of the next batch to hand over, how many the consumer has not taken): it changes with each batch that
        is handed over or taken."""
        return self._num_handed, len(self._handed)

    @property
    def is_awaited(self) -> bool:
        """True if the consumer has started to wait for the next batch, and so has finished with all earlier ones."""
        return self._waits_for >= self._num_handed

    def sleep_until_asked(self, progress: tuple[int, int], is_awaited: bool) -> bool:
        """Have the consumer wake the engine when it takes one more batch or starts to wait. Return False if the engine
        must not sleep, as one of both has happened since ``progress`` and ``is_awaited`` were read."""
        self._wake_at = progress[0] - progress[1] + 1
        self._is_to_tell = True  # set before the comparison
        return (progress, is_awaited) == (self.progress, self.is_awaited)

    def sleep_without(self, room: int, num_untaken: int) -> bool:
        """Prepare the engine to sleep until the consumer has taken ``room`` of its ``num_untaken`` batches. Return
        False if it has already."""
        self._is_to_tell = False
        self._wake_at = wake_at = self._num_handed - num_untaken + room  # set before the comparison
        return self._num_handed - len(self._handed) < wake_at

    def sleep(self) -> None:
        """Prepare the engine to sleep, however many batches the consumer takes."""
        self._is_to_tell = False
        self._wake_at = NEVER
