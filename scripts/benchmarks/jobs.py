"""The jobs: datasets whose batch ``index`` is computed from scratch, plain enough for every loader.

Each has ``__len__`` and ``__getitem__``, the common part of a torch Dataset, a Keras PyDataset, a Grain source and a
list. Each batch carries its index, which reveals a loader that loses, repeats or swaps batches.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

LARGE = (64, 224, 224, 3)  # 38.5 MB of float32
QUARTER = (16, 224, 224, 3)  # 9.6 MB
TINY = (1024,)  # 4 KB
HELD_NBYTES = 400_000_000


class Job:
    """A dataset of ``length`` batches; ``[i]`` is batch ``i``."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        """Return batch ``index``."""
        raise NotImplementedError

    def index_in(self, batch: Any) -> int:
        """Return the index that a delivered batch carries, read from one element, for batches of any array type."""
        raise NotImplementedError


class CpuHeavy(Job):
    """16 images of 48 x 48 x 3: noise on all, half of them rotated, zoomed, shifted or blurred; 5 ms of scipy."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        importlib.import_module("scipy.ndimage")  # in the consumer too, as at the top of a user's script
        self.images = np.random.default_rng(0).random((16, 48, 48, 3), np.float32)

    def __getitem__(self, index: int) -> Float32:
        from scipy import ndimage  # each worker must import it before its first batch

        rng = np.random.default_rng(index)
        batch = self.images + 0.05 * rng.standard_normal(self.images.shape, np.float32)
        for i in range(0, 16, 8):
            batch[i] = ndimage.rotate(batch[i], rng.uniform(-20, 20), reshape=False, order=1)
            batch[i + 1] = ndimage.zoom(batch[i + 1], (*rng.uniform(1, 1.2, 2), 1), order=1)[:48, :48]
            batch[i + 2] = ndimage.shift(batch[i + 2], (*rng.uniform(-3, 3, 2), 0), order=1)
            batch[i + 3] = ndimage.gaussian_filter(batch[i + 3], (1, 1, 0))
        batch[0, 0, 0, 0] = index
        return batch

    def index_in(self, batch: Any) -> int:
        return int(batch[0, 0, 0, 0])


class Large(Job):
    """A fresh float32 array of 38.5 MB, filled with the index."""

    shape: tuple[int, ...] = LARGE

    def __getitem__(self, index: int) -> Float32:
        return np.full(self.shape, index, np.float32)

    def index_in(self, batch: Any) -> int:
        return int(batch[0, 0, 0, 0])


class Quarter(Large):
    """The same with 9.6 MB. A cost that does not depend on the size is the same for both."""

    shape = QUARTER


class LargeEmpty(Large):
    """The same with 38.5 MB, written into ``workers.empty``."""

    def __getitem__(self, index: int) -> Float32:
        # By name, so that the processes of peers load our package only if the job needs it.
        batch: Float32 = importlib.import_module("workers").empty(self.shape, np.float32)
        batch.fill(index)
        return batch


class Sized(Job):
    """A float32 array of ``nbytes``, filled with the index: a fresh array, or one of ``workers.empty``."""

    def __init__(self, length: int, nbytes: int, is_empty: bool = False) -> None:
        super().__init__(length)
        self.nbytes = nbytes
        self.is_empty = is_empty

    def __getitem__(self, index: int) -> Float32:
        if not self.is_empty:
            return np.full(self.nbytes // 4, index, np.float32)
        batch: Float32 = importlib.import_module("workers").empty(self.nbytes // 4, np.float32)
        batch.fill(index)
        return batch

    def index_in(self, batch: Any) -> int:
        return int(batch[0])


class Busy(Job):
    """``ms`` of plain Python, and an array of 4 KB. The number of steps is calibrated once."""

    def __init__(self, length: int, ms: float) -> None:
        super().__init__(length)
        start, steps = time.perf_counter(), 20_000
        self._work(steps)
        self.steps = max(1, int(steps * ms / 1e3 / (time.perf_counter() - start)))

    @staticmethod
    def _work(steps: int) -> float:
        total = 1.0
        for _ in range(steps):
            total = total * 1.0000001 + 1e-9
        return total

    def __getitem__(self, index: int) -> Float32:
        self._work(self.steps)
        return np.full(TINY, index, np.float32)

    def index_in(self, batch: Any) -> int:
        return int(batch[0])


class Tiny(Job):
    """4 KB of float32 and a label. Nearly all the time is spent in the loader."""

    def __getitem__(self, index: int) -> tuple[Float32, int]:
        return np.full(TINY, index, np.float32), index % 10

    def index_in(self, batch: Any) -> int:
        x, y = batch
        index = int(x[0])
        if int(y) != index % 10:
            raise ValueError(f"batch {index} came with label {int(y)}, not {index % 10}")
        return index


class Holding(Job):
    """A dataset that holds an array of 400 MB. Each batch reads an equal part of it."""

    def __init__(self, length: int) -> None:
        super().__init__(length)
        self.held = np.full(HELD_NBYTES // 4, 1, np.float32)

    def __getitem__(self, index: int) -> Float32:
        part = len(self.held) // len(self)
        total = self.held[index * part : (index + 1) * part].sum()
        if total != part:
            raise ValueError(f"part {index} of the array adds up to {total}, not {part}")
        return np.full(TINY, index, np.float32)

    def index_in(self, batch: Any) -> int:
        return int(batch[0])
