"""Sends the items of a job while the job's function still yields more: a portion is a list of such items."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from . import context, seeding

EVERY_NS = 8_000_000  # the least time between two portions


class JobUnwantedError(BaseException):
    """Raised in a job that yields items, but whose result nobody waits for any more."""


class PortionSender:
    """Sends portions of the items that the generator function of a job yields. It serves one job after the other.

    A job may run again because its first draws were not seeded: see :func:`seeding.run_seeded`. No item is sent twice
    then. The items sent before are right, because nothing is sent after a draw that was not seeded.

    Args:
        send: sends a portion.
        every_ns: the least time between two portions; None to send one only before an error.

    Attributes, which are to be set to 0 and False before each job:
        num_sent: how many items were sent, in all runs of the job.
        is_used: True if the job yields its items.
    """

    __slots__ = "_every_ns", "_num_seen", "_send", "_sent_ns", "is_used", "num_sent"

    def __init__(self, send: Callable[[list[Any]], object], every_ns: int | None = None) -> None:
        self._send, self._every_ns = send, every_ns
        self._num_seen = 0  # items of this run
        self._sent_ns = 0
        self.num_sent, self.is_used = 0, False

    def begin_run(self) -> None:
        """Begin to get the items of a run of the job."""
        self._num_seen, self._sent_ns, self.is_used = 0, time.monotonic_ns(), True

    @property
    def is_due(self) -> bool:
        """True if the items so far should be sent."""
        return self._every_ns is not None and time.monotonic_ns() - self._sent_ns >= self._every_ns

    def send(self, items: list[Any]) -> None:
        """Send those of ``items``, which the function has yielded next, that no earlier run has sent. Empty the list.

        Raises:
            RunAgain: the job has drawn numbers that were not seeded.
        """
        if context.current.stream is not None and (why := seeding.unseeded(context.current.stream)):
            raise seeding.RunAgain(why)
        self.send_seeded(items)

    def send_seeded(self, items: list[Any]) -> None:
        """Send ``items`` as :meth:`send` does, where it is known that all draws were seeded: at the end of a job."""
        new = self.unsent(items)
        items.clear()
        try:
            self._send_all(new)
        except Exception:  # such as an item that cannot be pickled: those before it can be sent
            if len(new) > 1:
                for item in new:
                    self._send_all([item])
            raise
        self._sent_ns = time.monotonic_ns()

    def _send_all(self, items: list[Any]) -> None:
        if items:
            number = len(items)
            self._send(items)
            self.num_sent += number

    def unsent(self, items: list[Any]) -> list[Any]:
        """Return those of ``items``, which the function has yielded next, that no earlier run has sent."""
        num_known = self.num_sent - self._num_seen
        self._num_seen += len(items)
        return items[max(0, num_known) :]
