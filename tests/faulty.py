"""Sequences whose jobs go wrong in every way there is, for the tests of faults."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from typing import Any

import numpy as np

from workers import Sequence, current_job, current_rng

LENGTH = 40
AT = 17  # where it goes wrong


class ThreeArguments(Exception):
    def __init__(self, one: int, two: int, three: int) -> None:
        super().__init__(f"{one} {two} {three}")
        self.one = one


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__("holds a lock")
        import threading

        self.lock = threading.Lock()


class KillsWhenPickled:
    """A part of a batch that ends the worker while its result is written."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


def die(how: str) -> Any:
    """Go wrong."""
    if how.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(60)
    elif how == "_exit":
        os._exit(3)
    elif how == "segfault":
        ctypes.string_at(0)
    elif how == "close descriptors":
        os.closerange(3, 256)
    elif how == "while writing":
        return KillsWhenPickled()
    elif how == "ValueError":
        raise ValueError("wrong")
    elif how == "three arguments":
        raise ThreeArguments(1, 2, 3)
    elif how == "unpicklable":
        raise Unpicklable
    elif how == "StopIteration":
        raise StopIteration
    elif how == "sys.exit":
        sys.exit(4)
    elif how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    return None


class Faulty(Sequence):
    """Random batches, small and large in turn; batch ``AT`` goes wrong ``how`` in its first ``times`` attempts."""

    def __init__(self, how: str, times: int = 1, seed: int = 1) -> None:
        super().__init__(seed=seed)
        self.how, self.times = how, times

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        assert job is not None
        part = die(self.how) if index == AT and job.attempt < self.times and self.how else None
        size = 40_000 if index % 2 else 40
        return index, job.epoch, current_rng().random(size), np.random.random(3), part


def same(one: Any, other: Any) -> bool:
    return one[:2] == other[:2] and all(np.array_equal(a, b) for a, b in zip(one[2:4], other[2:4], strict=True))
