"""Holds the results of finished jobs until they are delivered to the consumer (the loop)."""

from __future__ import annotations

from typing import Any

from .passes import EnginePass
from .results import Failure, Portions, Result


class Delivery:
    """The results of a pool that are not yet delivered, by ticket, which is a batch's number in the order of delivery.

    Args:
        in_order: deliver batches in the order of their tickets, not as they finish.
        keeps_failed: keep the payloads (inputs) of failed jobs, because the jobs may be retried.
    """

    def __init__(self, in_order: bool, keeps_failed: bool) -> None:
        self.in_order = in_order
        self._keeps_failed = keeps_failed
        self.head = 0  # the first ticket not yet delivered, if batches are delivered in order
        self.finished: dict[int, Any] = {}  # {ticket: result}
        self._delivered: list[tuple[int, Any]] = []  # [(index, result)] since the last take()
        self._portions: dict[int, Portions] = {}  # {ticket of a job that sends portions of its items: those}
        self._begun = -1  # the last ticket whose portions were delivered before the end of its job

    def clear(self, head: int) -> None:
        """Discard all results, and make ``head`` the next ticket to deliver."""
        self.head = head
        self.finished.clear()
        self._delivered.clear()
        self._portions.clear()

    @property
    def has_any(self) -> bool:
        """True if there is anything to deliver."""
        return bool(self.finished or self._portions)

    def add_portion(self, ticket: int, sending: int, items: list[Any] | Failure, nbytes: int) -> None:
        """Add items of a job that still runs, sent under the number ``sending``, or the error of reading them."""
        portions = self._portions.setdefault(ticket, Portions())
        portions.add(sending, items)
        portions.nbytes += nbytes

    def drop(self, ticket: int) -> None:
        """Drop the result of a job, and the portions before it: it will run again."""
        del self.finished[ticket]
        self._portions.pop(ticket, None)

    def last_items(self, ticket: int, sending: int, items: list[Any] | Failure) -> list[Any] | Failure:
        """Return the last ``items`` of a job without those that have arrived from an earlier run of it."""
        if isinstance(items, Failure) or ticket not in self._portions:
            return items
        return self._portions[ticket].last(sending, items)

    def num_bytes_of_portions(self, ticket: int) -> int:
        """Return the size of the portions of a job."""
        return self._portions[ticket].nbytes if ticket in self._portions else 0

    def whole(self, ticket: int, result: Result) -> Result:
        """Return the ``result`` of a retried job, with the portions that have arrived before it."""
        portions = self._portions.pop(ticket, None)
        if portions is None:
            return result
        portions.end(result)
        return portions.whole() or result

    def deliver(self, current: EnginePass) -> None:
        """Select those results of the ``current`` pass that the next :meth:`take` returns.
        In order, these are the results before the first unfinished batch; otherwise, all results of the pass."""
        finished = self.finished
        if self.in_order or current.order is not None:
            while self.head in finished and self.head < current.end:
                self._hand_over(current, self.head)
                self.head += 1
            portions = self._portions.get(self.head)
            if portions is not None and self.head < current.end and self._begun != self.head:
                self._begun = self.head
                self._delivered.append((current.index(self.head), Result(portions)))
        else:
            for ticket in [ticket for ticket in finished if ticket < current.end]:
                self._hand_over(current, ticket)

    def _hand_over(self, current: EnginePass, ticket: int) -> None:
        result = self.finished.pop(ticket)
        portions = self._portions.pop(ticket, None)
        if portions is not None:
            portions.end(result)
        if ticket != self._begun:
            self._delivered.append((current.index(ticket), result if portions is None else Result(portions)))
        self.release(current, ticket, result)
        current.delivered += 1

    def release(self, current: EnginePass, ticket: int, result: Any) -> None:
        """Release the payload (input) of the job with this ``ticket``, unless the job has failed and may be retried."""
        if not current.is_open:
            return
        if not (self._keeps_failed and isinstance(result, Result) and isinstance(result.value, Failure)):
            current.payloads.pop(ticket, None)

    def take(self) -> list[tuple[int, Any]]:
        """Return the results that :meth:`deliver` selected since the last call, as [(index in the epoch, result)]."""
        delivered, self._delivered = self._delivered, []
        return delivered
