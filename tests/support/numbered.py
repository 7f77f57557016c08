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


class Named(Sequence[Any]):
    """Each sample is the name, its number, and what it draws."""

    def __init__(self, name: str, length: int, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.name, self.length = name, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.name, index, current_rng().random()


def named(batches: Any) -> list[tuple[str, int]]:
    return [(name, number) for name, number, _ in batches]
