"""A Keras PyDataset, for pipelines. In a module of its own, as it imports Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from workers import current_rng


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    """Batches of two: (x, y)."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return index + current_rng().random((2, 2)), np.full(2, index)
