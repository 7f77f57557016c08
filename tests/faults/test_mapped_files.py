"""The file of a np.memmap goes, or is made shorter, before workers open it or while they read: the error names it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers import Sequence, WorkerDiedError, prefetch

NBYTES = 1 << 20
LENGTH = 16


class Rows(Sequence):
    """Each batch is a part of a file; the job of batch ``at`` first does something to the file."""

    def __init__(self, path: Path, at: int = -1) -> None:
        super().__init__(seed=1)
        self.path, self.at = str(path), at
        self.data: Any = np.memmap(path, np.uint8, "r", shape=(LENGTH, NBYTES // LENGTH))

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        if index == self.at:
            os.truncate(self.path, NBYTES // 2)
            return int(self.data[-1].sum())
        return int(self.data[index].sum())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data.bin"
    file.write_bytes(bytes(NBYTES))
    return file


def test_gone_before_it_is_opened(path: Path) -> None:
    rows = Rows(path)
    path.unlink()
    with prefetch(rows, 2) as batches, pytest.raises(FileNotFoundError, match=str(path)):
        list(batches)


def test_shortened_before_it_is_opened(path: Path) -> None:
    rows = Rows(path)
    os.truncate(path, 1000)
    with prefetch(rows, 2) as batches, pytest.raises(ValueError, match="too short") as raised:
        list(batches)
    assert f"{path} has 1,000 bytes now, and 1,048,576 were mapped" in str(raised.value)


def test_longer_is_as_good(path: Path) -> None:
    rows = Rows(path)
    os.truncate(path, 2 * NBYTES)
    with prefetch(rows, 2) as batches:
        assert list(batches) == [0] * LENGTH


def test_gone_while_it_is_read(path: Path) -> None:
    """What is mapped stays."""
    with prefetch(Rows(path), 1) as batches:
        assert next(batches) == 0
        path.unlink()
        assert [next(batches) for _ in range(LENGTH - 1)] == [0] * (LENGTH - 1)


def test_shortened_while_it_is_read(path: Path) -> None:
    with prefetch(Rows(path, at=0), 1, max_retries=0) as batches, pytest.raises(WorkerDiedError) as raised:
        next(batches)
    told = f"was killed by SIGBUS ({path} has 524,288 bytes now, and 1,048,576 are mapped) in batch 0 of epoch 0"
    assert told in str(raised.value)
    assert "in __getitem__" in str(raised.value)


def test_shortened_and_tried_again(path: Path) -> None:
    """The worker that takes its place cannot open it."""
    with prefetch(Rows(path, at=0), 1) as batches, pytest.raises(ValueError, match="too short"):
        list(batches)
