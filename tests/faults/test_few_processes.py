"""Fewer processes are allowed than workers were asked for: the pool goes on with those there are, and says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from control_groups import enter, limited

pytestmark = pytest.mark.own_server

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import logging, os, sys, threading, time
import psutil
from workers import Sequence, WorkerStartError, prefetch

logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")

class Numbers(Sequence):
    def __len__(self):
        return 200
    def __getitem__(self, index):
        return index, os.getpid()

def workers():
    return [each for server in psutil.Process().children() for each in server.children()]

def allow(most):
    open(LIMIT, "w").write(str(most))

def show(batches):
    read = list(batches)
    assert [index for index, _ in read] == list(range(200))
    return {pid for _, pid in read}
"""


@pytest.fixture
def group() -> Iterator[Path]:
    with limited("pids", 100, "pids.max") as made:
        yield made


def run(group: Path, program: str) -> list[str]:
    """The lines that ``program`` prints within ``group``; it leaves no process behind."""
    limit = f"LIMIT = {str(group / 'pids.max')!r}\n"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy's own threads count too
    command = [sys.executable, "-c", enter(group) + HEAD + limit + program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=ROOT, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (group / "cgroup.procs").read_text(), "left behind"
    assert not done.stderr
    return done.stdout.splitlines()


# The program, the thread of its pool and the server are three.
@pytest.mark.parametrize(("most", "workers"), [(4, 1), (6, 3), (10, 7)])
def test_fewer_workers_than_asked_for(group: Path, most: int, workers: int) -> None:
    program = f"""
allow({most})
with prefetch(Numbers(seed=1), 8) as batches:
    show(batches)
    print(len(workers()))
"""
    text, number = run(group, program)
    assert text.startswith(
        f"8 workers were asked for, {workers} could be started: Resource temporarily unavailable. "
        f"Allowed are {most} by pids.max of the control group {group}"
    )
    assert number == str(workers)


def test_a_second_pool(group: Path) -> None:
    """Its workers do not take the last process that its own thread needs."""
    program = """
with prefetch(Numbers(seed=1), 1) as one:
    show(one)
    allow(6)
    with prefetch(Numbers(seed=1), 30) as two:
        show(two)
        show(one)
        print(len(workers()))
"""
    text, number = run(group, program)
    assert text.startswith("30 workers were asked for, 1 could be started")
    assert number == "2"


@pytest.mark.parametrize(
    ("most", "text"),
    [
        (1, "2 workers cannot be started: [Errno 11]"),
        (2, "the thread of the pool could not be started: can't start new thread."),
        (3, "2 workers were asked for, none could be started: Resource temporarily unavailable."),
    ],
)
def test_not_even_one(group: Path, most: int, text: str) -> None:
    program = f"""
allow({most})
try:
    with prefetch(Numbers(seed=1), 2) as batches:
        list(batches)
except WorkerStartError as error:
    print(error)
print(workers(), [thread.name for thread in threading.enumerate()])
"""
    told, left = run(group, program)
    assert told.startswith(text)
    assert f"Allowed are {most} by pids.max of the control group" in told
    assert left == "[] ['MainThread']"


def test_threads(group: Path) -> None:
    program = """
allow(3)
try:
    prefetch(Numbers(seed=1), 8, executor="thread")
except WorkerStartError as error:
    print(error)
"""
    (told,) = run(group, program)
    assert told.startswith("8 workers were asked for, 1 could be started: can't start new thread. Allowed are 3 by")


def test_a_worker_that_cannot_be_replaced(group: Path) -> None:
    """The others go on, the log says it once; when there is room again, it is replaced after all."""
    program = """
told = []
logging.getLogger("workers").addFilter(lambda record: told.append(record.getMessage()) or True)
with prefetch(Numbers(seed=1), 3) as batches:
    show(batches)
    allow(1)
    for process in workers()[:2]:
        process.kill()
        while not any("could be started" in text for text in told):
            time.sleep(0.01)
        show(batches)
    while len(workers()) > 1:
        time.sleep(0.01)
    show(batches)
    print("one")
    allow(100)
    while len(workers()) < 3:
        time.sleep(0.01)
    show(batches)
    print("all")
"""
    *log, one, end = run(group, program)
    assert sum("was lost: killed by SIGKILL" in line for line in log) == 2
    (text,) = [line for line in log if "was lost" not in line]
    assert text.startswith("3 workers were asked for, ")
    assert "Allowed are 1 by" in text
    assert (one, end) == ("one", "all")


def test_the_last_worker_cannot_be_replaced(group: Path) -> None:
    program = """
with prefetch(Numbers(seed=1), 1) as batches:
    show(batches)
    allow(1)
    workers()[0].kill()
    try:
        while True:
            show(batches)
    except WorkerStartError as error:
        print(error)
"""
    _, told = run(group, program)
    assert told.startswith("1 workers were asked for, none could be started")


def test_the_server_cannot_be_replaced(group: Path) -> None:
    program = """
with prefetch(Numbers(seed=1), 1) as batches:
    show(batches)
    allow(1)
    psutil.Process().children()[0].kill()
    try:
        while True:
            show(batches)
    except WorkerStartError as error:
        print(error)
"""
    (told,) = run(group, program)
    assert told.startswith("1 workers were asked for, none could be started")


def test_workers_that_had_nothing_to_do(group: Path) -> None:
    """Attempts at those that are missing do not keep the others from ending. Later all are tried, each once."""
    program = """
from workers.engine import idle_shutdown
from workers.process import fork_shortage
idle_shutdown.IDLE_S, fork_shortage._FIRST_WAIT_S, fork_shortage._MAX_WAIT_S = 0.5, 0.1, 0.1

told = []
logging.getLogger("workers").addFilter(lambda record: told.append(record) or True)

def wait_until_at_rest(batches):
    while not batches._live.pool.engine._driver._idle_shutdown.has_ended_workers or workers():
        time.sleep(0.01)

with prefetch(Numbers(seed=1), 4, max_queue_size=8) as batches:
    show(batches)
    wait_until_at_rest(batches)
    allow(5)
    while not told:
        show(batches)
    wait_until_at_rest(batches)
    allow(100)
    most = 0
    while most < 4:
        show(batches)
        most = max(most, len(workers()))
    show(batches)
    print(max(most, len(workers())))
    wait_until_at_rest(batches)
    allow(1)
    try:
        while True:
            show(batches)
    except WorkerStartError as error:
        print(error)
"""
    text, number, none = run(group, program)
    assert text.startswith("4 workers were asked for, 2 could be started")
    assert number == "4"
    assert none.startswith("4 workers were asked for, none could be started")
