"""``SequenceRepeat``: several or endlessly many epochs of a sequence as one epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_int
from workers.frameworks.keras import ENDLESS, is_endless

from .chosen import SequenceChosen, check_nothing_is_drawn
from .derived import source_length
from .display import DisplayedFact, named
from .epoch_plan import EpochPlan
from .of_epoch import SourceOfEpoch, of_epoch

_MANY = 2**32  # rounds (epochs of the source) from the start of one endless epoch to the start of the next


class SequenceRepeat(SequenceChosen):
    """``number`` epochs of another sequence, or endlessly many if None, as one epoch: see :meth:`Sequence.repeat`."""

    _names_places = False

    def __init__(self, source_split: Any, number: int | None) -> None:
        self.number = None if number is None else check_int("number", number, 1)
        super().__init__(source_split, "repeated")
        check_nothing_is_drawn(source_split, "repeated", "write .repeat() before it")

    def __len__(self) -> int:
        """Return the number of batches in an epoch; 2**62 if it has no end."""
        length = source_length(self)
        if self.number is None:
            return ENDLESS if length else 0
        return ENDLESS if is_endless(length) else min(length * self.number, ENDLESS)

    def _items_of_job(self, index: int) -> list[Any]:
        source, place = self._place(index)
        return source.items(place)

    def _place(self, job: int) -> tuple[SourceOfEpoch, int]:
        """Return (the items of the round of ``job``, its place in that round). A round is one epoch of the source."""
        first = self._source()
        round_, place = divmod(job, first.plan.num_steps)
        epoch = first.plan.epoch * (self.number or _MANY) + round_
        return of_epoch(self, epoch, lambda: self._of_round(first.plan._replace(epoch=epoch))), place

    def _of_round(self, plan: EpochPlan) -> SourceOfEpoch:
        return SourceOfEpoch(self.source_split, plan, self.seed)

    def _source_places(self, jobs: NDArray[np.int64]) -> tuple[EpochPlan, list[int]] | None:
        found = [self._place(job) for job in jobs.tolist()]
        first, _ = found[0]
        if any(source is not first for source, _ in found):
            return None
        return first.plan, [place for _, place in found]

    def _arguments(self) -> tuple[Any, ...]:
        return (self.number,)

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("rounds", "without end" if self.number is None else self.number)
