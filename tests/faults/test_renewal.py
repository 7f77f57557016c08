"""``max_worker_memory``: a worker that grows is replaced between two jobs, and no batch is lost."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
import pytest

from workers import Sequence, current_rng, prefetch
from workers.engine import renewal, watchdog

LENGTH = 400
MIB = 1 << 20


class Growing(Sequence[Any]):
    """Each job leaves memory behind; a batch is its number, what it draws, and its process."""

    left: list[Any] = []  # noqa: RUF012

    def __init__(self, nbytes: int) -> None:
        super().__init__(seed=1)
        self.nbytes = nbytes

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        self.left.append(np.ones(self.nbytes, np.uint8))
        return index, current_rng().random(), os.getpid()


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal, "_LOOK_S", 0.0)
    monkeypatch.setattr(watchdog, "TICK_S", 0.01)


@pytest.mark.parametrize("nb_workers", [1, 2])
def test_a_worker_that_grows_is_replaced(nb_workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)
    expected = [batch[:2] for batch in Growing(1)]
    with prefetch(Growing(2 * MIB), nb_workers, max_worker_memory=400 * MIB) as batches:
        pids = set()
        for _ in range(3):
            found = list(batches)
            pids |= {pid for *_, pid in found}
            assert [index for index, *_ in found] == list(range(LENGTH))
            assert [each[:2] for each in found] == expected or found[0][1] != expected[0][1]
        assert len(pids) > nb_workers
        assert not any(worker.restarts for worker in batches.report().workers)  # none has died


def test_a_limit_that_cannot_be_kept(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is no endless renewal: the log says it once."""
    look_often(monkeypatch)
    caplog.set_level(logging.INFO, "workers")
    with prefetch(Growing(MIB), 1, max_worker_memory=MIB) as batches:
        assert len({pid for *_, pid in batches}) == 1
    told = [record.message for record in caplog.records if "max_worker_memory" in record.message]
    assert len(told) == 1
    assert "from the start, so max_worker_memory=1.05 MB cannot be kept" in told[0]


@pytest.mark.parametrize(("options", "nb_workers"), [({"executor": "thread"}, 2), ({}, 0), ({}, "auto")])
def test_without_processes_it_does_nothing(options: dict[str, Any], nb_workers: Any) -> None:
    with prefetch(Growing(1), nb_workers, max_worker_memory=MIB, **options) as batches:
        assert [index for index, *_ in batches] == list(range(LENGTH))


def test_wrong_limits() -> None:
    for wrong in (0, 1000, 1.5, "1 GB"):
        with pytest.raises((TypeError, ValueError), match="max_worker_memory must be None or a number of bytes"):
            prefetch(Growing(1), 0, max_worker_memory=wrong)  # type: ignore[arg-type]
