"""Tells type checkers that a front-end's methods such as ``.batch()`` return a front-end, not a plain sequence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from workers.sequence.derived import SequenceDerived
from workers.sequence.selection import Batch_co

if TYPE_CHECKING:
    from .sequence_map import SequenceMap


class FrontEndTypes(SequenceDerived[Batch_co]):
    """The base class of ``SequenceMap``. It tells type checkers that the inherited methods return a SequenceMap."""

    if TYPE_CHECKING:

        def batch(
            self,
            batch_size: int,
            discard_batch_not_full: bool = False,
            collate_fn: Callable[[list[Any]], Any] | None = None,
        ) -> SequenceMap[Any]: ...
        def batch_by(
            self, batch_sampler: Any, collate_fn: Callable[[list[Any]], Any] | None = None
        ) -> SequenceMap[Any]: ...
        def bucket(
            self,
            lengths: Any,
            batch_size: int | None = None,
            max_tokens: int | None = None,
            window: int | None = None,
            collate_fn: Callable[[list[Any]], Any] | None = None,
            shuffle: bool = True,
        ) -> SequenceMap[Any]: ...
        def shuffle(self, window: int | None = None) -> SequenceMap[Batch_co]: ...
        def shard(self, rank: int, world: int, remainder: Literal["drop", "pad"] = "drop") -> SequenceMap[Batch_co]: ...
        def take(self, number: int) -> SequenceMap[Batch_co]: ...
        def skip(self, number: int) -> SequenceMap[Batch_co]: ...
        def weighted(
            self, weights: Any, *, labels: Any = None, num_samples: int | None = None, replacement: bool = True
        ) -> SequenceMap[Batch_co]: ...
        def reorder(self, sampler: Any) -> SequenceMap[Batch_co]: ...
        def repeat(self, number: int | None = None) -> SequenceMap[Batch_co]: ...
        def reservoir(self, size: int, draws_per_item: int) -> SequenceMap[Batch_co]: ...
        def filter(self, function: Callable[[Any], Any], count: bool = False) -> SequenceMap[Batch_co]: ...
        def split(
            self, share: float | list[float], by: Any = None, stratify: Any = None, seed: int = 0
        ) -> tuple[SequenceMap[Batch_co], ...]: ...
