"""What of an epoch was delivered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Delivered(NamedTuple):
    """Delivered(7, (6, 2), None): all batches before 7 were, of batch 6 two items; and none behind 7."""

    batch: int  # all before it were delivered
    partial: tuple[int, int] | None = None  # (one of those that were, how many of its items), if not all were
    newest: int | None = None  # one behind `batch` that was delivered


#: (place, how many of its items were delivered; None: all), such as (7, None) or (6, 2).
Mark = tuple[int, "int | None"]


class Position:
    """Where a pass stands in its epoch.

    It counts *places*: the place of a batch in the order in which all of the epoch is delivered, 0 to length - 1.
    """

    def __init__(
        self, batch: int = 0, apart: Sequence[int] = (), partial: tuple[int, int] | None = None, stride: int = 1
    ) -> None:
        #: Replaced as a whole, so that no Ctrl-C finds it half changed.
        self.delivered = Delivered(batch, partial)
        self.stride = stride  # how many places each delivered batch stands for
        self._apart = set(apart)  # delivered too, behind `batch`; what is before it is taken out late
        self._first = batch  # the first that may still have to be taken out

    def copy(self, stride: int = 1) -> Position:
        """The same position, for a pass of its own."""
        return Position(self.delivered.batch, sorted(self.apart), self.delivered.partial, stride)

    @property
    def apart(self) -> set[int]:
        """The places behind ``delivered.batch`` that were delivered."""
        batch, _, newest = self.delivered
        return {each for each in self._apart | {newest} if each is not None and each > batch}

    @property
    def is_between(self) -> bool:
        """Whether this rank has raised an error before batches that come first: other ranks cannot stand there."""
        return self.stride > 1 and self.delivered.newest is not None

    @property
    def num_delivered(self) -> int:
        """How many batches of the epoch were delivered, or begun with."""
        batch, _, newest = self.delivered
        is_apart = newest is not None or self._apart
        return (batch + (len(self.apart) if is_apart else 0)) // self.stride

    @property
    def is_at_start(self) -> bool:
        return self.delivered == (0, None, None) and not self._apart

    def num_passed_by(self, place: int) -> int:
        """How many items of the batch at ``place`` were delivered already."""
        partial = self.delivered.partial
        return partial[1] if partial and partial[0] == place else 0

    def behind(self, place: int, num_items: int | None = None) -> Delivered:
        """What ``delivered`` is when the batch at ``place`` was, or the first ``num_items`` of its items."""
        batch, partial, newest = self.delivered
        apart = self._apart
        if newest is not None and self.stride == 1:
            apart.add(newest)
        if not apart:
            self._first = batch
        while self._first < batch:
            apart.discard(self._first)
            self._first += 1
        if partial and partial[0] == place:
            return Delivered(batch, (place, num_items) if num_items else None)
        newest = None
        if self.stride > 1:
            batch += self.stride
        elif place > batch:
            newest = place
        elif place == batch:
            batch += 1
            while batch in apart:
                batch += 1
        return Delivered(batch, (place, num_items) if num_items else partial, newest)

    def within(self, place: int) -> Delivered:
        """What ``delivered`` is when the batch at ``place`` has raised, and samples before it are still to come."""
        return self.delivered._replace(newest=place)

    def after(self, marks: Sequence[Mark]) -> Delivered:
        """What ``delivered`` is when all of ``marks`` were."""
        if len(marks) == 1:
            return self.behind(*marks[0])
        trial = self.copy(self.stride)
        for mark in marks:
            trial.delivered = trial.behind(*mark)
        return trial.delivered

    def left(self, length: int) -> Sequence[int]:
        """The places of an epoch of ``length`` batches that are still to be delivered."""
        batch, partial, _ = self.delivered
        apart = self.apart
        if not apart and not partial:
            return range(batch, length)
        first = [partial[0]] if partial else []
        return first + [place for place in range(batch, length) if place not in apart]
