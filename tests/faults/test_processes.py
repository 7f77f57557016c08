"""Processes end at the wrong moment: workers, their server, the consumer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from faulty import LENGTH, Faulty, same

from workers import ClosedError, Sequence, prefetch

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 20.0  # detects a hang


def worker_processes() -> list[psutil.Process]:
    servers = psutil.Process().children()
    return [worker for server in servers for worker in server.children()]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def expected() -> list[Any]:
    return list(Faulty(""))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_idle_workers_are_killed(number: int) -> None:
    """All of them, while nothing is to be done: the next epoch arrives whole."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        assert len(list(batches)) == LENGTH
        for process in worker_processes():
            process.send_signal(number)
        assert [batch[:2] for batch in batches] == [(index, 1) for index in range(LENGTH)]


def test_workers_are_killed_again_and_again() -> None:
    """While they send, compute or wait: all batches arrive, in order, with the same bytes."""
    with Faulty("").prefetch(nb_workers=2, max_queue_size=6) as batches:
        for at, (got, wanted) in enumerate(zip(batches, expected(), strict=True)):
            assert same(got, wanted)
            if at % 4 == 0:
                for process in worker_processes():
                    process.kill()


def test_the_server_is_killed() -> None:
    """Its workers die with it; all start anew."""
    with Faulty("").prefetch(nb_workers=2, max_queue_size=6) as batches:
        for at, (got, wanted) in enumerate(zip(batches, expected(), strict=True)):
            assert same(got, wanted)
            if at in (3, 20):
                for server in psutil.Process().children():
                    server.kill()


def test_a_stopped_worker_is_ended_by_close() -> None:
    """SIGSTOP holds a worker, not the end of the program."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        next(iter(batches))
        for process in worker_processes():
            process.suspend()


def test_workers_are_killed_during_close() -> None:
    batches = Faulty("").prefetch(nb_workers=3)
    next(iter(batches))
    doomed = worker_processes()
    thread = threading.Thread(target=batches.close)
    thread.start()
    for process in doomed:
        if process.is_running():
            process.kill()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    with pytest.raises(ClosedError):
        next(batches)


def test_break_then_a_full_epoch() -> None:
    """break ends an epoch; the next one is whole, and nothing of the old one is in it."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        for stop_at in (0, 5, LENGTH - 1):
            for batch in batches:
                if batch[0] == stop_at:
                    break
        assert [batch[:2] for batch in batches] == [(index, 3) for index in range(LENGTH)]


def test_two_front_ends_at_once() -> None:
    """Each has workers of its own."""
    with Faulty("", seed=1).prefetch(nb_workers=2) as one, Faulty("SIGKILL", seed=1).prefetch(nb_workers=2) as two:
        assert all(map(same, one, two))


class Slow(Sequence):
    """Each batch takes a while, unless it is number 0."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        if index > 3:
            time.sleep(30)
        return index


def test_close_does_not_wait_for_jobs() -> None:
    """Workers that are in a job are killed."""
    with Slow(seed=1).prefetch(nb_workers=2) as batches:
        next(iter(batches))


CONSUMER = """
import os, sys, time
import numpy as np
import psutil
from workers import Sequence

class Images(Sequence):
    def __len__(self):
        return 100_000
    def __getitem__(self, index):
        time.sleep({job_s})
        return np.full((64, 1024), index, np.float32)

batches = Images(seed=1).prefetch(nb_workers=2)
for batch in batches:
    if batch[0, 0] == 0:
        print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
    {body}
"""


def consumer(body: str, job_s: float = 0.001) -> tuple[subprocess.Popen[str], list[int]]:
    """A program that reads batches for ever, and the processes below it."""
    program = CONSUMER.format(body=body, job_s=job_s)
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    below = [int(pid) for pid in process.stdout.readline().split()]
    assert len(below) == 3, process.communicate(timeout=PATIENCE_S)
    return process, below


def all_gone(pids: list[int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize("job_s", [0.001, 60.0], ids=["between jobs", "in a job"])
def test_the_consumer_is_killed(job_s: float) -> None:
    """kill -9 of the consumer: no worker outlives it."""
    if job_s > 1:
        process, below = consumer("time.sleep(60)")
    else:
        process, below = consumer("pass", job_s)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    wait_for(lambda: all_gone(below))


@pytest.mark.parametrize("body", ["pass", "time.sleep(60)", "sum(range(100_000))"], ids=["waiting", "asleep", "busy"])
@pytest.mark.parametrize("job_s", [0.001, 0.2])
def test_ctrl_c(body: str, job_s: float) -> None:
    """One clean KeyboardInterrupt, the end, and nothing left."""
    process, below = consumer(body, job_s)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == -signal.SIGINT, errors
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors
    wait_for(lambda: all_gone(below))


@pytest.mark.parametrize("body", ["sys.exit(5)", "raise ValueError", "os._exit(5)", "break"])
def test_the_program_ends(body: str) -> None:
    """However it ends, and without close(): it ends at once, and its workers too."""
    process, below = consumer(body)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == {"break": 0, "raise ValueError": 1}.get(body, 5), errors
    assert errors.count("Traceback") == (1 if "raise" in body else 0), errors
    wait_for(lambda: all_gone(below))


def test_end_of_scope() -> None:
    """A front-end that nobody holds any more ends its workers. (The police looks.)"""

    def scope() -> None:
        batches = Faulty("").prefetch(nb_workers=2)
        next(iter(batches))

    scope()


def test_a_fork_of_the_consumer_harms_nobody() -> None:
    """The child of an os.fork() may drop the front-end, and cannot use it."""
    with Faulty("").prefetch(nb_workers=2) as batches:
        iterator = iter(batches)
        next(iterator)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                next(iterator)
            except RuntimeError:
                status = 0
            batches.close()
            os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert len(list(iterator)) == LENGTH  # a new pass: iter() of an iterator begins one


def test_a_job_may_fork() -> None:
    """What a job leaves running ends with the workers."""

    def start_sleeper(batch: Any) -> int:
        return subprocess.Popen(["sleep", "600"]).pid

    with prefetch(list(range(4)), 2).map(start_sleeper) as batches:
        pids = list(batches)
    wait_for(lambda: all_gone(pids))
