"""``Position`` records where a pass (one run of a loop) is in its epoch: which batches it has delivered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Delivered(NamedTuple):
    """What a loop has delivered. Delivered(batch=7, partial=(6, 2)): all batches before 7, but only two items of 6."""

    batch: int  # all batches before it were delivered
    partial: tuple[int, int] | None = None  # (place of a batch delivered in part, how many of its items were)
    newest: int | None = None  # the batch delivered last, if it comes after `batch`


#: (place, how many of its items were delivered, or None for all), e.g. (7, None) or (6, 2).
Mark = tuple[int, "int | None"]


class Position:
    """The position of a pass (one run of a loop) in its epoch: which batches were delivered.

    Batches are counted by *place*: the number of a batch in the epoch's order of delivery, 0 to length - 1.
    """

    def __init__(
        self, batch: int = 0, apart: Sequence[int] = (), partial: tuple[int, int] | None = None, stride: int = 1
    ) -> None:
        #: Replaced as a whole, so that a Ctrl-C cannot interrupt a change half-way.
        self.delivered = Delivered(batch, partial)
        self.stride = stride  # the number of places that each delivered batch stands for: one for each rank
        self._apart = set(apart)  # delivered places after `batch`, e.g. {9, 12}; earlier ones are removed later
        self._first = batch  # the first place that may still have to be removed from _apart

    def copy(self, stride: int = 1) -> Position:
        """Return a copy for another pass, in which each delivered batch stands for ``stride`` places."""
        return Position(self.delivered.batch, sorted(self.apart), self.delivered.partial, stride)

    @property
    def apart(self) -> set[int]:
        """The places delivered out of order, i.e. after ``delivered.batch``, the first place not delivered yet."""
        batch, _, newest = self.delivered
        return {each for each in self._apart | {newest} if each is not None and each > batch}

    @property
    def is_between(self) -> bool:
        """True if a batch raised while samples before it are undelivered, so that other ranks cannot resume here."""
        return self.stride > 1 and self.delivered.newest is not None

    @property
    def num_delivered(self) -> int:
        """The number of batches that this rank has delivered in the epoch, in part or as a whole."""
        batch, _, newest = self.delivered
        is_apart = newest is not None or self._apart
        return (batch + (len(self.apart) if is_apart else 0)) // self.stride

    @property
    def is_at_start(self) -> bool:
        return self.delivered == (0, None, None) and not self._apart

    def is_in_order(self, place: int) -> bool:
        """Return True if the batch at ``place`` is the next one in order, with none delivered after it, or in part."""
        batch, partial, newest = self.delivered
        return batch == place and partial is None and newest is None and self.stride == 1 and not self._apart

    def num_passed_by(self, place: int) -> int:
        """Return how many items of the batch at ``place`` are already delivered; 0 unless it was delivered in part."""
        partial = self.delivered.partial
        return partial[1] if partial and partial[0] == place else 0

    def behind(self, place: int, num_items: int | None = None) -> Delivered:
        """Return what ``delivered`` is once the batch at ``place`` (or its first ``num_items`` items) is delivered."""
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
        """Return what ``delivered`` is once the batch at ``place`` has raised, with samples before it undelivered."""
        return self.delivered._replace(newest=place)

    def after(self, marks: Sequence[Mark]) -> Delivered:
        """Return what ``delivered`` is once all items that ``marks`` name are delivered: see ``Mark``."""
        if len(marks) == 1:
            return self.behind(*marks[0])
        trial = self.copy(self.stride)
        for mark in marks:
            trial.delivered = trial.behind(*mark)
        return trial.delivered

    def left(self, length: int) -> Sequence[int]:
        """Return the places yet to deliver in an epoch of ``length`` batches; a batch delivered in part comes first."""
        batch, partial, _ = self.delivered
        apart = self.apart
        if not apart and not partial:
            return range(batch, length)
        first = [partial[0]] if partial else []
        return first + [place for place in range(batch, length) if place not in apart]
