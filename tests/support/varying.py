"""Batches of varying sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers import Sequence, current_rng

SIZES = [5, 0, 12, 1, 3, 30, 2, 0, 4]  # of the batches of an epoch
TOTAL = sum(SIZES)


class Varying(Sequence):
    """Batches of SIZES samples: their numbers, draws, and names; the epoch goes with each part."""

    def __init__(self, sizes: list[int] | None = None) -> None:
        super().__init__(seed=1)
        self.sizes = SIZES if sizes is None else sizes

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Any:
        start, size = sum(self.sizes[:index]), self.sizes[index]
        numbers = np.arange(start, start + size)
        names = [f"n{number}" for number in numbers.tolist()]
        return {"x": numbers, "pair": (current_rng().random((size, 2)), names), "epoch": self.epoch}


def same(batch: Any) -> Any:
    return batch


def told(batch: Any) -> Any:
    """A batch as plain lists."""
    if isinstance(batch, dict):
        return {name: told(part) for name, part in batch.items()}
    if isinstance(batch, (tuple, list)):
        return [told(part) for part in batch]
    return batch.tolist() if isinstance(batch, (np.ndarray, np.generic)) else batch
