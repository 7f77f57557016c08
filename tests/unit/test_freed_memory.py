"""What a worker's malloc keeps: what jobs need again and again, and not what one needed once."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from workers.process import freed_memory
from workers.process.freed_memory import FreedMemory, own_nbytes

MB = 1 << 20


class Process:
    """A process whose jobs need ``need`` of memory, beyond the ``base`` that it always has."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = self.nbytes = 30 * MB
        self.times = 0  # that all was given back
        self.now_ns = 0
        self.memory = FreedMemory()
        monkeypatch.setattr(freed_memory, "own_nbytes", lambda: self.nbytes)
        monkeypatch.setattr(freed_memory, "give_back", self.give_back)

    def give_back(self) -> None:
        self.times += 1
        self.nbytes = self.base

    def job(self, need: int) -> None:
        self.nbytes = max(self.nbytes, self.base + need)
        self.now_ns += 500_000_000
        if self.memory.is_due(self.now_ns):
            self.memory.look(self.now_ns)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


@pytest.mark.parametrize("need", [1 * MB, 40 * MB, 400 * MB, 4000 * MB])
def test_what_is_needed_again_and_again_is_kept(process: Process, need: int) -> None:
    """It is given back once, to see how much that is."""
    for number in range(1000):
        process.job(need - number % 3 * need // 4)
    assert process.times <= 1


@pytest.mark.parametrize("need", [0, 40 * MB])
def test_what_was_needed_once_is_given_back(process: Process, need: int) -> None:
    for _ in range(50):
        process.job(need)
    times = process.times
    process.job(480 * MB)
    for _ in range(10):
        process.job(need)
    assert process.nbytes == process.base + need
    for _ in range(1000):
        process.job(need)
    assert process.times == times + 1


def test_what_the_process_holds_is_not_asked_for_again_and_again(process: Process) -> None:
    """Caches that grow, say."""
    for _ in range(1000):
        process.base += MB
        process.job(20 * MB)
    assert process.times < 20


def test_an_idle_process_keeps_nothing(process: Process) -> None:
    """It is told of once, and needs no time later."""
    for _ in range(3):
        process.job(40 * MB)
        times = process.times
        assert [process.memory.free_when_idle() for _ in range(3)] == [True, False, False]
        assert (process.nbytes, process.times) == (process.base, times + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_own_memory() -> None:
    before = own_nbytes()
    held = np.ones(64 * MB, np.uint8)
    assert 60 * MB < own_nbytes() - before < 80 * MB
    del held
