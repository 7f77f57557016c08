"""A machine with little memory for batches: as much as is told, less what all slots of a program really take."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

from workers import Sequence, current_job, empty
from workers.batch import memory_limit

MB = 1 << 20
NBYTES = 16 * MB  # of a batch: from here on memory is asked for


def taken_nbytes(consumer: int) -> int:
    """What the shared memory of a program takes: in it, its server and its workers, each piece once."""
    pieces: dict[str, int] = {}  # {inode: bytes}
    process = psutil.Process(consumer)
    for pid in [consumer, *[child.pid for child in process.children(recursive=True)]]:
        try:
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
        except OSError:  # it has just ended
            continue
        for line in lines:
            if "/memfd:prefetch" in line:
                start, end = (int(each, 16) for each in line.split()[0].split("-"))
                pieces[line.split()[4]] = end - start
    return sum(nbytes for nbytes in pieces.values() if nbytes >= NBYTES)


def limit(nbytes: int, consumer: int) -> None:
    """Have this process believe that so much is left for the batches of ``consumer``."""
    memory_limit.available_nbytes = lambda *_: nbytes - taken_nbytes(consumer)  # type: ignore[assignment]


class Large(Sequence[np.ndarray]):
    """Batches of 16 MB, ``enormous`` ones of 128, that say which they are. Each run of a job is noted in a file."""

    def __init__(self, folder: Path, length: int = 20, enormous: tuple[int, ...] = ()) -> None:
        super().__init__(seed=1)
        self.folder, self.length, self.enormous = folder, length, enormous
        self.hook: Callable[[int], None] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> np.ndarray:
        job = current_job()
        assert job is not None
        with open(self.folder / f"{job.epoch}-{index}", "a") as file:
            file.write("x")
        if self.hook is not None:
            self.hook(index)
        nbytes = 8 * NBYTES if index in self.enormous else NBYTES
        return np.full(nbytes // 8, 1000 * job.epoch + index, np.int64)

    def runs(self, epoch: int = 0) -> int:
        """How often jobs of that epoch were begun, in all."""
        return sum(len(file.read_text()) for file in self.folder.glob(f"{epoch}-*"))


class Growing(Sequence[np.ndarray]):
    """Six batches of 16 MB, six of 32, and so on."""

    def __init__(self) -> None:
        super().__init__(seed=1)

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full((1 + index // 6) * NBYTES // 8, index, np.int64)


class Pieces(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Batches in two pieces of shared memory."""

    def __init__(self) -> None:
        super().__init__(seed=1)

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        one, other = (empty(NBYTES // 8, np.int64) for _ in range(2))
        one[:] = other[:] = index
        return one, other


class Limit:
    """``worker_init_fn``: the same limit in each worker of this process."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.consumer = nbytes, os.getpid()

    def __call__(self, worker: int) -> None:
        limit(self.nbytes, self.consumer)
