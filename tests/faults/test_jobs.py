"""A job goes wrong: the table (stage, way), and what becomes of its batch, of the others, and of the next epoch."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty import (
    AT,
    ERRORS,
    LENGTH,
    RAISES,
    EndsWhenLoaded,
    Faulty,
    ThreeArguments,
    end_process,
    go_wrong,
    read,
    same,
    undisturbed,
)

from workers import (
    JobError,
    RemoteTraceback,
    Sequence,
    SequenceMap,
    WorkerDiedError,
    WorkerStartError,
    current_job,
    prefetch,
)

# (stage, way to die, what the message says of it after the third time)
DEATHS = [
    pytest.param("in the job", "SIGKILL", "killed by SIGKILL", id="job-SIGKILL"),
    pytest.param("in the job", "SIGTERM", "killed by SIGTERM", id="job-SIGTERM"),
    pytest.param("in the job", "_exit", "exited with code 3", id="job-_exit"),
    pytest.param("in the job", "segfault", "killed by SIGSEGV", id="job-segfault"),
    pytest.param("in the job", "close descriptors", "close only those that it has opened", id="job-close-descriptors"),
    pytest.param("in the job", "kill the server", "killed with its server", id="job-kill-the-server"),
    pytest.param("while writing", "SIGKILL", "killed by SIGKILL", id="writing-SIGKILL"),
    pytest.param("while writing", "_exit", "exited with code 3", id="writing-_exit"),
    pytest.param("while writing", "segfault", "killed by SIGSEGV", id="writing-segfault"),
]
EXECUTORS = [
    pytest.param(2, "process", id="process"),
    pytest.param(2, "thread", id="thread"),
    pytest.param(0, "process", id="serial"),
]
LOOKS_LIKE_THE_END: dict[str, type[BaseException]] = {
    "StopIteration": JobError,
    "StopAsyncIteration": JobError,
    "GeneratorExit": JobError,
    "CancelledError": JobError,
    "sys.exit": JobError,
    "KeyboardInterrupt": JobError,
}


@pytest.mark.parametrize(("stage", "how", "says"), DEATHS)
def test_a_job_that_ends_its_worker_once_is_run_again(stage: str, how: str, says: str) -> None:
    """All batches arrive once, in order, with the bytes of an undisturbed run; so in the next epoch."""
    with Faulty(how, stage).prefetch(nb_workers=2) as batches:
        for expected in undisturbed(2):
            got = list(batches)
            assert len(got) == LENGTH
            assert all(map(same, got, expected))


@pytest.mark.parametrize(("stage", "how", "says"), DEATHS)
def test_a_job_that_always_ends_its_worker_raises_at_its_place(stage: str, how: str, says: str) -> None:
    """After three deaths: an error that names the index, the way of death and the memory. The rest goes on."""
    with Faulty(how, stage, times=99).prefetch(nb_workers=2) as batches:
        for epoch, expected in enumerate(undisturbed(2)):
            got = read(batches)
            error = got[AT]
            assert isinstance(error, WorkerDiedError)
            for part in (f"batch {AT} of epoch {epoch}", "third time", "MB of", "GB are available", says):
                assert part in str(error)
            del got[AT], expected[AT]
            assert all(map(same, got, expected))


def test_a_job_that_ends_the_server_is_the_only_one_to_be_blamed() -> None:
    """Not a long one, which was running each time."""

    def end_at_1(index: int) -> int:
        time.sleep(0.2 if index == 0 else 0.05)
        if index == 1:
            end_process("kill the server")
        return index

    with SequenceMap(list(range(8)), 2, end_at_1) as batches:
        for _ in range(2):
            got = read(batches)
            assert isinstance(got.pop(1), WorkerDiedError)
            assert got == [0, *range(2, 8)]


@pytest.mark.parametrize("after_s", [0.0, 0.0003, 0.001, 0.003])
def test_a_worker_that_ends_while_it_sends_loses_nothing(after_s: float) -> None:
    """A moment after the job: in the middle of a message, or of a later job."""
    with Faulty("SIGKILL", "while sending", after_s=after_s).prefetch(nb_workers=2) as batches:
        for expected in undisturbed(3):
            got = list(batches)
            assert len(got) == LENGTH
            assert all(map(same, got, expected))


@pytest.mark.parametrize("how", ["SIGKILL", "_exit"])
def test_a_worker_that_ends_while_it_loads_is_replaced(how: str, tmp_path: Path) -> None:
    with EndsWhenLoaded(how, 2, tmp_path).prefetch(nb_workers=1) as batches:
        assert all(map(same, batches, *undisturbed()))


@pytest.mark.parametrize("how", ["SIGKILL", "_exit", "kill the server"])
def test_workers_that_always_end_while_they_load(how: str, tmp_path: Path) -> None:
    """An error, not one start after the other for ever."""
    with EndsWhenLoaded(how, 99, tmp_path).prefetch(nb_workers=2) as batches:
        for _ in range(2):
            with pytest.raises(WorkerStartError):
                next(batches)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("executor", ["process", "thread"])
def test_errors_come_in_any_number(executor: str, in_order: bool) -> None:
    """A loop over nothing but errors gets each of them, and ends."""

    def fail(batch: Any) -> Any:
        raise LookupError(batch)

    with SequenceMap(list(range(50)), 2, fail, executor=executor, in_order=in_order) as batches:
        for _ in range(2):
            got = [error.args[0] for error in read(batches)]
            assert (got if in_order else sorted(got)) == list(range(50))


class Raises(Sequence):
    """Every second batch raises, each in a way of its own."""

    def __init__(self, hows: list[str]) -> None:
        super().__init__(seed=1)
        self.hows = hows

    def __len__(self) -> int:
        return 2 * len(self.hows)

    def __getitem__(self, index: int) -> int:
        if index % 2:
            go_wrong(self.hows[index // 2])
        return index


def ways(nb_workers: int) -> list[str]:
    # In the consumer's own thread KeyboardInterrupt is what Ctrl-C raises, and ends the loop.
    return [how for how in (*RAISES, *ERRORS) if nb_workers or how != "KeyboardInterrupt"]


@functools.cache
def raised(nb_workers: int, executor: str) -> list[list[Any]]:
    """What comes in two epochs; read once for all rows."""
    with prefetch(Raises(ways(nb_workers)), nb_workers, executor=executor) as batches:
        epochs = [read(batches) for _ in range(2)]
    for error in [each for got in epochs for each in got if isinstance(each, BaseException)]:
        error.__traceback__ = None  # it holds the front-end
    return epochs


@pytest.mark.parametrize(
    ("how", "nb_workers", "executor"),
    [
        pytest.param(how, *executor.values, id=f"{executor.id}-{how}")
        for executor in EXECUTORS
        for how in ways(int(str(executor.values[0])))
    ],
)
def test_an_exception_is_raised_at_its_place(how: str, nb_workers: int, executor: str) -> None:
    """Same type and text, its traceback as its cause, a note with place and process; the rest arrives."""
    original = raised_here(how)
    at = 2 * ways(nb_workers).index(how) + 1
    for epoch, got in enumerate(raised(nb_workers, executor)):
        assert got[::2] == list(range(0, 2 * len(ways(nb_workers)), 2))
        error = got[at]
        check_type_and_text(how, error, original)
        notes = " ".join(error.__notes__)
        assert f"batch {at} of epoch {epoch}" in notes
        assert "process" in notes
        if nb_workers and executor == "process":
            assert isinstance(error.__cause__, RemoteTraceback)
            assert "in go_wrong" in str(error.__cause__)


def test_a_keyboard_interrupt_of_the_consumers_own_job() -> None:
    """Ends the loop, as Ctrl-C does; the next pass is whole but for it."""
    with prefetch(Raises(["KeyboardInterrupt", "KeyError"]), 0) as batches:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                list(batches)


def raised_here(how: str) -> BaseException:
    try:
        raise ERRORS[how]() if how in ERRORS else RAISES[how]()
    except BaseException as error:
        return error


def check_type_and_text(how: str, error: BaseException, original: BaseException) -> None:
    if how in LOOKS_LIKE_THE_END:
        assert type(error) is LOOKS_LIKE_THE_END[how]
        assert type(original).__name__ in str(error)
        return
    if isinstance(error, JobError):  # allowed for what cannot be made again from outside
        assert how in ("local class", "unpicklable", "slotted")
        assert type(original).__name__ in str(error)
        assert str(original) in str(error)
        return
    assert type(error).__name__ == type(original).__name__
    if how == "no text":
        return
    assert str(error) == str(original)
    if isinstance(original, OSError):
        assert isinstance(error, OSError)
        assert error.filename == original.filename
    if isinstance(error, ThreeArguments):
        assert error.one == 1


@pytest.mark.parametrize(("nb_workers", "executor"), EXECUTORS)
def test_skip(nb_workers: int, executor: str, caplog: pytest.LogCaptureFixture) -> None:
    """on_error="skip" leaves the batch out, and says so in the log."""
    with prefetch(Faulty("StopIteration"), nb_workers, executor=executor, on_error="skip") as batches:
        for epoch in range(2):
            assert [batch[0] for batch in batches] == [index for index in range(LENGTH) if index != AT]
            assert f"batch {AT} of epoch {epoch} is skipped" in caplog.text


def test_skip_what_always_ends_its_worker(caplog: pytest.LogCaptureFixture) -> None:
    with prefetch(Faulty("_exit", times=99), 2, on_error="skip") as batches:
        assert [batch[0] for batch in batches] == [index for index in range(LENGTH) if index != AT]
    assert "exited with code 3" in caplog.text


class Items:
    """A source that can only be iterated; its items, small and large in turn, are shipped to the workers."""

    def __init__(self, fails_at: int = -1) -> None:
        self.fails_at = fails_at

    def __iter__(self) -> Iterator[Any]:
        for index in range(12):
            if index == self.fails_at:
                raise OSError("the disk is gone")
            yield np.full(100_000 if index % 2 else 10, index)


@pytest.mark.parametrize("index", [4, 5])
def test_an_item_whose_job_ends_its_worker_is_sent_again(index: int) -> None:
    """As it was: what the first attempt has written into it does not show."""

    def end_after_change(item: Any) -> Any:
        job = current_job()
        item += 1
        if job is not None and job.index == index and job.attempt == 0:
            end_process("SIGKILL")
        return item

    with SequenceMap(Items(), 2, end_after_change) as batches:
        for _ in range(2):
            got = list(batches)
            assert [batch[0] for batch in got] == list(range(1, 13))
            assert all((batch == batch[0]).all() for batch in got)


@pytest.mark.parametrize(("nb_workers", "executor"), EXECUTORS)
def test_a_source_that_fails(nb_workers: int, executor: str) -> None:
    """Its exception comes behind the items that it gave before."""
    with SequenceMap(Items(fails_at=7), nb_workers, None, executor=executor) as batches:
        for _ in range(2):
            *got, error = read(batches)
            assert [batch[0] for batch in got] == list(range(7))
            assert isinstance(error, OSError)


class EndsWhenUnpickled:
    """A part of a batch that cannot be made again in the consumer."""

    def __reduce__(self) -> Any:
        return sys.intern, (5,)


@pytest.mark.parametrize("index", [0, 5, 11])
def test_a_batch_that_cannot_be_unpickled(index: int) -> None:
    """Raises in its place."""

    def part(item: Any) -> Any:
        return EndsWhenUnpickled() if item == index else item

    with SequenceMap(list(range(12)), 2, part) as batches:
        for _ in range(2):
            got = read(batches)
            assert isinstance(got[index], TypeError)
            assert got[:index] + got[index + 1 :] == [each for each in range(12) if each != index]


class ExitsWhenLoaded:
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


class ErrorThatExitsWhenLoaded(Exception):
    def __reduce__(self) -> Any:
        return sys.exit, (3,)


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_what_ends_the_program_when_it_is_unpickled(nb_workers: Any) -> None:
    """Is the error of its batch; the others come."""

    def odd(index: int) -> Any:
        if index == 3:
            raise ErrorThatExitsWhenLoaded("in batch 3")
        time.sleep(0.002)  # workers pay
        return ExitsWhenLoaded() if index == 1 and current_job().worker is not None else index

    with SequenceMap(list(range(40)), nb_workers, odd) as batches:
        for _ in range(2):
            got = read(batches)
            assert got[:1] + got[2:3] + got[4:] == [0, 2, *range(4, 40)]
            assert "in batch 3" in str(got[3])
            if nb_workers != "auto":
                assert isinstance(got[1], JobError)
                assert "SystemExit(3)" in str(got[1])


def test_a_worker_that_is_killed_from_outside_has_closed_nothing(caplog: Any) -> None:
    """Its socket is at its end as well."""
    with Faulty("SIGKILL", "in the job").prefetch(nb_workers=2) as batches:
        assert len(list(batches)) == LENGTH
    assert "was lost: killed by SIGKILL" in caplog.text
    assert "descriptors" not in caplog.text
