"""``python -m workers.top`` in a pipe, beside programs that publish.

Other tests run beside these, with pools of their own: so nothing here is said of all pools but as a user of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty import PATIENCE_S, wait_for
from programs import ENVIRONMENT, Program, programs
from publishing import become

from workers import Sequence

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
as_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    with programs() as start:
        yield start


def top(*arguments: object) -> tuple[int, str, str]:
    """(exit code, output, errors) in a pipe."""
    done = subprocess.run(
        [sys.executable, "-m", "workers.top", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=ENVIRONMENT,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_table_in_a_pipe(start: Callable[..., Program]) -> None:
    program = start()
    before = program.descriptors()
    code, out, errors = top(program.pid)
    assert (code, errors) == (0, "")
    header, rates, _, first, second, choice = (" ".join(line.split()) for line in out.splitlines())
    assert header.startswith(f"publishing.py pid {program.pid} <Crops: 40 batches> nb_workers 2 (process) up ")
    assert rates.startswith("epoch 3 batch 17/40 ")
    assert rates.endswith("loop waits 25% queue 5/8")
    assert 50 < float(rates.split()[4]) < 200  # of 100, on a machine with much else to do
    assert [word for word in first.split() if "|" not in word][:4] == ["0", str(program.worker), "ready", "50%"]
    assert second.startswith("1 - starting ||||||||||||||||||||||||| 100% 0.00 - - 2 4 1234 ")
    assert choice == 'nb_workers="auto": 2 workers: the loop waited 25% of the time'
    assert program.descriptors() == before
    assert "\x1b" not in out


LOOP = """
import os, threading, time
from workers import Sequence

class Crops(Sequence):
    def __len__(self):
        return 1_000_000

    def __getitem__(self, index):
        time.sleep(0.01)
        return index

threading.Thread(target=lambda: (input(), os._exit(0)), daemon=True).start()
with Crops(seed=1).prefetch(nb_workers=2) as batches:
    for batch in batches:
        if batch == 20:
            print(os.getpid(), flush=True)
"""


def test_a_real_pool() -> None:
    """What a front-end's pool does is shown, and looking changes nothing."""
    program = subprocess.Popen(
        [sys.executable, "-c", LOOP], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    try:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        code, out, errors = top(pid)
        assert (code, errors) == (0, "")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        assert lines[0].startswith(f"-c pid {pid} <Crops: 1,000,000 batches, epoch 0> nb_workers 2 (process)"), lines
        assert lines[1].startswith("epoch 0 batch "), lines
        lanes = [line.split() for line in lines[3:5]]
        assert [lane[0] for lane in lanes] == ["0", "1"]
        assert all(lane[2] == "ready" for lane in lanes), lines
        assert all(_parent_of(int(lane[1])) for lane in lanes)
        assert program.poll() is None
    finally:
        program.communicate("\n", timeout=PATIENCE_S)


class Slow(Sequence[int]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        time.sleep(0.8)
        return index


def test_the_work_of_the_loop_is_no_waiting() -> None:
    """While the loop waits, it is not said to have waited longer than it has when the batch is there."""
    with Slow().prefetch(nb_workers=1, max_queue_size=1) as batches:
        engine: Any = batches._live.pool.engine  # type: ignore[union-attr]
        loop = iter(batches)
        next(loop)
        time.sleep(0.6)  # the step
        reading = threading.Thread(target=next, args=(loop,))
        reading.start()
        wait_for(lambda: engine.handover.is_waiting or not reading.is_alive())
        said = engine._publisher._snapshot()["wait_ns"]
        reading.join()
        assert 0 < said <= engine._publisher._snapshot()["wait_ns"]


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_all_programs_of_this_user(start: Callable[..., Program]) -> None:
    programs = [start(), start()]
    for arguments in ([], ["--once"]):
        code, out, errors = top(*arguments)
        assert (code, errors) == (0, "")
        for program in programs:
            assert out.count(f"publishing.py  pid {program.pid}  ") == 1
    assert f"pid {programs[1].pid} " not in top(programs[0].pid)[1]


def test_a_fork_shows_no_second_pool(start: Callable[..., Program]) -> None:
    program = start("--fork")
    (fork,) = [pid for pid in _children(program.pid) if pid != program.worker]
    assert top()[1].count("publishing.py  pid ") >= 1
    assert top()[1].count(f"pid {program.pid} ") == 1
    assert top(fork) == (1, "", f"process {fork} has no pool of workers now\n")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize(
    ("argument", "code", "message"),
    [
        ("99999999", 1, "there is no process 99999999\n"),
        (os.getpid(), 1, f"process {os.getpid()} has no pool of workers now\n"),
        ("abc", 2, "argument PID: must be a process id, an integer >= 1, not 'abc'\n"),
        ("0", 2, "argument PID: must be a process id, an integer >= 1, not '0'\n"),
    ],
    ids=["none", "without", "no number", "zero"],
)
def test_a_process_that_cannot_be_shown(argument: object, code: int, message: str) -> None:
    found, out, errors = top(argument)
    assert (found, out) == (code, "")
    assert errors.endswith(message)


@as_root
def test_programs_of_other_users_are_not_shown(start: Callable[..., Program]) -> None:
    """Though root could read them."""
    own, other = start(), start("--user=61001")
    out = top()[1]
    assert f"pid {own.pid} " in out
    assert f"pid {other.pid} " not in out
    message = f"process {other.pid} belongs to user 61001, and you (user 0) see only your own\n"
    assert top(other.pid) == (1, "", message)


@as_root
def test_no_pool(start: Callable[..., Program], capfd: pytest.CaptureFixture[str]) -> None:
    """Of a user who has none, while there are some of others."""
    from workers.top import command, finding  # noqa: F401  # another user may not be allowed to import them

    start()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            become(61002)
            code = command.main(["--once"])
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert capfd.readouterr().err == "you run no pool of workers on this machine\n"


def test_elsewhere_than_on_linux() -> None:
    program = "import sys; sys.platform = 'darwin'; from workers.top.command import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=ENVIRONMENT)
    message = "workers.top needs Linux, not 'darwin': it finds pools in /proc\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


def test_the_package_itself_does_not_need_rich() -> None:
    program = "import sys, workers, sampler; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert done.stdout == "False\n"
