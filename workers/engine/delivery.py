"""Holds the results of finished jobs until they are delivered to the consumer (the loop)."""

from __future__ import annotations

from typing import Any, NamedTuple

from .passes import EnginePass


class Failure(NamedTuple):
    """The failure of a job, which is delivered in place of the job's batch."""

    error: BaseException
    runs: int = 1  # how often the job was started


class Result(NamedTuple):
    """The result of a job, e.g. Result(value=[batch], job_ns=1_250_000, received_ns=98_765_432_100)."""

    value: Any  # the job's list of batches, or a Failure
    job_ns: int = 0  # how long the job took
    received_ns: int = 0  # monotonic time when it arrived


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

    def clear(self, head: int) -> None:
        """Discard all results, and make ``head`` the next ticket to deliver."""
        self.head = head
        self.finished.clear()
        self._delivered.clear()

    def deliver(self, current: EnginePass) -> None:
        """Select those results of the ``current`` pass that the next :meth:`take` returns.
        In order, these are the results before the first unfinished batch; otherwise, all results of the pass."""
        finished = self.finished
        if self.in_order or current.order is not None:
            while self.head in finished and self.head < current.end:
                self._hand_over(current, self.head)
                self.head += 1
        else:
            for ticket in [ticket for ticket in finished if ticket < current.end]:
                self._hand_over(current, ticket)

    def _hand_over(self, current: EnginePass, ticket: int) -> None:
        result = self.finished.pop(ticket)
        self._delivered.append((current.index(ticket), result))
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
