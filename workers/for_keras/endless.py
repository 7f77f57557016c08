"""A ``keras.utils.PyDataset`` without an end: its ``num_batches`` is None."""

from __future__ import annotations

import contextlib
from typing import Any

from .dataset import keras_class

ENDLESS = 2**62  # batches


class Endless:
    """Its batches, as a sequence that is never at its end."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def endless(source: Any) -> Any:
    """``source``, or what stands for it if it is a PyDataset without an end."""
    of_keras: Any = keras_class()
    if of_keras is not None and isinstance(source, of_keras):
        with contextlib.suppress(NotImplementedError, TypeError):  # it does not say
            if source.num_batches is None:
                return Endless(source)
    return source
