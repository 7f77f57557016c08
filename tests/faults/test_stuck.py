"""Jobs that do not end, and consumers that hold on: nobody waits for them, and nobody is overrun."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import LENGTH, PATIENCE_S, Faulty, read, same, undisturbed, wait_for, worker_processes

from workers import ClosedError, JobTimeoutError, Sequence, SequenceMap, current_job, prefetch

EXECUTORS = ["process", "thread"]


class Waiting(Sequence):
    """A file in ``folder`` tells of each job that began; some wait for the file ``go``, in the first ``epochs``."""

    def __init__(
        self, folder: Path, length: int = LENGTH, waits: int | None = None, attempts: int = 99, epochs: int = 1
    ) -> None:
        super().__init__(seed=1)
        self.folder, self.length, self.waits, self.attempts, self.epochs = folder, length, waits, attempts, epochs

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        assert job is not None
        (self.folder / f"{job.epoch}.{index}.{job.attempt}").touch()
        if index == self.waits and job.attempt < self.attempts and job.epoch < self.epochs:
            self.wait_here()
        return index, job.epoch

    def wait_here(self) -> None:
        while not (self.folder / "go").exists():
            time.sleep(0.002)

    def begun(self) -> set[tuple[int, int]]:
        names = [path.name.split(".") for path in self.folder.glob("*.*.*")]
        return {(int(epoch), int(index)) for epoch, index, _ in names}

    def go(self) -> None:
        (self.folder / "go").touch()


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("stuck", [0, 5])
def test_a_slow_job_delays_nobody(tmp_path: Path, executor: str, stuck: int) -> None:
    """While one job waits, all others of the epoch arrive (in_order=False); then it does, too."""
    source = Waiting(tmp_path, waits=stuck)
    with prefetch(source, 2, max_queue_size=8, executor=executor, in_order=False) as batches:
        iterator = iter(batches)
        got = [next(iterator)[0] for _ in range(LENGTH - 1)]
        assert sorted(got) == [index for index in range(LENGTH) if index != stuck]
        source.go()
        assert [batch[0] for batch in list_of_rest(batches)] == [stuck]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_slow_job_delays_nobody_within_the_bound(tmp_path: Path, executor: str) -> None:
    """In order, too: all that may be in work ahead of the consumer are begun, and not one more."""
    source = Waiting(tmp_path, waits=0)
    with prefetch(source, 2, max_queue_size=8, executor=executor) as batches:
        iterator = iter(batches)
        wait_for(lambda: len(source.begun()) >= 8)
        source.go()
        got = [batch[0] for batch in [next(iterator), *list_of_rest(batches)]]
        assert got == list(range(LENGTH))


def list_of_rest(batches: SequenceMap) -> list[Any]:
    """What is left of the pass (``list(batches)`` would begin a new one)."""
    rest = []
    while True:
        try:
            rest.append(next(batches))
        except StopIteration:
            return rest


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("max_queue_size", [1, 3, 8])
def test_bound(tmp_path: Path, executor: str, max_queue_size: int) -> None:
    """Never more than max_queue_size batches are begun ahead of the consumer, of this epoch and the next."""
    source = Waiting(tmp_path)
    taken = 0
    with prefetch(source, 2, max_queue_size=max_queue_size, executor=executor) as batches:
        for _ in range(2):
            for _ in batches:
                taken += 1
                assert len(source.begun()) <= taken + max_queue_size
                if taken % 8 == 0:  # so far they get if one waits
                    most = taken + max_queue_size
                    if executor == "thread":  # on the user's own objects nothing is done for the next epoch
                        most = min(most, -(-taken // LENGTH) * LENGTH)
                    wait_for(lambda most=most: len(source.begun()) >= most)
                    assert len(source.begun()) <= taken + max_queue_size
    assert taken == 2 * LENGTH


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_stuck_job_is_reported(tmp_path: Path, executor: str, caplog: pytest.LogCaptureFixture) -> None:
    """With its place and its Python stack; then it is waited for."""
    source = Waiting(tmp_path, length=8, waits=3)
    with SequenceMap(source, 2, debug_job_report_timeout=0.2, executor=executor) as batches:
        iterator = iter(batches)
        wait_for(lambda: "wait_here" in caplog.text)
        report = next(record for record in caplog.records if "wait_here" in record.getMessage())
        assert report.name == "workers"
        assert report.levelno == logging.WARNING
        assert "batch 3 of epoch 0" in report.getMessage()
        source.go()
        assert [index for index, _ in [next(iterator), *list_of_rest(batches)]] == list(range(8))


class Loading(Waiting):
    """Its loading waits, not its batches."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        wait_for((self.folder / "loads").exists)


