"""``SequenceShard``: the part of a sequence's batches that one process of data-parallel training reads."""

from __future__ import annotations

from workers.checks import check_choice, check_int
from workers.job.task import chain_of

from .base import Sequence, plan_of
from .derived import SequenceDerived, check_indexed, source_length
from .plan import Plan

UNEQUAL_RANKS = (
    "ranks would have unequal numbers of batches, because a filter drops some of each rank's: count what it keeps, "
    "before sharding: .filter(function, count=True).shard(rank, world)"
)


class SequenceShard(SequenceDerived):
    """Every ``world``-th batch of another sequence, for one of ``world`` processes: see :meth:`Sequence.shard`."""

    def __init__(self, source_split: Sequence, rank: int, world: int, remainder: str = "drop") -> None:
        self.world = check_int("world", world, 1)
        self.rank = check_int("rank", rank, 0)
        if self.rank >= self.world:
            raise ValueError(f"rank must be 0 to {self.world - 1}, not {self.rank}")
        self.remainder = check_choice("remainder", remainder, ("drop", "pad"))
        plan, name = plan_of(source_split), type(source_split).__name__
        if not isinstance(source_split, Sequence):
            raise TypeError(f"only a Sequence can be sharded, not {name}")
        if plan.is_stream:
            raise TypeError(f"{name} is sharded by files: give it shard=(rank, world)")
        if any(getattr(each, "_is_filter", False) for each in chain_of(source_split)):
            raise TypeError(UNEQUAL_RANKS)
        super().__init__(source_split)
        check_indexed(
            name,
            plan.origin,
            "sharded (each rank would get all of them)",
            "split them where they are read, with itertools.islice(items, rank, None, world), or give the source "
            "shard=(rank, world)",
        )
        if self._is_length_at_hand() and source_length(self) and not len(self):
            raise ValueError(
                f"{name} has {source_length(self)} batches in an epoch, so none is left for each of {self.world} "
                'ranks: make smaller batches, or give remainder="pad"'
            )

    def _plan(self) -> Plan:
        return plan_of(self.source_split).sharded(self.rank, self.world, self.remainder)
