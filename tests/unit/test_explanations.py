"""What a death is told as, and which exception it becomes."""

from __future__ import annotations

import signal

import pytest

from workers.batch.memory_limit import DoesNotFit
from workers.engine.bounds import QueueLoad
from workers.engine.executor import Death, Stuck
from workers.engine.explanations import does_not_fit, given_up, how, not_started, waits_for_memory, what_to_lower
from workers.errors import JobTimeoutError, WorkerDiedError
from workers.limits import Limit

TIMED_OUT = Death(9, -signal.SIGKILL, Stuck(job_timeout_s=2.5, stack="in sleep"), stack="in sleep")
UNBEGUN = Death(9, -signal.SIGKILL, Stuck(unbegun_s=33.4))
KILLED = Death(9, -signal.SIGKILL, max_rss=5 << 30)
MB = 1 << 20
LOAD = QueueLoad(2, 6, 10 * MB)


@pytest.mark.parametrize(
    ("death", "text"),
    [
        (KILLED, "killed by SIGKILL"),
        (Death(9, -signal.SIGSEGV), "killed by SIGSEGV"),
        (Death(9, -63), "killed by signal 63"),
        (Death(9, -signal.SIGBUS, shortened=("x has 2 bytes",)), "killed by SIGBUS (x has 2 bytes)"),
        (Death(9, 3), "exited with code 3"),
        (Death(9), "killed with its server"),
        (TIMED_OUT, "job_timeout = 2.5 s"),
        (UNBEGUN, "did not begin its jobs for 33 s"),
    ],
)
def test_how(death: Death, text: str) -> None:
    assert how(death) == text


def test_a_job_that_timed_out_each_time() -> None:
    error = given_up(2, 7, 3, [TIMED_OUT] * 3, LOAD)
    assert type(error) is JobTimeoutError
    assert "batch 7 of epoch 2 took longer than job_timeout = 2.5 s in each of 3 attempts" in str(error)
    assert str(error).endswith("in sleep")


@pytest.mark.parametrize(
    ("deaths", "parts"),
    [
        ([KILLED], ["Worker process 9 was killed by SIGKILL in batch", "first time", "5,120 MB", "out-of-memory"]),
        ([TIMED_OUT, KILLED], ["second time", "out-of-memory"]),
        ([KILLED, TIMED_OUT], ["process 9 job_timeout = 2.5 s in batch", "Its stack:\nin sleep"]),
        ([UNBEGUN], ["process 9 did not begin its jobs for 33 s in batch", "Something in the job"]),
        ([Death(9)], ["was killed with its server", "Something in the job"]),
        ([Death(9, -signal.SIGSEGV, stack="in f")], ["was killed by SIGSEGV", "Its stack:\nin f"]),
        ([Death(9, 3)] * 4, ["process 9 exited with code 3 in batch", "4th time", "Something in the job"]),
    ],
)
def test_a_job_that_ended_its_worker(deaths: list[Death], parts: list[str]) -> None:
    error = given_up(0, 1, len(deaths), deaths, LOAD)
    assert type(error) is WorkerDiedError
    for part in parts:
        assert part in str(error)
    is_memory = deaths[-1] is KILLED
    assert ("out-of-memory" in str(error)) is is_memory


def test_workers_that_do_not_start() -> None:
    error = not_started(6, how(Death(9, 1)), "where it crashed")
    assert "6 workers in a row ended before they could take a job, the last one exited with code 1" in str(error)


@pytest.mark.parametrize(
    ("max_rss", "load", "text"),
    [
        (
            70 * MB,
            QueueLoad(4, 20, 10 * MB),
            "lower max_queue_size, which allows 20 batches of 10 MB, 200 MB in all",
        ),
        (120 * MB, QueueLoad(4, 20, 10 * MB), "lower nb_workers, as 4 workers hold up to 70 MB each"),
        (70 * MB, QueueLoad(4, 20, 0), "lower nb_workers, as 4 workers hold up to 70 MB each"),
        (350 * MB, QueueLoad(4, 20, 10 * MB), "make the batches smaller, as one job alone took up to 300 MB"),
        (350 * MB, QueueLoad(1, 1, 310 * MB), "make the batches smaller, as one job alone took up to 310 MB"),
        (200 * MB, QueueLoad(1, 4, 10 * MB), "make the batches smaller, as one job alone took up to 160 MB"),
    ],
)
def test_what_takes_most_of_the_memory(max_rss: int, load: QueueLoad, text: str) -> None:
    assert text in what_to_lower(max_rss, load, Limit(400 * MB, "a group"))


@pytest.mark.parametrize(
    ("nbytes", "held", "available", "num_workers", "text"),
    [
        (250, 0, 140, 2, "Make the batches smaller"),
        (
            100,
            100,
            60,
            2,
            "The loop holds batches of 100 MB in all: release them earlier, or make",
        ),
        (100, 20, 60, 2, "Lower nb_workers (it is 2), or make the batches smaller"),
        (100, 20, 60, 1, "Make the batches smaller"),
        (100, 20, -5, 1, "Make the batches smaller"),
    ],
)
def test_a_batch_that_does_not_fit(nbytes: int, held: int, available: int, num_workers: int, text: str) -> None:
    cause = DoesNotFit("short", nbytes * MB)
    cause.__cause__ = ValueError("where it was")
    load = QueueLoad(num_workers, 6, 10 * MB)
    error = does_not_fit(2, 7, cause, held * MB, load, Limit(400 * MB, "a group"), available * MB)
    assert type(error) is MemoryError
    assert error.__cause__ is cause.__cause__
    left = f"{nbytes * MB:,} bytes of shared memory do not fit into the {max(0, available)} MB that are left of 400 MB"
    assert str(error).startswith(f"batch 7 of epoch 2: {left} (a group), though no other batch is ahead of the loop")
    assert text in str(error)


def test_a_batch_that_does_not_fit_where_no_limit_is_known() -> None:
    error = does_not_fit(0, 1, DoesNotFit("short", MB), 0, LOAD, None, None)
    assert "1,048,576 bytes of shared memory do not fit, though" in str(error)


def test_a_batch_that_waits_for_memory() -> None:
    text = waits_for_memory(0, 3, DoesNotFit("9 bytes do not fit", 9), LOAD)
    assert "batch 3 of epoch 0 does not fit into memory now: 9 bytes do not fit. It waits until" in text
    assert "At most 6 batches" in text
