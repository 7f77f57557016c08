"""``worker_init_fn``: once in each worker, before its first job."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

from workers import JobError, Sequence, SequenceMap, WorkerStartError, current_job, prefetch

LENGTH = 40

inits: list[Any] = []  # of this process: what init() was called with


class Telling(Sequence):
    """Each batch: who computes it, and what was made of init() there."""

    def __init__(self, killed_at: int = -1) -> None:
        super().__init__(seed=1)
        self.killed_at = killed_at

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        job = current_job()
        assert job is not None
        if index == self.killed_at and job.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid(), threading.get_ident(), job.worker, inits


def init(worker: int) -> None:
    inits.append((worker, threading.get_ident()))


@pytest.fixture(autouse=True)
def none_yet() -> None:
    inits.clear()


@pytest.mark.parametrize("killed_at", [-1, 5])
def test_once_in_each_process(killed_at: int) -> None:
    """Also in the one that takes the place of one that was killed; and not again when the sequence has changed."""
    seq = Telling(killed_at)
    with seq.prefetch(nb_workers=2, worker_init_fn=init) as batches:
        for _ in range(3):
            for pid, _, worker, found in batches:
                assert pid != os.getpid()
                assert [number for number, _ in found] == [worker]
            seq.changed()
            seq.killed_at = -1
    assert not inits


def test_once_in_each_thread() -> None:
    with Telling().prefetch(nb_workers=2, executor="thread", worker_init_fn=init) as batches:
        for _ in range(2):
            for pid, thread, worker, _ in batches:
                assert pid == os.getpid()
                assert inits.count((worker, thread)) == 1
    assert len(inits) <= 2


def test_once_in_this_process() -> None:
    with Telling().prefetch(nb_workers=0, worker_init_fn=init) as batches:
        assert not inits
        for _ in range(2):
            assert len(list(batches)) == LENGTH
    assert inits == [(0, threading.get_ident())]


def test_what_is_made_of_it_has_it_too() -> None:
    def look(batch: tuple[Any, ...]) -> Any:
        return np.array(len(batch[3]))

    of = Telling().prefetch(nb_workers=1, worker_init_fn=init)
    with of.map(look) as mapped, mapped.batch(4) as batches:
        assert [batch.tolist() for batch in batches] == [[1] * 4] * (LENGTH // 4)
    with of.map(look, worker_init_fn=lambda worker: None) as mapped:
        assert {int(each) for each in mapped} == {0}
    of.close()


class Mine(Exception):
    pass


def fails(worker: int) -> None:
    inits.append(worker)
    raise Mine(f"no registry for worker {worker}")


def ends(worker: int) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("nb_workers", "executor"), [(0, "process"), (2, "process"), (2, "thread")], ids=["here", "processes", "threads"]
)
@pytest.mark.parametrize(("function", "kind"), [(fails, Mine), (ends, JobError)])
def test_what_it_raises(nb_workers: int, executor: str, function: Any, kind: type[BaseException]) -> None:
    """Ends the loop, as what it is; the front-end is then of no use any more."""
    with Telling().prefetch(nb_workers=nb_workers, executor=executor, worker_init_fn=function) as batches:
        for _ in range(2):
            with pytest.raises(kind) as raised:
                list(batches)
        assert inits in ([], [0], [0, 1], [1, 0])  # of processes none is seen here
        error: BaseException | None = raised.value
        notes = []
        while error is not None:
            notes += [*getattr(error, "__notes__", ()), *str(error).splitlines()]
            error = error.__cause__
        assert any("raised in worker_init_fn(" in note for note in notes)


def test_it_kills_its_worker() -> None:
    """Not again and again."""
    with (
        prefetch(list(range(10)), 1, worker_init_fn=lambda worker: os._exit(7)) as batches,
        pytest.raises(WorkerStartError, match="7"),
    ):
        list(batches)


@pytest.mark.parametrize("make", [lambda **options: SequenceMap([1], 0, **options), lambda **o: prefetch([1], 0, **o)])
def test_no_function(make: Any) -> None:
    with pytest.raises(TypeError, match="worker_init_fn must be a function or None, not 3"):
        make(worker_init_fn=3)
