"""Whole programs that use a front-end: how they end, from where they start, and that nothing outlives them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import PATIENCE_S, is_gone, wait_for

pytestmark = pytest.mark.own_server

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import os, signal, sys, threading, time
import numpy as np
import psutil
from workers import Sequence, SequenceMap, prefetch

def tell():
    "The processes below this one."
    while len(below := psutil.Process().children(recursive=True)) < 3:
        time.sleep(0.01)
    print(*[each.pid for each in below], flush=True)

class Images(Sequence):
    def __init__(self, job_s=0.001):
        super().__init__(seed=1)
        self.job_s = job_s
    def __len__(self):
        return 100_000
    def __getitem__(self, index):
        time.sleep(self.job_s if index else 0)
        return np.full((64, 1024), index, np.float32)
"""

# Of Python 3.12 and later: the fork is the program's own, and the consumer runs a thread.
FORKS = """
import warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
"""

LOOP = """
batches = Images({job_s}).prefetch(nb_workers=2)
for batch in batches:
    if batch[0, 0] == 0:
        tell()
    {body}
"""

WITH = LOOP.replace("\nfor", "\nwith batches:\n  for").replace("\n    ", "\n      ")


def start(program: str) -> tuple[subprocess.Popen[str], list[int]]:
    """A program in a terminal's process group of its own, and the processes below it, once it tells."""
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate(timeout=PATIENCE_S)[1])
    return process, [int(pid) for pid in line.split()]


def end(process: subprocess.Popen[str], below: list[int]) -> tuple[int, str, str]:
    """(exit code, what it printed, its errors), when it has ended and all below it."""
    try:
        out, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    wait_for(lambda: all(map(is_gone, below)))
    return process.returncode, out, errors


def run(program: str, *, stdin: bool = False) -> str:
    """What a program prints that is to end well, and without a word on standard error."""
    done = subprocess.run(
        [sys.executable, *(["-"] if stdin else ["-c", HEAD + program])],
        input=HEAD + program if stdin else None,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE_S,
        check=False,
    )
    assert not done.stderr
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize(
    ("number", "body", "job_s"),
    [
        pytest.param(signal.SIGKILL, "pass", 0.001, id="while reading"),
        pytest.param(signal.SIGKILL, "time.sleep(600)", 600, id="in a job"),
        pytest.param(signal.SIGKILL, "pass", 600, id="while waiting"),
        pytest.param(signal.SIGTERM, "pass", 0.001, id="SIGTERM"),
    ],
)
def test_the_consumer_is_killed(number: int, body: str, job_s: float) -> None:
    """No process below it outlives it."""
    process, below = start(LOOP.format(body=body, job_s=job_s))
    process.send_signal(number)
    assert end(process, below)[0] == -number


def test_the_consumer_is_killed_while_a_fork_of_it_lives() -> None:
    """Which has copies of all its descriptors."""
    process, below = start(
        """
batches = Images(600).prefetch(nb_workers=2)
next(batches)
if os.fork() == 0:
    os.close(1)
    os.close(2)
    time.sleep(600)
tell()
time.sleep(600)
"""
    )

    process.kill()
    process.communicate(timeout=PATIENCE_S)
    wait_for(lambda: len([pid for pid in below if not is_gone(pid)]) == 1)
    os.killpg(process.pid, signal.SIGKILL)
    wait_for(lambda: all(map(is_gone, below)))


@pytest.mark.parametrize(
    ("form", "body", "job_s"),
    [
        pytest.param(LOOP, "pass", 0.001, id="while reading"),
        pytest.param(LOOP, "pass", 600, id="while waiting"),
        pytest.param(LOOP, "time.sleep(600)", 0.001, id="asleep"),
        pytest.param(LOOP, "sum(range(100_000))", 0.001, id="busy"),
        pytest.param(WITH, "pass", 0.001, id="with, while reading"),
        pytest.param(WITH, "pass", 600, id="with, while waiting"),
    ],
)
def test_ctrl_c(form: str, body: str, job_s: float) -> None:
    """Goes to all processes of the terminal: one clean KeyboardInterrupt, the end, and nothing left."""
    process, below = start(form.format(body=body, job_s=job_s))
    os.killpg(process.pid, signal.SIGINT)
    code, _, errors = end(process, below)
    assert code == -signal.SIGINT, errors
    assert errors.startswith("Traceback"), errors
    assert errors.count("Traceback") == 1, errors
    assert errors.rstrip().endswith("KeyboardInterrupt"), errors


def test_ctrl_c_in_a_serial_job() -> None:
    process, below = start(
        """
print(flush=True)
for batch in Images(600).prefetch(nb_workers=0):
    pass
"""
    )
    process.send_signal(signal.SIGINT)
    code, _, errors = end(process, below)
    assert code == -signal.SIGINT, errors
    assert errors.count("Traceback") == 1, errors


