"""Holds the results of finished jobs until they are delivered to the consumer (the loop), in the order it wants."""

from __future__ import annotations

from typing import Any, NamedTuple

from .passes import EnginePass


class Failure(NamedTuple):
    """The failure of a job, which is delivered in place of its batch."""

    error: BaseException
    runs: int = 1  # how often its job was started


class Result(NamedTuple):
    """The result of a finished job, its batches or a Failure, and times: Result([batch], 1_250_000, 98_765_432_100)."""

    value: Any  # the items of the job, or a Failure
    job_ns: int = 0  # how long the job took
    received_ns: int = 0  # monotonic, when it arrived


class Delivery:
    """The finished batches of a pool that are not yet delivered, by ticket (a batch's number in delivery order).

    Args:
        in_order: deliver in the order of tickets, not as batches finish.
        keeps_failed: keep the payloads (inputs) of failed jobs, which may be retried.
    """

    def __init__(self, in_order: bool, keeps_failed: bool) -> None:
        self.in_order = in_order
        self._keeps_failed = keeps_failed
        self.head = 0  # in order: the first ticket not yet delivered
        self.finished: dict[int, Any] = {}  # {ticket: result}
        self._delivered: list[tuple[int, Any]] = []  # [(index, result)] since the last take()

    def clear(self, head: int) -> None:
        """Discard all results. The next ticket to deliver is ``head``."""
        self.head = head
        self.finished.clear()
        self._delivered.clear()

    def deliver(self, current: EnginePass) -> None:
        """Select the results that :meth:`take` returns next, from ``current``, the pass being read.
        These are its next batches in order, or all that are finished if they may come in any order."""
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
        """Release the payload, or input, of the job with this ``ticket``, unless the job failed and may be retried."""
        if not current.is_open:
            return
        if not (self._keeps_failed and isinstance(result, Result) and isinstance(result.value, Failure)):
            current.payloads.pop(ticket, None)

    def take(self) -> list[tuple[int, Any]]:
        """Return the results delivered since the last call, as [(index of the batch in the epoch, result)]."""
        delivered, self._delivered = self._delivered, []
        return delivered
