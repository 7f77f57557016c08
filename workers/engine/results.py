"""Defines the results of jobs. The items of a job may arrive in portions while the job still runs.

A portion is a list of items that a generator function has yielded. The job may run in several workers, one after the
other, if one dies: each run yields the same items, and those that have arrived before are left out.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple


class Failure(NamedTuple):
    """The failure of a job, which is delivered in place of the job's batch."""

    error: BaseException
    runs: int = 1  # how often the job was started


class Result(NamedTuple):
    """The result of a job, e.g. Result(value=[batch], job_ns=1_250_000, received_ns=98_765_432_100)."""

    value: Any  # the job's list of batches, or a Failure
    job_ns: int = 0  # how long the job took
    received_ns: int = 0  # monotonic time when it arrived


class Portion(NamedTuple):
    """The value of an outcome that is not the last of its job: some of the job's items."""

    items: list[Any]


class Portions:
    """The items of one job that have arrived. The engine's thread adds items; the consumer's thread takes them."""

    def __init__(self) -> None:
        self._arrived: deque[tuple[int, list[Any]]] = deque()  # (how many items of the job come before them, items)
        self._num_arrived = 0
        self._sending = 0  # the number under which the current run of the job was sent
        self._num_seen = 0  # items of this run
        self._failure: Failure | None = None  # an error while an item of this run was read
        self._end: Result | None = None  # what the job has ended with: its last items, or a Failure
        self.nbytes = 0

    def add(self, sending: int, items: list[Any] | Failure) -> None:
        """Add items that a worker has sent, or the error that was raised while they were read."""
        if isinstance(items, Failure):
            self._sending, self._failure = sending, items
        elif new := self._new(sending, items):
            self._arrived.append((self._num_arrived, new))
            self._num_arrived += len(new)

    def _new(self, sending: int, items: list[Any]) -> list[Any]:
        if sending != self._sending:
            self._sending, self._num_seen, self._failure = sending, 0, None
        if self._failure is not None:
            return []
        num_known = self._num_arrived - self._num_seen
        self._num_seen += len(items)
        return items[max(0, num_known) :]

    def last(self, sending: int, items: list[Any]) -> list[Any] | Failure:
        """Return the new ones among the last ``items`` of the job, or the error that has come in place of a portion."""
        new = self._new(sending, items)
        return new if self._failure is None else self._failure

    def end(self, result: Result) -> None:
        """Record the result of the job, whose value is a Failure, or what :meth:`last` has returned."""
        self._end = result

    def after(self, num_items: int) -> Result | None:
        """Return what follows the first ``num_items`` items, with a Portion as its value unless it is the end.
        Return None if it has not arrived. Items before it are released."""
        end, arrived = self._end, self._arrived  # the end is read first: no portion arrives after it
        while arrived and arrived[0][0] + len(arrived[0][1]) <= num_items:
            arrived.popleft()
        if arrived:
            start, items = arrived[0]
            return Result(Portion(items[num_items - start :]))
        return end

    def whole(self) -> Result | None:
        """Return the result of the whole job, none of whose items were taken; None if it has not ended."""
        end = self._end
        if end is None or isinstance(end.value, Failure):
            return end
        return end._replace(value=[each for _, items in self._arrived for each in items] + end.value)
