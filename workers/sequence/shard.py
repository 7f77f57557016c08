"""A part of the batches of a sequence, for each process of a data-parallel training."""

from __future__ import annotations

from collections.abc import Sequence as OrderOf
from typing import Any

from workers.checks import check_choice, check_int
from workers.errors import StateError

from .base import Sequence
from .chain import makes
from .derived import SequenceDerived, job_of, jobs_of
from .indexed import check_indexed
from .position import Position


@makes("shard")
class SequenceShard(SequenceDerived):
    """Of each ``world`` consecutive batches, the one of number ``rank``. Made by :meth:`Sequence.shard`."""

    def __init__(self, source_split: Sequence, rank: int, world: int, remainder: str = "drop") -> None:
        self.world = check_int("world", world, 1)
        self.rank = check_int("rank", rank, 0)
        if self.rank >= self.world:
            raise ValueError(f"rank must be 0 to {self.world - 1}, not {self.rank}")
        self.remainder = check_choice("remainder", remainder, ("drop", "pad"))
        if not isinstance(source_split, Sequence) or source_split._stride > 1:
            raise TypeError(f"only a Sequence that is not sharded yet can be, not {type(source_split).__name__}")
        if source_split.is_stream:
            raise TypeError(f"{type(source_split).__name__} is sharded by files: give it shard=(rank, world)")
        super().__init__(source_split)
        check_indexed(
            source_split,
            "sharded (each rank would get all of them)",
            "split them where they are read, by itertools.islice(items, rank, None, world), or by shard=(rank, world) "
            "of the source",
        )
        if self._is_length_at_hand() and self._source_length() and not len(self):
            raise ValueError(
                f"{type(source_split).__name__} has {self._source_length()} batches in an epoch, so none is left for "
                f'each of {self.world} ranks: make smaller batches, or give remainder="pad"'
            )

    def __len__(self) -> int:
        """Steps in an epoch: the same for all ranks."""
        return self._num_steps(0)

    def __getitem__(self, index: int) -> Any:
        return self.source_split[self._place(index)]

    def _num_steps(self, batch: int) -> int:
        left = self._source_length() - batch
        return left // self.world if self.remainder == "drop" else -(-left // self.world)

    def _place(self, index: int) -> int:
        return (index * self.world + self.rank) % self._source_length()

    def _identity(self) -> list[Any]:
        return self.source_split._identity()  # type: ignore[no-any-return]  # all ranks are at the same place

    def _jobs(self) -> Any:
        return jobs_of(self.source_split)

    def _job_of(self, index: int, epoch: int) -> int:
        return job_of(self.source_split, self._place(index), epoch)  # so no two ranks draw the same

    def _groups(self) -> Any:
        return self.source_split._groups()

    @property
    def _stride(self) -> int:  # type: ignore[override]
        return self.world

    def _places(self, position: Position) -> OrderOf[int]:
        if position.apart or position.delivered.partial:
            raise StateError("the state was taken with in_order=False, or within a list: ranks cannot go on there")
        batch, length, steps = position.delivered.batch, self._source_length(), self._num_steps(position.delivered[0])
        mine = range(batch + self.rank, batch + steps * self.world, self.world)
        if steps and mine[-1] >= length:
            return [place % length for place in mine]
        return mine

    def _length_of_epoch(self) -> int | None:
        return self.source_split._length_of_epoch()  # type: ignore[no-any-return]

    def _is_at_end(self, batch: int) -> bool:
        return self._num_steps(min(batch, self._source_length())) == 0
