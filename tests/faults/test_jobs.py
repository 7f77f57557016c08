"""A job goes wrong: the table of ways, and what becomes of its batch, of the others, and of the next epoch."""

from __future__ import annotations

from typing import Any

import pytest
from faulty import AT, LENGTH, Faulty, ThreeArguments, same

import workers
from workers import JobError, RemoteTraceback, WorkerDiedError, prefetch

DEATHS = ["SIGKILL", "SIGTERM", "SIGSEGV", "SIGABRT", "_exit", "segfault", "close descriptors", "while writing"]
ERRORS: list[tuple[str, type[BaseException]]] = [
    ("ValueError", ValueError),
    ("three arguments", ThreeArguments),
    ("unpicklable", Exception),
    ("StopIteration", JobError),
    ("sys.exit", JobError),
    ("KeyboardInterrupt", JobError),
]
EXECUTORS = [
    pytest.param(2, "process", id="process"),
    pytest.param(2, "thread", id="thread"),
    pytest.param(0, "process", id="serial"),
]


def undisturbed(epochs: int) -> list[list[Any]]:
    sequence = Faulty("")
    return [list(sequence) for _ in range(epochs)]


def read(batches: Any) -> list[Any]:
    """All of an epoch; an error in the place of its batch."""
    got: list[Any] = []
    iterator = iter(batches)
    while True:
        try:
            got.append(next(iterator))
        except StopIteration:
            return got
        except Exception as error:
            got.append(error)


@pytest.mark.parametrize("how", DEATHS)
def test_a_job_that_kills_its_worker_once_is_run_again(how: str) -> None:
    """All batches arrive once, in order, with the bytes of an undisturbed run."""
    with Faulty(how).prefetch(nb_workers=2) as batches:
        for epoch, expected in enumerate(undisturbed(2)):
            got = list(batches)
            assert len(got) == LENGTH, epoch
            assert all(map(same, got, expected))


@pytest.mark.parametrize("how", DEATHS)
def test_a_job_that_always_kills_its_worker_raises_at_its_place(how: str) -> None:
    """After three deaths: an error that names the index, the way of death and the memory. The rest goes on."""
    with Faulty(how, times=99).prefetch(nb_workers=2) as batches:
        for expected in undisturbed(2):
            got = read(batches)
            error = got[AT]
            assert isinstance(error, WorkerDiedError)
            assert f"batch {AT} of epoch" in str(error)
            assert "third time" in str(error)
            assert "MB of" in str(error)
            assert ("code 3" if how == "_exit" else "SIG" if how.startswith("SIG") else "") in str(error)
            del got[AT], expected[AT]
            assert all(map(same, got, expected))


@pytest.mark.parametrize(("how", "kind"), ERRORS)
@pytest.mark.parametrize(("nb_workers", "executor"), EXECUTORS)
def test_an_exception_is_raised_at_its_place(
    how: str, kind: type[BaseException], nb_workers: int, executor: str
) -> None:
    """Same type, its traceback as its cause, a note with place and process; the others and the next epoch arrive."""
    if how == "KeyboardInterrupt" and nb_workers == 0:
        kind = KeyboardInterrupt  # in the consumer's own thread it is what Ctrl-C raises, and ends the loop
        with prefetch(Faulty(how), nb_workers) as batches, pytest.raises(kind):
            list(batches)
        return
    with prefetch(Faulty(how), nb_workers, executor=executor) as batches:
        for epoch, expected in enumerate(undisturbed(2)):
            got = read(batches)
            error = got[AT]
            assert isinstance(error, kind), repr(error)
            assert f"batch {AT} of epoch {epoch}" in " ".join(error.__notes__)
            if nb_workers and executor == "process":
                assert isinstance(error.__cause__, RemoteTraceback)
                assert "in die" in str(error.__cause__)
            if how == "three arguments":
                assert error.one == 1
            del got[AT], expected[AT]
            assert [batch[:2] for batch in got] == [batch[:2] for batch in expected]
            if executor == "process":
                assert all(map(same, got, expected))


@pytest.mark.parametrize(("nb_workers", "executor"), EXECUTORS)
def test_skip(nb_workers: int, executor: str, caplog: pytest.LogCaptureFixture) -> None:
    """on_error="skip" leaves the batch out, and says so in the log."""
    with prefetch(Faulty("ValueError"), nb_workers, executor=executor, on_error="skip") as batches:
        assert [batch[0] for batch in batches] == [index for index in range(LENGTH) if index != AT]
    assert f"batch {AT} of epoch 0 is skipped" in caplog.text


def test_one_error_after_the_other() -> None:
    """A loop over nothing but errors gets each of them, and ends."""

    def fail(batch: Any) -> Any:
        raise LookupError(batch)

    with workers.SequenceMap(list(range(9)), 2, fail) as batches:
        for _ in range(2):
            got = read(batches)
            assert [error.args for error in got] == [(index,) for index in range(9)]
