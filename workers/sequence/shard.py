"""A part of the batches of a sequence, for each process of a data-parallel training."""

from __future__ import annotations

from typing import Any

from workers.checks import check_choice, check_index, check_int
from workers.errors import StateError
from workers.for_keras.dataset import is_called_by_keras

from .base import Sequence, SequenceDerived, _mark
from .state import Place


def check_not_sharded(source: Any) -> None:
    """Raise TypeError for what is made of a shard in between: its batches would be numbered anew."""
    while isinstance(source, SequenceDerived):
        source = source.source_split
        if isinstance(source, SequenceShard):
            raise TypeError(
                "a shard can be mapped or prefetched once: sequence.map(f).batch(n).shard(rank, world) first"
            )


class SequenceShard(SequenceDerived):
    """Of each ``world`` consecutive batches, the one of number ``rank``. Made by :meth:`Sequence.shard`."""

    def __init__(self, source_split: Sequence, rank: int, world: int, remainder: str = "drop") -> None:
        self.world = check_int("world", world, 1)
        self.rank = check_int("rank", rank, 0)
        if self.rank >= self.world:
            raise ValueError(f"rank must be 0 to {self.world - 1}, not {self.rank}")
        self.remainder = check_choice("remainder", remainder, ("drop", "pad"))
        if not isinstance(source_split, Sequence) or isinstance(source_split, SequenceShard):
            raise TypeError(f"only a Sequence that is not sharded yet can be, not {type(source_split).__name__}")
        if source_split.is_stream:
            raise TypeError(f"{type(source_split).__name__} is sharded by files: give it shard=(rank, world)")
        super().__init__(source_split)

    def __len__(self) -> int:
        """Steps in an epoch: the same for all ranks."""
        return self._steps(0)

    def _steps(self, batch: int) -> int:
        left = len(self.source_split) - batch
        return left // self.world if self.remainder == "drop" else -(-left // self.world)

    @property
    def _step(self) -> int:  # type: ignore[override]
        return self.world

    def _left(self, place: Place) -> list[int]:
        if place.apart or place.partial:
            raise StateError("the state was taken with in_order=False, or within a list: ranks cannot go on there")
        batch, length = place.batch, len(self.source_split)
        return [(batch + step * self.world + self.rank) % length for step in range(self._steps(batch))]

    def _computed(self, epoch: int, index: int) -> Any:
        return self.source_split._computed(epoch, index)  # so no two ranks draw the same

    @_mark  # not a job of its own: the source's, so that no two ranks draw the same
    def __getitem__(self, index: int) -> Any:
        index = check_index(index, self)

        def compute(index: int) -> Any:
            return self.source_split[(index * self.world + self.rank) % len(self.source_split)]

        return self._keras_batch(index, compute) if is_called_by_keras() else compute(index)

    # -- its state is that of the source: all ranks are at the same place

    def _described(self) -> list[Any]:
        found: list[Any] = self.source_split._described()
        return found

    def _length_of_epoch(self) -> int | None:
        length: int | None = self.source_split._length_of_epoch()
        return length

    def _is_at_end(self, batch: int) -> bool:
        return self._steps(min(batch, len(self.source_split))) == 0

    def batch(self, batch_size: int, discard_batch_not_full: bool = False) -> Sequence:
        """Not of a shard: ``sequence.batch(n).shard(rank, world)``."""
        raise TypeError("shard batches, not samples: sequence.batch(...).shard(rank, world)")
