"""Passes commands from the consumer's thread to the engine's, and outcomes (batches or errors of jobs) back.

The outcomes of a pass (one run of a loop over an epoch) are numbered in the order in which they are handed over. The
consumer (the loop) reads an outcome, records that it has it, and only then drops it, so a Ctrl-C in between loses none.
There is no lock, because each change to the shared dict, deque and flags is a single step of the interpreter.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from .results import Portions, Result

NEVER = 2**62  # more outcomes than there will ever be


class Outcome(NamedTuple):
    """The outcome of a job, e.g. Outcome(index=3, value=[batch], job_ns=1_250_000, received_ns=98_765_432_100)."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which is not needed
    value: Any  # the job's list of batches, or a Failure
    job_ns: int  # how long the job took
    received_ns: int  # monotonic time when it arrived


Outcomes = dict[int, Outcome]


def ready(outcomes: Outcomes, number: int, after: int | None = 0) -> Outcome | None:
    """Return what follows the first ``after`` items of outcome ``number``, or the whole outcome if ``after`` is None.
    Return None if it has not arrived."""
    outcome = outcomes.get(number)
    if outcome is None:
        return None
    value = outcome.value
    if type(value) is Portions:
        result = value.whole() if after is None else value.after(after)
        return None if result is None else Outcome(outcome.index, *result)
    return outcome._replace(value=value[after:]) if after and type(value) is list else outcome


class Handover:
    """The data shared by the engine's thread, which hands over outcomes, and the consumer's thread, which takes them.

    An engine with jobs to send, but no room for them, sleeps until the consumer has taken a certain number of outcomes.
    The engine first sets this number, and then checks how many were taken; the consumer first takes an outcome, and
    then checks the number. So at least one of them notices that the number was reached. The consumer wakes the engine
    once for each number. Once is enough, as the engine never sleeps on a number that has already been reached.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake  # wakes the engine
        self.commands: deque[Callable[[], None]] = deque()  # for the engine to run
        self.hint: queue.SimpleQueue[None] = queue.SimpleQueue()  # wakes the consumer: its outcome may have arrived
        self.is_waiting = False  # the consumer wants a hint
        self.waits_since_ns = 0  # since when the consumer waits for an outcome; 0: it does not
        # The consumer's:
        self.outcomes: Outcomes = {}  # {number: outcome} of the pass that it asked for last
        self.num_taken = 0  # the number of the next outcome to take, in this pass
        self._waits_for = -1  # the number of the outcome that the consumer last waited for
        self._woken_at = -1  # the value of _wake_at for which the consumer last woke the engine
        # The engine's:
        self._handed = self.outcomes  # the outcomes of the pass being read
        self._num_handed = 0
        self._wake_at = NEVER
        self._is_to_tell = False  # the consumer must wake the engine when it starts to wait
        self._repeated: Outcomes = {}  # {index: outcome} of the batch being retried

    # -- the consumer

    def ask(self, outcomes: Outcomes, first: int = 0) -> None:
        """Ask for a new pass, whose outcomes are to be put into ``outcomes`` and numbered from ``first``.
        The caller must then wake the engine."""
        before, self.outcomes = self.outcomes, outcomes
        before.clear()  # otherwise an old iterator that is kept would keep the batches
        self.num_taken, self._woken_at, self._waits_for = first, -1, -1
        if self.is_waiting:  # another thread waits, for the previous pass
            self.hint.put(None)

    def drop(self, number: int) -> None:
        """Release outcome ``number``, which the consumer has taken. Wake the engine if it sleeps until this happens."""
        self.outcomes.pop(number, None)
        self.num_taken = number + 1
        if self.num_taken >= self._wake_at:
            self.wake_if_wanted()

    def wait_for(self, number: int) -> None:
        """Record that the consumer waits for outcome ``number``, and so has finished with all earlier outcomes.
        Wake the engine if it sleeps until the consumer waits."""
        self._waits_for = number
        if self._is_to_tell:
            self._wake()

    def wake_if_wanted(self) -> None:
        """Wake the engine if the consumer has taken as many outcomes as the engine sleeps for."""
        wake_at = self._wake_at
        if self.num_taken >= wake_at and wake_at != self._woken_at:
            self._wake()
            self._woken_at = wake_at  # set last: a Ctrl-C may come in between

    # -- the engine

    def begin(self, outcomes: Outcomes, first: int = 0) -> None:
        """Begin the pass that the consumer has asked for.
        From now on, outcomes are put into ``outcomes`` and numbered from ``first``."""
        before, self._handed, self._num_handed = self._handed, outcomes, first
        if before is not outcomes:
            before.clear()  # outcomes may have been handed over since ask()

    def is_handed_to(self, outcomes: Outcomes) -> bool:
        """Return True if ``outcomes`` is the dict to which the outcomes of the current pass go."""
        return self._handed is outcomes

    def repeat(self, outcomes: Outcomes) -> None:
        """Put the outcomes of retried jobs into ``outcomes`` from now on, as {index of the batch: outcome}."""
        self._repeated = outcomes

    def hand_over(self, outcomes: list[tuple[int, Result]], repeated: list[tuple[int, Result]]) -> None:
        """Hand over the results in ``outcomes``, and of retries in ``repeated``. Wake the consumer if it waits.
        Both are lists of (index of the batch, result)."""
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
        """The number of outcomes that were handed over, but not yet taken by the consumer."""
        return len(self._handed)

    @property
    def progress(self) -> tuple[int, int]:
        """A value that changes with each outcome that is handed over or taken.
        It is (number of the next outcome to hand over, how many outcomes the consumer has yet to take)."""
        return self._num_handed, len(self._handed)

    @property
    def is_awaited(self) -> bool:
        """True if the consumer has started to wait for the next outcome, and so has finished with all earlier ones."""
        return self._waits_for >= self._num_handed

    def sleep_until_asked(self, progress: tuple[int, int], is_awaited: bool) -> bool:
        """Have the consumer wake the engine when it takes one more batch or starts to wait.
        Return False if ``progress`` or ``is_awaited`` has changed since it was read: do not sleep then."""
        self._wake_at = progress[0] - progress[1] + 1
        self._is_to_tell = True  # set before the comparison
        return (progress, is_awaited) == (self.progress, self.is_awaited)

    def sleep_without(self, room: int, num_untaken: int) -> bool:
        """Have the consumer wake the engine when it has taken ``room`` of its ``num_untaken`` batches.
        Return False if the consumer has already taken them. The engine must not sleep then."""
        self._is_to_tell = False
        self._wake_at = wake_at = self._num_handed - num_untaken + room  # set before the comparison
        return self._num_handed - len(self._handed) < wake_at

    def sleep(self) -> None:
        """Let the engine sleep on, however many batches the consumer takes."""
        self._is_to_tell = False
        self._wake_at = NEVER
