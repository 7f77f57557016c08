"""``SequenceRepeat``: several epochs of a sequence as one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_int
from workers.frameworks.keras import ENDLESS

from .chosen import SequenceChosen, check_nothing_is_drawn, items_at
from .derived import source_length
from .display import DisplayedFact, named
from .epoch_plan import EpochPlan


class SequenceRepeat(SequenceChosen):
    """``number`` epochs of another sequence as one, or without end: see :meth:`Sequence.repeat`."""

    _names_places = False

    def __init__(self, source_split: Any, number: int | None) -> None:
        self.number = None if number is None else check_int("number", number, 1)
        super().__init__(source_split, "repeated")
        check_nothing_is_drawn(source_split, "repeated", "write .repeat() before it")

    def __len__(self) -> int:
        """Return the number of batches in an epoch, 2**62 if it has no end."""
        length = source_length(self)
        if self.number is None:
            return ENDLESS if length else 0
        return min(length * self.number, ENDLESS)

    def _items_of_job(self, index: int) -> list[Any]:
        return items_at(self.source_split, *self._place(index), self.seed)

    def _place(self, job: int) -> tuple[EpochPlan, int]:
        """Return (the plan of the source for the round that ``job`` is in, its place there)."""
        plan = self._source_plan()
        round_, place = divmod(job, plan.num_steps)
        return plan._replace(epoch=plan.epoch * (self.number or 0) + round_), place

    def _source_places(self, jobs: NDArray[np.int64]) -> tuple[EpochPlan, list[int]] | None:
        found = [self._place(job) for job in jobs.tolist()]
        if len({plan.epoch for plan, _ in found}) != 1:
            return None
        return found[0][0], [place for _, place in found]

    def _arguments(self) -> tuple[Any, ...]:
        return (self.number,)

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("rounds", "without end" if self.number is None else self.number)
