"""A sequence whose batches tell which they are."""

from __future__ import annotations

from typing import Any

from workers import Sequence, current_rng


class Numbered(Sequence[Any]):
    """Each batch is its number, the epoch, and what it draws."""

    length = 12

    def __init__(self, seed: int | None = 1) -> None:
        super().__init__(seed=seed)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return index, self.epoch, current_rng().random()
