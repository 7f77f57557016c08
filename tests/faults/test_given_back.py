"""Memory that one job needed for a moment is given back, by busy workers and by idle ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import wait_for

from workers import Sequence
from workers.process import freed_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


NEEDED, LARGE = 200 << 20, 40 << 20  # bytes: within the job, and of its batch


class Greedy(Sequence[Any]):
    """Needs much memory in one job of its first epoch, and tells how much its process has."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        nbytes = 100_000
        if index == 3 and self.epoch == 0:
            np.ones(NEEDED, np.uint8)
            nbytes = LARGE
        return np.zeros(nbytes, np.uint8), os.getpid(), freed_memory.own_nbytes()


def look_often(number: int) -> None:
    freed_memory._LOOK_NS = 0


@pytest.mark.parametrize("nb_workers", [1, 2])
def test_a_busy_worker_gives_back_what_it_needed_once(nb_workers: int) -> None:
    with Greedy().prefetch(nb_workers, worker_init_fn=look_often) as batches:
        most = max(nbytes for _, _, nbytes in batches)
        later = [nbytes for _, _, nbytes in batches]
    assert max(later) < most - NEEDED // 2


def test_an_idle_worker_gives_back_what_it_keeps() -> None:
    """Also the memory for batches, at both ends."""
    with Greedy().prefetch(1) as batches:
        (pid,) = {pid for _, pid, _ in batches}
        next(iter(batches))
        wait_for(lambda: own_nbytes(pid) < NEEDED and not any(map(is_large_slot_mapped, (pid, os.getpid()))))
        assert sum(1 for _ in batches) == 40


def own_nbytes(pid: int) -> int:
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * 4096


def is_large_slot_mapped(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    spans = [line.split()[0].split("-") for line in lines if "memfd:prefetch" in line]
    return any(int(end, 16) - int(start, 16) >= LARGE for start, end in spans)
