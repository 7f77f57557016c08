"""Sequences for ``workers.check``: each one has the fault that its name says."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from workers import Sequence, current_job, current_rng

SCALE = 1.0  # tests change it in the program, and workers do not know


class Ten(Sequence):
    """Ten batches; each is what ``batch`` returns."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.data = np.random.default_rng(0).random((40, 2000))  # in shared memory, in workers
        self.num_hooks = 0

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return self.batch(index)

    def batch(self, index: int) -> Any:
        return {"x": self.data[4 * index : 4 * index + 4].copy(), "noise": current_rng().random(3)}


class Hooked(Ten):
    """Clean: its hooks change it, and its jobs open a file once."""

    def __init__(self) -> None:
        super().__init__()
        self.order = np.arange(10)
        self.file: Any = None

    def on_epoch_begin(self) -> None:
        np.random.shuffle(self.order)
        self.num_hooks += 1
        self.epoch_of_hook = self.epoch

    def batch(self, index: int) -> Any:
        return self.order[index], self.epoch_of_hook


class Numbers:
    """Clean: has only ``__iter__``."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(20))


class Lock(Ten):
    def __init__(self) -> None:
        super().__init__()
        self.parts = {"lock": threading.Lock()}


class ByUrandom(Ten):
    def noise(self) -> Any:
        return np.frombuffer(os.urandom(8), np.uint8)

    def batch(self, index: int) -> Any:
        return {"noise": self.noise()}


class BySystemRandom(Ten):
    def batch(self, index: int) -> Any:
        return random.SystemRandom().random()


class ByDefaultRng(Ten):
    def batch(self, index: int) -> Any:
        return np.random.default_rng().random(3)


class Counting(Ten):
    num_calls = 0

    def batch(self, index: int) -> Any:
        self.num_calls += 1
        return self.num_calls


class UnseededItems:
    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield os.urandom(3)


class ByPid(Ten):
    def batch(self, index: int) -> Any:
        return os.getpid()


class ByGlobal(Ten):
    def batch(self, index: int) -> Any:
        return SCALE * index + 1


class BySet(Ten):
    def batch(self, index: int) -> Any:
        return list({f"{index}{word}" for word in "abcdefghij"})


class Writing(Ten):
    def batch(self, index: int) -> Any:
        x = self.data[4 * index : 4 * index + 4]
        x *= 2
        return x


class View(Ten):
    def batch(self, index: int) -> Any:
        return self.data[4 * index : 4 * index + 4]


class Varying(Ten):
    def batch(self, index: int) -> Any:
        x = np.zeros((20 + index, 3), np.float32 if index % 2 else np.float64)
        return {"x": x, "y": np.zeros((4, index + 1), np.int8), **({"odd": "odd"} if index % 2 else {})}


class Failing(Ten):
    def batch(self, index: int) -> Any:
        return [0, 1][index]


class FailingInWorkers(Ten):
    def __init__(self) -> None:
        super().__init__()
        self.pid = os.getpid()

    def batch(self, index: int) -> Any:
        return {self.pid: index}[os.getpid()]


class Dying(FailingInWorkers):
    def batch(self, index: int) -> Any:
        return index if os.getpid() == self.pid else os._exit(1)


class LeavingFiles(Ten):
    def __init__(self) -> None:
        super().__init__()
        self.files: list[Any] = []

    def batch(self, index: int) -> Any:
        self.files.append(open(__file__))  # noqa: SIM115
        return index


class OpeningOnce(Ten):
    file: Any = None

    def __getstate__(self) -> Any:
        return {**self.__dict__, "file": None}

    def batch(self, index: int) -> Any:
        if self.file is None:
            self.file = open(__file__)  # noqa: SIM115
            job = current_job()
            if job is not None and job.worker is not None:
                threading.Thread(target=threading.Event().wait, args=(60.0,), daemon=True).start()
        return index


class Waiting(Ten):
    def batch(self, index: int) -> Any:
        time.sleep(0.02)
        return index


def scaled(x: Any) -> Any:
    return x * SCALE


def pids(x: Any) -> Iterator[int]:
    for _ in range(12):
        time.sleep(0.01)  # so that each item is sent when it is there
        yield os.getpid()


def noisy(x: Any) -> Any:
    return x + int.from_bytes(os.urandom(4), "little")
