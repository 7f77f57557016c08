"""Pipelines of which it is known what makes them slow."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import Sequence


def compute(seconds: float) -> None:
    """Have a core for so long, however many others want it."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


class Sleeping(Sequence[Any]):
    """Batches that wait for so long. ``slow``: {index: seconds} of those that wait longer."""

    def __init__(self, length: int, seconds: float = 0.0, slow: dict[int, float] | None = None) -> None:
        super().__init__(seed=1)
        self.length, self.seconds, self.slow = length, seconds, slow or {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        time.sleep(self.slow.get(index, self.seconds))
        return np.full(8, index)


class Computing(Sleeping):
    """Batches that compute for so long."""

    def __getitem__(self, index: int) -> Any:
        compute(self.slow.get(index, self.seconds))
        return np.full(8, index)


class Large(Sleeping):
    """Batches of 38.5 MB."""

    def __getitem__(self, index: int) -> Any:
        return np.full((64, 224, 224, 3), index, np.float32)


class Importing(Sleeping):
    """Batches of a module that takes long to import, in each worker."""

    def __getitem__(self, index: int) -> Any:
        import takes_long

        assert takes_long
        return super().__getitem__(index)


class SlowAugmenter:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
        compute(self.seconds)
        return x, y


def augmented(seconds: float) -> Any:
    x, y = np.zeros((100, 4)), np.arange(100) % 10
    return MultiShotMemorySampler(x, y, 5, 2, steps_per_epoch=60, augmenter=SlowAugmenter(seconds), seed=1)


class SlowLoader:
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, example: Any) -> Any:
        compute(self.seconds)
        return np.full(4, example)


def loaded(seconds: float) -> Any:
    """``seconds``: of a batch, which has 4 examples."""
    return SingleShotMemorySampler(
        np.arange(100),
        SlowAugmenter(0.0),
        class_per_batch=4,
        steps_per_epoch=60,
        load_example_fn=SlowLoader(seconds / 4),
        seed=1,
    )
