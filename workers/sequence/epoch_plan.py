"""``EpochPlan``: the plan of one epoch of a chain of sequences, i.e. its length, and which job makes each batch."""

from __future__ import annotations

from collections.abc import Sequence as OrderOf
from typing import Any, NamedTuple

import numpy as np

from workers.errors import StateError

from .order import Ordering, ordered, through
from .plan import Plan
from .position import Position


class EpochPlan(NamedTuple):
    """The plan of one epoch of a chain of sequences: which batches the epoch has, and which jobs make them.

    ``number`` is the epoch's length before it is arranged (e.g. sliced); None if it is unknown. ``seed`` is the seed of
    the last sequence of the chain, from which orders are drawn; 0 unless ``plan.needs_seed``.
    """

    plan: Plan
    epoch: int
    number: int | None
    seed: int = 0

    @property
    def length(self) -> int | None:
        """The number of batches in the epoch, of all ranks together; None if it is unknown."""
        return None if self.number is None else self.plan.num_places_of(self.number)

    def following(self) -> EpochPlan:
        """Return the plan of the next epoch, which is assumed to have the same length."""
        return self._replace(epoch=self.epoch + 1)

    @property
    def num_steps(self) -> int:
        """The number of batches that this rank has in the epoch, if each job makes one batch."""
        length = self._known_length()
        return length if self.plan.shard is None else self.plan.shard.num_steps(length)

    def place(self, index: int) -> int:
        """Return the place (number in the epoch's order) of this rank's batch ``index``."""
        shard = self.plan.shard
        return index if shard is None else shard.place(index, self._known_length())

    def places(self, position: Position) -> OrderOf[int] | None:
        """Return this rank's places (numbers in the epoch's order) left at ``position``; None if the length is unknown.

        Raises:
            StateError: a pass cannot start at this position.
        """
        length = self.length
        if length is None:
            return None
        plan, (batch, partial, _) = self.plan, position.delivered
        is_within = partial is not None and not plan.is_rebatched  # after rebatch, all ranks are within the same batch
        if plan.shard is not None and (position.apart or is_within):
            raise StateError("the state was taken with in_order=False, or within a list: ranks cannot resume there")
        if is_within and not plan.is_mapped:
            what = "a list that a function returned: only a map with that function can resume"
            raise StateError(f"the state was taken within {what}")
        if plan.shard is None:
            return position.left(length)
        places = plan.shard.places(batch, length)
        return places if partial is None else [partial[0], *places]

    def is_at_end(self, batch: int) -> bool:
        """Return True if no batches are left from place ``batch`` of the epoch on, or too few for all ranks."""
        length, shard = self.length, self.plan.shard
        if length is None or shard is None:
            return length is not None and batch >= length
        return shard.num_steps(length - min(batch, length)) == 0

    def order(self, places: OrderOf[int]) -> OrderOf[int]:
        """Return the numbers of the jobs at ``places`` (numbers in the epoch's order), computed on demand."""
        return ordered(places, self._orderings() if self.plan.arrangements else ())

    def jobs(self, places: OrderOf[int]) -> list[int]:
        """Return the numbers of the jobs at ``places`` (numbers in the epoch's order), as a list."""
        return self.take(places).tolist() if self.plan.arrangements else list(places)

    def job_at(self, place: int) -> int:
        """Return the number of the job at ``place``."""
        return self.jobs([place])[0]

    def take(self, places: Any) -> Any:
        """Return the numbers of the jobs at ``places`` (numbers in the epoch's order), as an int64 array."""
        return through(self._orderings() if self.plan.arrangements else (), np.array(places, np.int64))

    def job(self, index: int) -> int:
        """Return the number of the job that makes this rank's batch ``index``; it seeds the batch's random draws."""
        job: int = self.order([self.place(index)])[0]
        return job

    def identity_of_rank(self) -> list[int]:
        """Return [number of ranks, first place] if only this rank can load its states, i.e. after rebatch; else []."""
        shard = self.plan.shard
        if shard is None or not self.plan.is_rebatched:
            return []
        return [shard.world, *shard.places(0, self._known_length())[:1]]

    def _orderings(self) -> tuple[Ordering, ...]:
        self._known_length()
        number: int = self.number  # type: ignore[assignment]
        found: list[Ordering] = []
        for arrangement in reversed(self.plan.arrangements):
            found.append(arrangement.in_epoch(number, self.epoch, self.seed))
            number = arrangement.num_places(number)
        return tuple(reversed(found))

    def _known_length(self) -> int:
        length = self.length
        if length is None:
            raise TypeError(f"{type(self.plan.origin).__name__} has no length")
        return length
