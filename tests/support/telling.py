"""Sequences whose batches tell where they come from. In a module that does not import Keras, for no worker should."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from workers import Sequence, current_rng, share

LENGTH = 10


class Telling(Sequence):
    """Batch x is rows of [index, epoch, process, epochs ended, a draw]."""

    def __init__(self, length: int = LENGTH, bad: int = -1) -> None:
        super().__init__(seed=1)
        self.length = length
        self.bad = bad
        self.ended: list[int] = []
        self.begun: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if index == self.bad:
            raise KeyError(f"batch {index}")
        row = [index, self.epoch, os.getpid(), len(self.ended), current_rng().random()]
        return np.tile(np.array(row, np.float64), (2, 1)), np.zeros((2, 1), np.float32)

    def on_epoch_begin(self) -> None:
        self.begun.append(self.epoch)

    def on_epoch_end(self) -> None:
        self.ended.append(self.epoch)


def as_it_is(batch: Any) -> Any:
    return batch


def keep(x: Any, y: Any, num: int, is_warmup: bool) -> Any:
    return np.full((len(x), 5), is_warmup, np.float64), y


class Unsendable(Telling):
    """Holds what cannot go to another process."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Shared(Sequence):
    """Batch x is rows of [index, what the shared array holds]."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.shared = share(np.zeros(1))

    def __len__(self) -> int:
        return 2 * LENGTH

    def __getitem__(self, index: int) -> Any:
        return np.full((2, 2), [index, self.shared[0]]), np.zeros((2, 1), np.float32)


class SharedHooked(Shared):
    """The hook writes there how many epochs have ended."""

    def on_epoch_end(self) -> None:
        self.shared += 1