def test_a_stuck_load_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a job is."""
    with SequenceMap(Loading(tmp_path, length=4), 2, debug_job_report_timeout=0.2) as batches:
        iter(batches)
        wait_for(lambda: "__setstate__" in caplog.text)
        report = next(record for record in caplog.records if "__setstate__" in record.getMessage())
        assert "has been in the loading of the sequence for" in report.getMessage()
        (tmp_path / "loads").touch()
        assert [index for index, _ in list_of_rest(batches)] == list(range(4))


def pids(count: int) -> set[int]:
    wait_for(lambda: len(worker_processes()) == count)
    return {process.pid for process in worker_processes()}


def test_a_job_that_outlasts_job_timeout_is_run_again(tmp_path: Path) -> None:
    """In another worker; all batches arrive."""
    source = Waiting(tmp_path, length=12, waits=3, attempts=1)
    with prefetch(source, 2, job_timeout=0.2) as batches:
        doomed = pids(2)
        assert [index for index, _ in batches] == list(range(12))
        assert (tmp_path / "0.3.1").exists()
        assert not doomed <= {process.pid for process in worker_processes()}


def test_a_job_that_always_outlasts_job_timeout_raises_at_its_place(tmp_path: Path) -> None:
    """After three attempts, with its stack; the rest goes on."""
    source = Waiting(tmp_path, length=12, waits=3, epochs=9)
    with prefetch(source, 2, job_timeout=0.2) as batches:
        for epoch in range(2):
            got = read(batches)
            assert isinstance(got[3], JobTimeoutError)
            for part in (f"batch 3 of epoch {epoch}", "3 attempts", "job_timeout = 0.2 s", "wait_here"):
                assert part in str(got[3])
            assert [batch[0] for batch in got[:3] + got[4:]] == [0, 1, 2, *range(4, 12)]


def test_job_timeout_spares_jobs_that_are_only_many(tmp_path: Path) -> None:
    """It is of one job, not of all in a message or an epoch, nor of a worker's idle time."""
    with prefetch(Waiting(tmp_path), 2, job_timeout=0.3) as batches:
        doomed = pids(2)
        for index, _ in batches:  # noqa: B007
            time.sleep(0.02)  # longer than job_timeout in all
        assert index == LENGTH - 1
        assert doomed == {process.pid for process in worker_processes()}


def test_a_stuck_job_does_not_hold_up_break(tmp_path: Path) -> None:
    """The next epoch is whole, though a job of the left one still waits."""
    source = Waiting(tmp_path, waits=2)
    with prefetch(source, 2) as batches:
        next(iter(batches))
        wait_for(lambda: (0, 2) in source.begun())
        assert list(batches) == [(index, 1) for index in range(LENGTH)]
        source.go()
        assert list(batches) == [(index, 2) for index in range(LENGTH)]


def test_holding_all_batches() -> None:
    """Of several epochs, with a bound of 2: nothing waits for them, and their bytes stay as they were."""
    expected = undisturbed(4)
    with Faulty().prefetch(nb_workers=2, max_queue_size=2) as batches:
        held = [list(batches) for _ in range(4)]
        for process in worker_processes():  # whose memory they lie in
            process.kill()
        assert list(map(len, held)) == [LENGTH] * 4
        list(batches)
        for got, wanted in zip(held, expected, strict=True):
            assert all(map(same, got, wanted))
    for got, wanted in zip(held, expected, strict=True):
        assert all(map(same, got, wanted))


def test_descriptors_stay_as_few_in_the_workers() -> None:
    """However many slots they have made."""
    with Faulty().prefetch(nb_workers=2) as batches:
        held = [list(batches)]
        wait_for(lambda: not batches.has_background_jobs())
        before = [process.num_fds() for process in worker_processes()]
        held += [list(batches) for _ in range(3)]
        wait_for(lambda: max(process.num_fds() for process in worker_processes()) <= max(before))


def test_what_the_consumer_writes_into_a_batch_shows_in_no_other() -> None:
    with Faulty().prefetch(nb_workers=2, max_queue_size=4) as batches:
        for expected in undisturbed(3):
            for got, wanted in zip(batches, expected, strict=True):
                assert same(got, wanted)
                got[2][:] = np.nan


@pytest.mark.parametrize("executor", EXECUTORS)
def test_close_while_another_thread_waits_for_a_batch(tmp_path: Path, executor: str) -> None:
    """It gets a ClosedError, soon."""
    source = Waiting(tmp_path, waits=0)
    batches = prefetch(source, 2, executor=executor)
    raised: list[BaseException] = []

    def consume() -> None:
        try:
            next(iter(batches))
        except ClosedError as error:
            raised.append(error)

    thread = threading.Thread(target=consume)
    thread.start()
    wait_for(source.begun)
    if executor == "thread":
        threading.Timer(0.1, source.go).start()  # a job in a thread cannot be ended
    batches.close()
    thread.join(PATIENCE_S)
    assert raised


def test_a_closed_front_end_holds_no_descriptor() -> None:
    """Though somebody holds the front-end, or its last batch."""
    before = os.listdir("/proc/self/fd")
    batches = Faulty().prefetch(nb_workers=2)
    last = list(batches)[-1]
    batches.close()
    assert len(os.listdir("/proc/self/fd")) == len(before)
    assert last[0] == LENGTH - 1


@pytest.mark.parametrize("executor", EXECUTORS)
def test_close_may_be_repeated(executor: str) -> None:
    batches = Faulty().prefetch(nb_workers=2, executor=executor)
    next(iter(batches))
    threads = [threading.Thread(target=batches.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    batches.close()
    with pytest.raises(ClosedError):
        next(batches)
