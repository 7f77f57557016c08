"""on_error as a function, and max_retries."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import wait_for

from workers import Sequence, SequenceMap, WorkerDiedError, current_job, current_rng, prefetch


class Fails(Sequence):
    """Batch 3 fails as often as it is told to."""

    def __init__(self, times: int, way: str = "raise") -> None:
        super().__init__(seed=1)
        self.times = times
        self.way = way

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        assert job is not None
        if index == 3 and job.attempt < self.times:
            if self.way == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(f"attempt {job.attempt}")
        return np.array([index, current_rng().integers(1000)])


def fails_once(batch: Any) -> Any:
    job = current_job()
    if job is not None and job.index == 3 and job.attempt == 0:
        raise OSError("once")
    return batch


def rest(batches: SequenceMap) -> Iterator[Any]:
    """What is left of the pass: a new loop would begin the next one."""
    while True:
        try:
            yield next(batches)
        except StopIteration:
            return


EXECUTORS = [(0, "process"), (2, "process"), (2, "thread")]


@pytest.mark.parametrize(("workers", "executor"), EXECUTORS)
@pytest.mark.parametrize("max_retries", [0, 1, 2, 5])
def test_retry(workers: int, executor: str, max_retries: int) -> None:
    """The batch is at its place, of the same numbers; or the last error is."""
    told: list[str] = []

    def on_error(error: BaseException) -> str:
        told.append(str(error))
        return "retry"

    expected = [batch.tolist() for batch in Fails(0)]
    options: dict[str, Any] = {"executor": executor, "on_error": on_error, "max_retries": max_retries}
    with prefetch(Fails(2), workers, **options) as batches:
        for _ in range(2):
            told.clear()
            batches.epoch = 0
            iter(batches)
            found = [next(batches).tolist() for _ in range(3)]
            if max_retries < 2:
                with pytest.raises(OSError, match=f"attempt {max_retries}"):
                    next(batches)
                found.append(expected[3])
            found += [batch.tolist() for batch in rest(batches)]
            assert found == expected
            assert told == [f"attempt {number}" for number in range(min(2, max_retries + 1))]


@pytest.mark.parametrize("in_order", [True, False])
def test_skip_and_raise(in_order: bool) -> None:
    answers = {"attempt 0": "retry", "attempt 1": "skip"}
    with prefetch(Fails(9), 2, on_error=lambda error: answers[str(error)], in_order=in_order) as batches:
        assert sorted(batch[0] for batch in batches) == [0, 1, 2, 4, 5, 6, 7]
        answers["attempt 1"] = "raise"
        with pytest.raises(OSError, match="attempt 1"):
            list(batches)
        answers["attempt 0"] = "again"
        with pytest.raises(ValueError, match="on_error must return 'raise', 'skip' or 'retry', not 'again'"):
            list(batches)


def test_deaths_and_retries_count_together() -> None:
    """And no two runs have the same number."""
    told: list[str] = []

    def on_error(error: BaseException) -> str:
        told.append(str(error))
        return "retry"

    class DiesFirst(Fails):
        def __getitem__(self, index: int) -> Any:
            job = current_job()
            assert job is not None
            self.way = "kill" if job.attempt in (0, 3) else "raise"
            return super().__getitem__(index)

    for max_retries in (4, 3, 2):
        told.clear()
        with prefetch(DiesFirst(4), 2, max_retries=max_retries, on_error=on_error) as batches:
            iter(batches)
            for _ in range(3):
                next(batches)
            if max_retries == 4:
                assert next(batches)[0] == 3
                assert told == ["attempt 1", "attempt 2"]
            else:
                with pytest.raises(WorkerDiedError if max_retries == 3 else OSError) as raised:
                    next(batches)
                assert told == ["attempt 1", "attempt 2", str(raised.value)][: max_retries - 3 or None]
            assert len(list(rest(batches))) == 4


@pytest.mark.parametrize(("workers", "executor"), EXECUTORS)
def test_ctrl_c_while_it_is_tried_again(workers: int, executor: str, tmp_path: Path) -> None:
    """The batch comes when it is asked for again, and was not counted before."""

    def waits(batch: Any) -> Any:
        job = current_job()
        assert job is not None
        if job.index == 3 and job.attempt == 0:
            raise OSError("attempt 0")
        if job.index == 3 and not (tmp_path / "waits").exists():
            (tmp_path / "waits").touch()
            time.sleep(0.5)
        return batch

    def interrupt() -> None:
        wait_for((tmp_path / "waits").exists)
        os.kill(os.getpid(), signal.SIGINT)

    batches = Fails(0).map(waits, workers, executor=executor, on_error=lambda error: "retry")
    with batches:
        iter(batches)
        for _ in range(3):
            next(batches)
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            next(batches)
        thread.join()
        assert batches.state_dict()["batch"] == 3
        assert [batch[0] for batch in rest(batches)] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("workers", [0, 2])
def test_of_a_source_without_indices(workers: int) -> None:
    """What the job works on is kept until it succeeds."""
    items = [np.full(100_000, number) for number in range(8)]

    class Stream:
        def __iter__(self) -> Any:
            return iter(items)

    with SequenceMap(Stream(), workers, fails_once, on_error=lambda error: "retry") as batches:
        for _ in range(2):
            assert [int(batch[0]) for batch in batches] == list(range(8))


@pytest.mark.parametrize("max_retries", [0, 1, 3])
def test_deaths(max_retries: int) -> None:
    """max_retries counts these too."""
    with prefetch(Fails(max_retries, "kill"), 2, max_retries=max_retries) as batches:
        assert len(list(batches)) == 8
    with prefetch(Fails(max_retries + 1, "kill"), 2, max_retries=max_retries) as batches:
        iter(batches)
        for _ in range(3):
            next(batches)
        with pytest.raises(WorkerDiedError, match="SIGKILL"):
            next(batches)
        assert len(list(rest(batches))) == 4
