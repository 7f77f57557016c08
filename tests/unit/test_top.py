"""What ``workers.top`` makes of snapshots: rates, and how they look."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from faulty import wait_for
from publishing import become, lane, snapshot
from rich.console import Console

from workers.top.drawing import Cropped, Shown, duration, pools
from workers.top.rates import STALE_NS, WINDOW_NS, RateHistory, rates
from workers.top.usage import Process, Processes, ProcessUse

S = 1_000_000_000
T = 100 * S  # any time
MB = 1_000_000


def at(seconds: float, **changed: Any) -> Any:
    return snapshot(at_ns=T + int(seconds * S), **changed)


def test_rates_are_what_has_changed_over_the_time_between() -> None:
    before = at(0, batches=100, nbytes=100 * MB, wait_ns=S, workers=[lane(0, jobs=50, busy_ns=3 * S), lane(1)])
    after = at(2, batches=130, nbytes=160 * MB, wait_ns=S + S // 2, workers=[lane(0, jobs=56, busy_ns=4 * S), lane(1)])
    found = rates(before, after)
    assert (found.batches, found.nbytes, found.wait) == (15.0, 30.0 * MB, 0.25)
    assert found.lanes == {0: (0.5, 3.0), 1: (0.0, 0.0)}


@pytest.mark.parametrize(
    ("before", "after", "busy"),
    [
        pytest.param({}, {"index": 7, "since_ns": T + S}, 0.5, id="it has begun one"),
        pytest.param({"index": 7, "since_ns": T - 9 * S}, {"index": 7, "since_ns": T - 9 * S}, 1.0, id="a long one"),
        pytest.param({"index": 7, "since_ns": T - S}, {"busy_ns": 2 * S}, 0.5, id="it has finished one"),
        pytest.param({"index": 7, "since_ns": T - S}, {"restarts": 1}, 0.0, id="it has died in one"),
        pytest.param({}, {"busy_ns": 5 * S}, 1.0, id="more than there is"),
    ],
)
def test_the_job_that_a_worker_is_in_counts(before: dict[str, int], after: dict[str, int], busy: float) -> None:
    found = rates(at(0, workers=[lane(3, **before)]), at(2, workers=[lane(3, **after)]))
    assert found.lanes[3].busy == busy


def test_workers_come_and_go() -> None:
    found = rates(at(0, workers=[lane(0), lane(1)]), at(2, workers=[lane(1, jobs=4), lane(2, jobs=9)]))
    assert found.lanes == {1: (0.0, 2.0)}


def test_rates_are_of_the_last_seconds() -> None:
    """Fast for a minute, then slow."""
    history = RateHistory(at(0))
    assert history.rates() is None
    for half in range(1, 121):
        history.add(at(half / 2, batches=100 * half), T + half * S // 2)
    found = history.rates()
    assert found is not None
    assert found.batches == 200.0
    for half in range(121, 121 + 2 * WINDOW_NS // S):
        history.add(at(half / 2, batches=12_000 + half - 120), T + half * S // 2)
    found = history.rates()
    assert found is not None
    assert found.batches == 2.0


def test_rates_of_a_moment_are_none() -> None:
    history = RateHistory(at(0))
    history.add(at(0.01, batches=1), T + S // 100)
    assert history.rates() is None


def test_a_pool_that_has_nothing_new_to_say() -> None:
    """At first it may only be late; then it does nothing, or what it did."""
    history = RateHistory(at(0, workers=[lane(0)]))
    said = at(1, batches=50, workers=[lane(0, index=3, since_ns=T + S)])
    history.add(said, T + S)
    history.add(said, T + S + STALE_NS)
    assert history.last is said
    for late in range(5, 60):
        history.add(said, T + late * S)
    found = history.rates()
    assert found is not None
    assert (found.batches, found.lanes[0].busy) == (0.0, 1.0)
    assert history.last["at_ns"] == T + 59 * S
    history.add(at(61, batches=60), T + 61 * S)
    found = history.rates()
    assert found is not None
    assert found.batches > 0


@pytest.fixture
def busy() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield process.pid
    process.kill()
    process.wait()


def test_what_processes_use(busy: int) -> None:
    processes = Processes()
    first = processes.look({busy, os.getpid()})
    assert first[busy].cpu is None
    own = first[os.getpid()].nbytes
    assert own is not None
    assert 0 < own <= psutil.Process().memory_info().rss * 2
    assert wait_for(lambda: (processes.look({busy})[busy].cpu or 0) > 0.2)


def test_a_process_that_has_ended_uses_nothing(busy: int) -> None:
    processes = Processes()
    assert set(processes.look({busy})) == {busy}
    psutil.Process(busy).kill()
    wait_for(lambda: psutil.Process(busy).status() == psutil.STATUS_ZOMBIE)
    os.waitpid(busy, 0)
    assert processes.look({busy}) == {}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
def test_where_its_own_memory_may_not_be_seen_it_is_all_of_it() -> None:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            become(61234)
            use = Process(os.getppid()).look()
            code = 0 if use.nbytes and not use.is_own else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def drawn(shown: list[Shown], width: int, height: int = 50) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False, color_system=None)
    console.print(Cropped(pools(shown)), end="")
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


WORKERS = [
    lane(0, pid=4711, jobs=10, busy_ns=S, epoch=3, index=19, since_ns=T + S),
    lane(1, state="ended", restarts=2),
]
BEFORE = at(0, workers=[lane(0), lane(1)])
AFTER = at(2, batches=40, nbytes=2468 * MB, wait_ns=S // 5, workers=WORKERS, choice="3, as")


@pytest.mark.parametrize("width", [60, 80, 120, 300])
def test_a_pool_on_screens_of_any_width(width: int) -> None:
    uses = {4711: ProcessUse(1.034, 33 * MB)}
    after: Any = {**AFTER, "since": time.time() - 7200}
    lines = drawn([Shown(after, rates(BEFORE, AFTER), uses)], width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    for part in ("publishing.py pid", "epoch 3 batch 17/40 20.0 batches/s 1,234 MB/s", "queue 5/8", "as"):
        assert part in text
    if width >= 80:
        rows = [line.split() for line in lines if "ready" in line or "ended" in line]
        assert rows[0][:3] == ["0", "4711", "ready"]
        assert rows[0][4:] == ["100%", "5.00", "103%", "33", "MB", "0", "3", "19", "1.000", "s"]
        assert rows[1] == ["1", "-", "ended", "0%", "0.00", "-", "-", "2"]
    if width >= 120:
        assert "nb_workers 2 (process)  up 2.0 h" in lines[0]
        assert 'nb_workers="auto": 3, as' in lines[-1]


def test_what_is_not_known_is_a_dash() -> None:
    unknown = at(0, length=None, workers=[lane(0, pid=4711)])
    lines = drawn([Shown(unknown, None, {4711: ProcessUse(None, 12_000 * MB, is_own=False)})], 120)
    assert "batch 17  - batches/s  - MB/s  loop waits -" in lines[1]
    assert lines[3].split() == ["0", "4711", "ready", "-", "-", "-", "12", "GB", "(RSS)", "0"]


def test_what_does_not_fit_is_said() -> None:
    many = at(0, workers=[lane(number) for number in range(100)])
    lines = drawn([Shown(many, None, {})] * 2, 100, 10)
    assert len(lines) == 10
    assert lines[-1] == "... 198 more lines: enlarge the window, or give a PID"
    assert len(drawn([Shown(many, None, {})] * 2, 100, 207)) == 207


def test_names_do_nothing_to_the_terminal() -> None:
    odd = at(0, name="[red]\x1b[2J\udc80\n", program="\x07a", choice="\x9b1m")
    text = "\n".join(drawn([Shown(odd, None, {})], 120))
    assert "[red]?[2J??" in text
    assert "?a  pid" in text
    assert not [each for each in text if not each.isprintable() and each != "\n"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "0.012 s"), (42, "42.0 s"), (1000, "17 min"), (18_720, "5.2 h"), (270_000, "3.1 days")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text
