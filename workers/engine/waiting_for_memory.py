"""Batches that did not fit into memory: they wait until the loop has let go of others.

A part of the schedule, as pure as that. While something is parked nothing new is sent; what is out goes on to its end.
Then one parked ticket at a time is tried again, alone, when there is as much memory as it has lacked.

If there is not, it waits while the loop still has other batches to take: with each one that it takes, it may let go of
another. Once it waits for the parked one itself, it will let go of nothing more. Then what is finished behind that is
dropped, to be made again later, and if even this is not enough, the want of memory is the batch's error.
"""

from __future__ import annotations

import enum
import heapq

from .bounds import Bounds
from .delivery import Delivery, Failure, Result
from .passes import Passes


class NextStep(enum.Enum):
    """What :meth:`WaitingForMemory.step` has done, or wants done."""

    TRY = "one is to be sent again"
    WAIT = "nothing, before the loop is further"
    DROPPED = "batches behind the first one were dropped, so there may be memory now"
    GIVE_UP = "the first one does not fit"


class WaitingForMemory:
    """The parked tickets, of which there are hardly ever any. It shares what it is given with the schedule."""

    def __init__(
        self, passes: Passes, delivery: Delivery, bounds: Bounds, again: list[int], repeats: dict[int, int]
    ) -> None:
        self._passes = passes
        self._delivery = delivery
        self._bounds = bounds
        self._again = again
        self._repeats = repeats
        self.waiting: dict[int, int] = {}  # {ticket: bytes that it lacked, 0: it was dropped}, e.g. {7: 268435456}
        self.trying = -1  # the ticket that was sent again
        self._tried = -1  # the ticket that was sent again in vain, if nothing has changed since

    def __bool__(self) -> bool:
        """Whether batches have to wait for memory, or one is made that did."""
        return bool(self.waiting) or self.trying >= 0

    @property
    def first(self) -> int:
        """The ticket that is tried next: one that the consumer has asked for again, else the earliest."""
        return min(self.waiting, key=lambda ticket: (ticket not in self._repeats, ticket))

    def add(self, ticket: int, nbytes: int) -> bool:
        """A ticket that no worker has any more has lacked ``nbytes`` of memory. Returns: whether it is the first."""
        is_first = not self
        if is_first:
            self._bounds.halve()
        if ticket == self.trying:
            self.trying, self._tried = -1, ticket
        self.waiting[ticket] = nbytes
        return is_first

    def clear(self) -> None:
        """Nobody waits for any ticket any more."""
        self.waiting.clear()
        self.fitted()

    def fitted(self) -> None:
        """What was tried did fit, or its job has failed otherwise."""
        self.trying = self._tried = -1

    def moved(self) -> None:
        """The loop has taken a batch, or begun to wait: it may have let go of others."""
        self._tried = -1

    def step(self, available: int | None, is_awaited: bool) -> NextStep:
        """What comes next, when no worker has anything to do.

        Args:
            available: bytes of memory that are left; None: not known.
            is_awaited: the consumer has taken all that was delivered, and waits for what comes next.
        """
        ticket = self.first
        lacks = self.waiting[ticket]
        if ticket != self._tried and (not lacks or available is None or lacks <= available):
            del self.waiting[ticket]
            self.trying = ticket
            heapq.heappush(self._again, ticket)
            return NextStep.TRY
        if not self._is_due(ticket, is_awaited):
            return NextStep.WAIT
        return NextStep.DROPPED if self._drop_finished() else NextStep.GIVE_UP

    def give_up(self) -> int:
        """The first ticket, whose job has failed for want of memory. It is parked no more."""
        ticket = self.first
        del self.waiting[ticket]
        return ticket

    def _is_due(self, ticket: int, is_awaited: bool) -> bool:
        """Whether the consumer waits for this ticket: all before it are delivered, as no worker has anything to do."""
        is_of_current = self._passes.is_reading and ticket < self._passes.current.end
        return ticket in self._repeats or (is_awaited and is_of_current)

    def _drop_finished(self) -> bool:
        """Drop the batches that are finished and not delivered. False: there are none. Errors take no memory."""
        finished = self._delivery.finished
        dropped = [ticket for ticket, result in finished.items() if not _has_failed(result)]
        for ticket in dropped:
            del finished[ticket]
            self.waiting[ticket] = 0
        if dropped:
            self._tried = -1
        return bool(dropped)


def _has_failed(result: object) -> bool:
    return isinstance(result, Result) and isinstance(result.value, Failure)