def test_the_loop_goes_on_after_ctrl_c() -> None:
    """Where the program catches it: batches go on in order, and none comes twice."""
    process, below = start(
        """
reading, caught, got = False, 0, []
def interrupt(*_):
    if reading:
        raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
batches = Images(0.0005).prefetch(nb_workers=2)
next(batches)
tell()
while len(got) < 3000:
    try:
        reading = True
        index = int(next(batches)[0, 0])
        reading = False
        got.append(index)
    except KeyboardInterrupt:
        reading = False
        caught += 1
batches.close()
print(caught > 0, got == sorted(set(got)))
"""
    )
    for _ in range(20):
        process.send_signal(signal.SIGINT)
        try:
            process.wait(0.05)
            break
        except subprocess.TimeoutExpired:
            pass
    code, out, errors = end(process, below)
    assert (code, out.split()) == (0, ["True", "True"]), errors


@pytest.mark.parametrize(
    ("body", "job_s", "code"),
    [
        pytest.param("sys.exit(5)", 0.001, 5, id="sys.exit"),
        pytest.param("sys.exit(5)", 600, 5, id="sys.exit, long jobs"),
        pytest.param("os._exit(5)", 0.001, 5, id="os._exit"),
        pytest.param("raise ValueError", 0.001, 1, id="exception"),
        pytest.param("raise ValueError", 600, 1, id="exception, long jobs"),
        pytest.param("break", 0.001, 0, id="break"),
        pytest.param("del batches, batch; break", 600, 0, id="del, long jobs"),
        pytest.param("os.abort()", 0.001, -6, id="abort"),
    ],
)
def test_the_program_ends(body: str, job_s: float, code: int) -> None:
    """However it ends, and without close(): its workers end too, and nothing else is printed."""
    process, below = start(LOOP.format(body=body, job_s=job_s))
    status, _, errors = end(process, below)
    assert status == code, errors
    assert errors.count("Traceback") == (code == 1), errors
    assert bool(errors) == (code == 1), errors


USES_MAIN = """
from dataclasses import dataclass

@dataclass
class Pair:
    x: np.ndarray
    y: int

class Pairs(Sequence):
    def __len__(self):
        return 20
    def __getitem__(self, index):
        return Pair(np.full(10_000, index), index)

factor = 3
print("once", os.getpid() == {pid})
def use():
    with Pairs(seed=1).prefetch(nb_workers=2) as batches:
        for _ in range(2):
            got = list(batches)
            assert [batch.y for batch in got] == list(range(20))
            assert all(type(batch) is Pair for batch in got)
    with SequenceMap(Pairs(seed=1), 2, lambda pair: pair.x * factor) as batches:
        assert [batch[0] for batch in batches] == list(range(0, 60, 3))
    return "used"
""".replace("{pid}", "os.getpid()")


@pytest.mark.parametrize("stdin", [False, True], ids=["-c", "stdin"])
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("print(use())", id="no guard"),
        pytest.param(
            "t = threading.Thread(target=lambda: print(use()))\nt.start(); t.join()",
            id="thread",
        ),
        pytest.param("exec('print(use())')", id="exec"),
    ],
)
def test_starts_from_anywhere(how: str, stdin: bool) -> None:
    """Without a guard: __main__ is not run again, its classes keep their identity, its lambdas work."""
    assert run(USES_MAIN + how + "\n", stdin=stdin).split() == ["once", "True", "used"]


def test_a_file_without_a_guard(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(HEAD + USES_MAIN + "print(use())\n")
    done = subprocess.run(
        [sys.executable, str(path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.stdout.split(), done.stderr) == (["once", "True", "used"], "")


def test_a_thread_that_is_still_reading_when_the_program_ends() -> None:
    """A daemon thread: the end of the program ends it, and the workers."""
    process, below = start(
        """
batches = Images().prefetch(nb_workers=2)
def read():
    for batch in batches:
        pass
threading.Thread(target=read, daemon=True).start()
tell()
"""
    )
    code, _, errors = end(process, below)
    assert (code, errors) == (0, "")


def test_the_end_of_a_fork_harms_nobody() -> None:
    """It runs its exit handlers, and the front-end's own is among them."""
    printed = run(
        FORKS
        + """
batches = Images().prefetch(nb_workers=2)
iterator = iter(batches)
next(iterator)
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print([int(next(iterator)[0, 0]) for _ in range(100)] == list(range(1, 101)))
"""
    )
    assert printed.split() == ["True"]


def test_close_while_a_fork_lives() -> None:
    """The fork has copies of all descriptors; the workers end all the same."""
    process, below = start(
        FORKS
        + """
batches = Images().prefetch(nb_workers=2)
next(batches)
tell()
if (child := os.fork()) == 0:
    os.close(1)
    os.close(2)
    time.sleep(600)
batches.close()
left = [each for each in psutil.Process().children(recursive=True) if each.pid != child]
print(left, flush=True)
os.kill(child, signal.SIGKILL)
os.wait()
"""
    )
    code, out, errors = end(process, below)
    assert (code, out.split(), errors) == (0, ["[]"], "")


def test_a_program_in_a_worker() -> None:
    """A job may use workers of its own; when its process is killed, these end."""
    process, below = start(
        """
def inner(index):
    with prefetch([1, 2, 3], 1) as batches:
        return sum(batches) + index
batches = SequenceMap(list(range(10_000)), 2, inner)
assert next(batches) == 6
tell()
next(batches)
batches.close()
print(psutil.Process().children(recursive=True))
"""
    )
    code, out, errors = end(process, below)
    assert (code, out.split(), errors) == (0, ["[]"], "")
