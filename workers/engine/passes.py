"""A pass: one epoch's worth of batches, in the order in which they are delivered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Ahead = tuple[int, int, Sequence[int] | None]  # a pass that will come next: (epoch, length, order)


class Pass:
    """The batches of one pass, and the tickets that stand for them.

    Args:
        epoch: of its batches.
        length: in batches; grows while ``is_open``.
        first: its first ticket.
        is_open: its jobs are handed in one by one.
        order: the indices of its batches, e.g. [3, 0, 7] or range(5, 9); None: 0, 1, 2, ... It may be a lazy sequence
            of any length, so it is never gone through. That of an open pass is our own, and grows.
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
        self.payloads: dict[int, Any] = {}  # {ticket: what its job works on}, where is_open
        self.delivered = 0

    @property
    def end(self) -> int:
        """The first ticket behind it."""
        return self.first + self.length

    def is_like(self, other: Pass) -> bool:
        """Whether it is of the same batches."""
        mine, others = ((each.epoch, each.length, each.is_open, each.order) for each in (self, other))
        return mine == others

    def index(self, ticket: int) -> int:
        """Which batch a ticket is for."""
        at = ticket - self.first
        return at if self.order is None else self.order[at]

    def ticket(self, index: int) -> int:
        """The ticket for batch ``index``."""
        return self.first + (index if self.order is None else self.order.index(index))

    def add(self, number: int, index: int, payload: Any) -> None:
        """Job ``number``, which works on ``payload``; unless it was added before."""
        if number == self.length:
            if isinstance(self.order, list):
                self.order.append(index)
            self.payloads[self.end] = payload
            self.length += 1
