"""Holds batches that did not fit into memory until the loop releases others.

This module is a part of the schedule, so it does no I/O. If a batch does not fit into memory, its ticket (the number of
the batch) is parked. While tickets are parked, no new jobs are sent, and jobs that are with workers run to their end.
Then the parked tickets are retried one at a time, each when there is enough free memory for its batch.

If there is too little, the ticket waits as long as the loop has other batches to take, since the loop may release one
batch when it takes the next. Once the loop waits for the parked batch itself, it will release no more batches. Then
finished batches that come later are dropped, to be computed again. If even this does not free enough memory, the parked
batch fails with MemoryError.
"""

from __future__ import annotations

import enum
import heapq

from .bounds import Bounds
from .delivery import Delivery
from .passes import Passes
from .results import Failure, Result

#: How often a batch that should fit is retried in vain before it fails. Its worker may have been late to free memory.
_MOST_TRIED = 3


class NextStep(enum.Enum):
    """The result of :meth:`WaitingForMemory.step`: what the step has done, or what its caller must do."""

    TRY = "a ticket is to be sent again"
    WAIT = "nothing, until the loop has advanced"
    DROPPED = "finished batches were dropped, so there may be memory now"
    GIVE_UP = "the first ticket does not fit"


class WaitingForMemory:
    """The tickets of batches that wait because they did not fit into memory. Usually there are none.
    The arguments are parts of the schedule, and this object changes them."""

    def __init__(
        self, passes: Passes, delivery: Delivery, bounds: Bounds, again: list[int], repeats: dict[int, int]
    ) -> None:
        self._passes = passes
        self._delivery = delivery
        self._bounds = bounds
        self._again = again
        self._repeats = repeats
        self.waiting: dict[int, int] = {}  # {ticket: bytes that did not fit; 0: it was dropped}, e.g. {7: 268435456}
        self.trying = -1  # the ticket being retried; -1: none
        self._tried = -1  # the ticket retried in vain, if nothing has changed since; -1: none
        self._num_tried = 0  # how often it was

    def __bool__(self) -> bool:
        """Return True if a batch waits for memory or is being retried."""
        return bool(self.waiting) or self.trying >= 0

    @property
    def first(self) -> int:
        """The ticket to retry first: the lowest that the consumer retries after an error, else the lowest of all."""
        return min(self.waiting, key=lambda ticket: (ticket not in self._repeats, ticket))

    def add(self, ticket: int, nbytes: int) -> bool:
        """Park ``ticket``, whose job could not get ``nbytes`` of memory. Return True if this shortage is new."""
        is_first = not self
        if is_first:
            self._bounds.halve()
        if ticket == self.trying:
            self._num_tried = self._num_tried + 1 if ticket == self._tried else 1
            self.trying, self._tried = -1, ticket
        self.waiting[ticket] = nbytes
        return is_first

    def clear(self) -> None:
        """Forget all tickets that are parked or being retried."""
        self.waiting.clear()
        self.fitted()

    def fitted(self) -> None:
        """Record that the retry is over: the batch did fit, or its job failed for another reason."""
        self.trying = self._tried = -1

    def moved(self) -> None:
        """Record that the loop has taken a batch or started to wait, and so may have released memory for a retry."""
        self._tried = -1

    def step(self, available: int | None, is_awaited: bool) -> NextStep:
        """Retry the first parked ticket if memory may suffice. Otherwise drop finished batches, or say what to do.

        Call this only when no worker has a job.

        Args:
            available: bytes of memory that are left; None if unknown.
            is_awaited: True if the consumer has taken all delivered batches, and waits for the next one.
        """
        ticket = self.first
        lacks = self.waiting[ticket]
        fits = available is not None and lacks <= available
        if ticket == self._tried:
            may_try = fits and self._num_tried < _MOST_TRIED
        else:
            may_try = fits or not lacks or available is None
        if may_try:
            del self.waiting[ticket]
            self.trying = ticket
            heapq.heappush(self._again, ticket)
            return NextStep.TRY
        if not self._is_due(ticket, is_awaited):
            return NextStep.WAIT
        return NextStep.DROPPED if self._drop_finished() else NextStep.GIVE_UP

    def give_up(self) -> int:
        """Remove the first parked ticket, whose batch does not fit into memory, and return it."""
        ticket = self.first
        del self.waiting[ticket]
        return ticket

    def _is_due(self, ticket: int, is_awaited: bool) -> bool:
        """Return True if the loop waits for the batch with this ``ticket``, the first parked one.
        All earlier batches are delivered by now, because no worker has a job."""
        is_of_current = self._passes.is_reading and ticket < self._passes.current.end
        return ticket in self._repeats or (is_awaited and is_of_current)

    def _drop_finished(self) -> bool:
        """Drop finished batches that are not delivered, to be computed again later. Return False if there are none.
        Errors of jobs are kept, because they take no memory."""
        finished = self._delivery.finished
        dropped = [ticket for ticket, result in finished.items() if not _has_failed(result)]
        for ticket in dropped:
            self._delivery.drop(ticket)
            self.waiting[ticket] = 0
        if dropped:
            self._tried = -1
        return bool(dropped)


def _has_failed(result: object) -> bool:
    return isinstance(result, Result) and isinstance(result.value, Failure)
