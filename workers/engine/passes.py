"""Keeps track of the passes that an engine works on, and numbers their batches.

A pass is one run of a loop over an epoch. Each batch of a pass has a ticket, which is its number in the order of
delivery. Ticket numbers continue from one pass to the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

Ahead = tuple[int, int, Sequence[int] | None]  # the next pass: (epoch, length, order)


class EnginePass:
    """The batches of one pass (a run of a loop over an epoch), and their tickets (numbers in the order of delivery).

    Args:
        epoch: the epoch of its batches.
        length: its number of batches; grows while ``is_open``.
        first: its first ticket.
        is_open: True if its jobs are added one by one, while it is read.
        order: the indices of its batches, e.g. [3, 0, 7] or range(5, 9); None for 0, 1, 2, ... It may be a lazy
        sequence of any length, so it is not copied. An open pass has its own list, which grows.
    """

    __slots__ = ("delivered", "epoch", "first", "is_open", "length", "order", "payloads")

    def __init__(
        self, epoch: int, length: int, first: int, is_open: bool = False, order: Sequence[int] | None = None
    ) -> None:
        self.epoch = epoch
        self.length = length
        self.first = first
        self.is_open = is_open
        self.order: Sequence[int] | None = [] if is_open and order is not None else order
        self.payloads: dict[int, Any] = {}  # {ticket: payload of its job}, if is_open
        self.delivered = 0

    @property
    def end(self) -> int:
        """The ticket that follows the last one of this pass."""
        return self.first + self.length

    def is_like(self, other: EnginePass) -> bool:
        """Return True if this pass and ``other`` have the same batches in the same order."""
        mine, others = ((each.epoch, each.length, each.is_open, each.order) for each in (self, other))
        return mine == others

    def index(self, ticket: int) -> int:
        """Return the index in the epoch of the batch with this ``ticket``."""
        at = ticket - self.first
        return at if self.order is None else self.order[at]

    def ticket(self, index: int) -> int:
        """Return the ticket of the batch with this ``index`` in the epoch."""
        return self.first + (index if self.order is None else self.order.index(index))

    def add(self, number: int, index: int, payload: Any) -> None:
        """Add job ``number``, which makes batch ``index`` from ``payload``, to an open pass, unless already added."""
        if number == self.length:
            if isinstance(self.order, list):
                self.order.append(index)
            self.payloads[self.end] = payload
            self.length += 1


class Passes:
    """The passes (runs over an epoch) that an engine works on: the one being read, and the next one, computed ahead."""

    def __init__(self) -> None:
        self._passes: deque[EnginePass] = deque()
        self.is_reading = False  # the consumer reads the first pass; otherwise this pass is only computed ahead
        self.next = 0  # the first ticket that was never sent

    @property
    def current(self) -> EnginePass:
        """The pass being read, or the one computed ahead if none is read."""
        return self._passes[0]

    @property
    def is_empty(self) -> bool:
        return not self._passes

    @property
    def is_delivered(self) -> bool:
        """True if a pass is being read and all its batches were delivered."""
        return self.is_reading and self.current.delivered == self.current.length

    @property
    def may_look_ahead(self) -> bool:
        """True if the next pass may start, because all jobs of the current one were sent and no pass follows it yet."""
        return self.is_reading and len(self._passes) == 1 and self.next >= self.current.end

    @property
    def num_sent(self) -> int:
        """The number of jobs that were sent so far, in the current pass and the one after it together."""
        return self.next - self.current.first if self._passes else 0

    @property
    def is_all_sent(self) -> bool:
        return not any(each.end > self.next for each in self._passes)

    def end_current(self) -> None:
        """Remove the current pass, because all its batches were delivered."""
        self._passes.popleft()
        self.is_reading = False

    def begins_with(self, new_pass: EnginePass) -> bool:
        """Return True if a pass was computed ahead and ``new_pass`` has the same batches in the same order."""
        return not self.is_reading and not self.is_empty and self.current.is_like(new_pass)

    def ahead(self, epoch: int, length: int, order: Sequence[int] | None = None) -> None:
        """Add the next pass, to be computed ahead, now that all jobs of the pass being read were sent.
        ``order`` holds the indices of its batches; None stands for 0, 1, 2, ..."""
        first = self._passes[-1].end if self._passes else self.next
        self._passes.append(EnginePass(epoch, length, first, order=order))

    def cut(self) -> int:
        """Shorten the current pass to the jobs already sent. Return the number of these jobs."""
        current = self.current
        if len(self._passes) == 1:
            current.length = self.next - current.first
        return current.length

    def append(self, new_pass: EnginePass) -> None:
        new_pass.first = self.next
        self._passes.append(new_pass)

    def clear(self) -> None:
        """Forget all passes. Their tickets are not used again."""
        self.next = max([self.next, *[each.end for each in self._passes]])
        self._passes.clear()
        self.is_reading = False

    def of(self, ticket: int) -> EnginePass:
        """Return the pass that contains the batch with this ``ticket``."""
        return self._passes[0] if ticket < self._passes[0].end else self._passes[1]

    def fresh(self, count: int) -> list[int]:
        """Return the tickets of up to ``count`` jobs that were never sent, and record that they are sent now."""
        tickets: list[int] = []
        for each in self._passes:
            some = min(count - len(tickets), each.end - self.next)
            if some > 0:
                tickets.extend(range(self.next, self.next + some))
                self.next += some
        return tickets
