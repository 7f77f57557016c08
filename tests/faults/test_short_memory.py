"""Batches that do not fit into memory now wait for the loop to let go of others; those that never fit are errors."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from faulty import servers, wait_for, worker_processes
from short_memory import NBYTES, Growing, Large, Limit, Pieces, limit, taken_nbytes

from workers import SequenceMap, prefetch
from workers.batch import memory_limit
from workers.engine import explanations, idle_shutdown, memory_pressure


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: have room for so many batches, here and in workers that are given what it returns."""

    def leave(num_batches: int) -> Limit:
        nbytes = num_batches * NBYTES + NBYTES // 2
        monkeypatch.setattr(memory_limit, "available_nbytes", memory_limit.available_nbytes)
        limit(nbytes, os.getpid())
        for module in (explanations, memory_pressure):
            monkeypatch.setattr(module, "available_nbytes", memory_limit.available_nbytes)
        return Limit(nbytes)

    return leave


def check(batch: np.ndarray, index: int, epoch: int = 0) -> None:
    assert batch[0] == batch[-1] == 1000 * epoch + index
    assert batch.nbytes in (NBYTES, 8 * NBYTES)


@pytest.mark.parametrize(("room", "kept"), [(2, 1), (4, 3), (5, 2)])
@pytest.mark.parametrize("options", [{}, {"max_queue_size": 12}, {"nb_workers": 3}, {"in_order": False}], ids=str)
def test_more_ahead_than_fits(
    room: int, kept: int, options: dict[str, Any], little: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each batch comes once, right and in its place, as long as one fits beside those that the loop holds."""
    options = {"nb_workers": 2, **options}
    with prefetch(Large(tmp_path), worker_init_fn=little(room), **options) as batches:
        for epoch in range(2):
            found = []
            held: list[np.ndarray] = []
            for batch in batches:
                found.append(int(batch[0]) - 1000 * epoch)
                check(batch, found[-1], epoch)
                held = [*held, batch][-kept:] if kept > 1 else []
                for each in held:
                    assert each[0] == each[-1]
            del batch, held
            assert found == list(range(20)) if options.get("in_order", True) else sorted(found) == list(range(20))
    assert len([1 for record in caplog.records if "does not fit into memory now" in record.message]) == 1


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("in_order", [True, False])
def test_batches_that_the_loop_lets_go_of_together(
    in_order: bool, is_known: bool, little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop is not told of an error before it waits: until then it may let go of what it holds. Also where only the
    workers are limited, and this process does not know."""
    few = little(4)
    if not is_known:
        monkeypatch.setattr(memory_pressure, "available_nbytes", lambda: None)
    with prefetch(Large(tmp_path), 2, worker_init_fn=few, in_order=in_order) as batches:
        held: list[np.ndarray] = []
        found = []
        for batch in batches:
            held.append(batch)
            del batch
            if len(held) == 3:
                wait_for(lambda: not batches.has_background_jobs())  # others have been tried in vain
                found += [int(each[0]) for each in held]
                held.clear()
        found += [int(each[0]) for each in held]
    assert sorted(found) == list(range(20))


def test_what_never_fits(little: Any, tmp_path: Path) -> None:
    """The error comes at its place, naming sizes; the others come, and no job is run in vain for it again and again."""
    sequence = Large(tmp_path, 12, enormous=(3, 4, 9))
    got: list[Any] = []
    with prefetch(sequence, 2, worker_init_fn=little(4)) as batches:
        for _ in range(2):
            iterator = iter(batches)
            while True:
                try:
                    got.append(int(next(iterator)[0]) % 1000)
                except MemoryError as error:
                    got.append(f"{type(error).__name__}: {error} {error.__cause__}")
                except StopIteration:
                    break
    for epoch in range(2):
        mine = got[12 * epoch : 12 * epoch + 12]
        for index in (3, 4, 9):
            assert f"batch {index} of epoch {epoch}: 134,217,728 bytes of shared memory do not fit" in mine[index]
            assert mine[index].startswith("MemoryError: ")
            assert "slot_writer.py" in mine[index]
            assert "smaller" in mine[index]
            mine[index] = index
        assert mine == list(range(12))
        runs = [len((tmp_path / f"{epoch}-{index}").read_text()) for index in (3, 4, 9)]
        assert max(runs) <= 3, runs


@pytest.mark.parametrize("nb_workers", [1, 2])
def test_the_loop_holds_all_there_is(nb_workers: int, little: Any, tmp_path: Path) -> None:
    """Then the next one is an error that says so, and each that is asked for; when it has let go, they come.

    Each further worker may find room for the same last batch at the same time, and then there is one more.
    """
    with prefetch(Large(tmp_path, 12), nb_workers, worker_init_fn=little(4)) as batches:
        iterator = iter(batches)
        held = [next(iterator) for _ in range(4)]
        while True:
            try:
                held.append(next(iterator))
            except MemoryError as error:
                first = error
                break
        number = len(held)
        assert number <= 3 + nb_workers
        with pytest.raises(MemoryError) as second:
            next(iterator)
        for index, error in enumerate([first, second.value], number):
            assert f"batch {index} of epoch 0: " in str(error)
            assert f" The loop holds batches of {16 * number} MB" in str(error)
        for index, batch in enumerate(held):
            check(batch, index)
        del held, batch, error, first, second
        for index in range(number + 2, 12):
            check(next(iterator), index)


def test_retries(little: Any, tmp_path: Path) -> None:
    """``on_error`` may let go of batches, and ask for the one that did not fit again."""
    held: list[np.ndarray] = []
    errors: list[BaseException] = []

    def on_error(error: BaseException) -> str:
        errors.append(error)
        held.clear()
        return "retry"

    with prefetch(Large(tmp_path), 2, worker_init_fn=little(4), on_error=on_error) as batches:
        found = []
        for batch in batches:
            found.append(int(batch[0]))
            held.append(batch)
            del batch
    assert found == list(range(20))
    assert errors
    assert {type(error) for error in errors} == {MemoryError}


def test_a_retry_in_vain(little: Any, tmp_path: Path) -> None:
    sequence = Large(tmp_path, 6, enormous=(2,))
    with prefetch(sequence, 2, worker_init_fn=little(4), on_error=lambda error: "retry", in_order=False) as batches:
        found, errors = [], 0
        iterator = iter(batches)
        while True:
            try:
                found.append(int(next(iterator)[0]))
            except MemoryError:
                errors += 1
            except StopIteration:
                break
    assert (sorted(found), errors) == ([0, 1, 3, 4, 5], 1)


def test_a_stream(little: Any, tmp_path: Path) -> None:
    """Its items are kept for as long as their batches may have to be made again."""

    def enlarge(number: int) -> np.ndarray:
        return np.full(NBYTES // 8, number, np.int64)

    numbers = (number for number in range(20))
    with SequenceMap(numbers, 2, enlarge, max_queue_size=10, worker_init_fn=little(3)) as batches:
        held: list[np.ndarray] = []
        for index, batch in enumerate(batches):
            held = [*held, batch][-2:]
            check(batch, index)
        assert index == 19


@pytest.mark.parametrize("way", ["worker", "server"])
def test_who_dies_meanwhile(way: str, little: Any, tmp_path: Path) -> None:
    """A worker, or all, killed at each third batch, while others wait for memory."""
    with prefetch(Large(tmp_path), 2, worker_init_fn=little(3), max_queue_size=8, max_retries=50) as batches:
        held: list[np.ndarray] = []
        for index, batch in enumerate(batches):
            check(batch, index)
            held = [*held, batch][-2:]
            if index % 3 == 2:
                kill(way)
        assert index == 19


def kill(way: str) -> None:
    """End a worker or their server, whichever there are now."""
    for process in servers() if way == "server" else worker_processes()[:1]:
        process.send_signal(signal.SIGKILL)


def test_break_and_a_new_pass(little: Any, tmp_path: Path) -> None:
    """What was parked in the pass that was left is forgotten."""
    with prefetch(Large(tmp_path), 2, worker_init_fn=little(3), max_queue_size=8) as batches:
        for epoch in range(6):
            for index, batch in enumerate(batches):
                check(batch, index, epoch)
                if index == epoch + 1:
                    break
            del batch
        for index, batch in enumerate(batches):
            check(batch, index, 6)
        assert index == 19


def test_another_thread_lets_go(little: Any, tmp_path: Path) -> None:
    """A loop that hands batches on: what the other thread has let go of by the time it waits counts."""
    with prefetch(Large(tmp_path), 2, worker_init_fn=little(4), max_queue_size=8) as batches:
        handed: queue.Queue[Any] = queue.Queue()
        found: list[int] = []

        def work() -> None:
            while (batch := handed.get()) is not None:
                found.append(int(batch[0]))
                del batch
                handed.task_done()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            for batch in batches:
                handed.put(batch)
                del batch
                handed.join()
        finally:
            handed.put(None)
            thread.join()
    assert found == list(range(20))


def test_the_users_own_memory_error(little: Any, tmp_path: Path) -> None:
    """Is raised at its place, and its job is not run again."""
    sequence = Large(tmp_path, 8)
    sequence.hook = raise_at_three
    with prefetch(sequence, 2, worker_init_fn=little(50)) as batches:
        iterator = iter(batches)
        for index in range(8):
            if index == 3:
                with pytest.raises(MemoryError, match="mine"):
                    next(iterator)
            else:
                check(next(iterator), index)
        assert (tmp_path / "0-3").read_text() == "x"


def raise_at_three(index: int) -> None:
    if index == 3:
        raise MemoryError("mine")


def test_fewer_are_made_ahead_afterwards(little: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The pool does not come back to what was too much. Each time that it halves what it makes ahead, some jobs are run
    again; as soon as all fits, none is."""
    caplog.set_level(logging.WARNING)
    sequence = Large(tmp_path, 20)
    bounds = [1000]  # before the first epoch, and behind each
    with prefetch(sequence, 2, worker_init_fn=little(5)) as batches:
        for epoch in range(5):
            for index, batch in enumerate(batches):
                check(batch, index, epoch)
                if epoch == index == 0:
                    wait_for(lambda: "does not fit into memory now" in caplog.text)
            del batch
            assert batches._live.pool is not None
            bounds.append(batches._live.pool.engine.bound())
    assert bounds == sorted(bounds, reverse=True)
    assert 1 <= bounds[1] <= 3
    quiet = [epoch for epoch in range(1, 5) if bounds[epoch - 1] == bounds[epoch + 1]]  # some are run an epoch ahead
    assert quiet
    assert [sequence.runs(epoch) for epoch in quiet] == [20] * len(quiet)
    assert taken_nbytes(os.getpid()) == 0


@pytest.mark.parametrize("after_s", [0.0, 0.05])
def test_workers_rest_while_others_wait(
    after_s: float, little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that takes its time, while batches wait for it: the workers end, new ones go on."""
    monkeypatch.setattr(idle_shutdown, "IDLE_S", after_s)
    with prefetch(Large(tmp_path, 10), 2, worker_init_fn=little(3), max_queue_size=8) as batches:
        held: list[np.ndarray] = []
        for index, batch in enumerate(batches):
            check(batch, index)
            held = [*held, batch][-2:]
            if index in (2, 3, 6):
                wait_for(lambda: not worker_processes())
        assert index == 9


def test_a_stopped_worker(little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped between two jobs, as it is to give up what it keeps, it does not answer: the others go on without it."""
    stopped: list[psutil.Process] = []
    trim = memory_pressure.MemoryPressure._trim

    def stop_one_before(self: memory_pressure.MemoryPressure) -> None:
        if not stopped:  # the one that has less: if it has nearly all, there is nothing to go on with
            workers = self._executor._workers.values()  # type: ignore[attr-defined]
            stopped.append(psutil.Process(min(workers, key=lambda worker: worker._reader.nbytes).pid))
            stopped[0].send_signal(signal.SIGSTOP)
        trim(self)

    monkeypatch.setattr(memory_pressure.MemoryPressure, "_trim", stop_one_before)
    with prefetch(Large(tmp_path, 8), 2, worker_init_fn=little(5), max_queue_size=8) as batches:
        for index, batch in enumerate(batches):
            check(batch, index)
            if index == 0:
                wait_for(lambda: bool(stopped))
        assert index == 7
    assert stopped


def test_batches_that_grow(little: Any, tmp_path: Path) -> None:
    """What workers keep of the sizes of before is given up for those that are larger."""
    with prefetch(Growing(), 3, worker_init_fn=little(8), max_queue_size=6) as batches:
        for index, batch in enumerate(batches):
            assert batch[0] == batch[-1] == index
            assert len(batch) == (1 + index // 6) * NBYTES // 8
        assert index == 23


def test_batches_that_are_written_where_they_lie(little: Any, tmp_path: Path) -> None:
    """With several pieces of ``workers.empty`` each: those that were there are given back when another is not."""
    with prefetch(Pieces(), 2, worker_init_fn=little(5), max_queue_size=6) as batches:
        for index, (one, other) in enumerate(batches):
            assert one[0] == one[-1] == other[0] == other[-1] == index
            del one, other
        assert index == 11
