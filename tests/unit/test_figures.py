"""What is noted while a loop runs, and how it adds up."""

from __future__ import annotations

import random
import sys
import threading

import numpy as np
import pytest

from workers.job.context import stages
from workers.job.cores import Cores, CoreUse
from workers.report import units
from workers.report.durations import Durations
from workers.report.loop import LoopFigures, Totals
from workers.report.pool import PoolFigures


@pytest.mark.parametrize("number", [1, 100, 5000, 20_000])
def test_spread(number: int) -> None:
    draw = np.random.default_rng(number)
    all_ns = (10 ** draw.uniform(2, 9, number)).astype(np.int64)
    durations = Durations()
    for ns in all_ns.tolist():
        durations.note(ns)
        durations.tidy()
    spread = durations.spread()
    assert spread.count == number
    assert spread.total == pytest.approx(all_ns.sum() / 1e9)
    for found, share in ((spread.median, 0.5), (spread.p99, 0.99)):
        wanted = np.quantile(all_ns, share, method="inverted_cdf") / 1e9
        assert found == pytest.approx(wanted, rel=0.035)


def test_spread_of_nothing_and_of_extremes() -> None:
    durations = Durations()
    assert durations.spread().count == 0
    durations.note_all([0, 1, 2**62])
    assert durations.spread().count == 3


@pytest.mark.parametrize("lengths", [[1], [3, 2], [5000, 1, 0, 7], [4096, 4096], [0, 0, 9]])
def test_loop(lengths: list[int]) -> None:
    """A clock of our own: passes of batches that are waited for 2 ns each, with steps of 10 ns between them."""
    loop, now, draw = LoopFigures(), 1000, random.Random(0)
    for epoch, length in enumerate(lengths):
        loop.begin(epoch, 0.5, f"pass {epoch}")
        now += 10**6  # between passes, which is no step
        for _ in range(length):
            loop.note(now, now + 2, 3)
            now += 12
            if draw.random() < 0.01:
                loop.totals()
    steps = sum(max(0, length - 1) for length in lengths)
    passes, batches = sum(length > 0 for length in lengths), sum(lengths)
    assert loop.totals() == Totals(batches, 2 * batches, 10 * steps, 3 * batches, passes, 2 * passes)
    copy = loop.copy()
    wait, step = copy.spreads
    assert (wait.count, step.count) == (sum(lengths), steps)
    assert [start.epoch for start in copy.starts()] == [epoch for epoch, length in enumerate(lengths) if length]
    assert all(start.wait == 2e-9 and start.why == f"pass {start.epoch}" for start in copy.starts())
    kept = copy.steps()
    assert len(kept) >= min(sum(lengths), 4000)
    assert all(each.got_ns - each.asked_ns == 2 and each.num_ready == 3 for each in kept)


@pytest.mark.parametrize("of", ["durations", "loop"])
def test_who_reads_while_others_write_misses_nothing(of: str) -> None:
    durations, loop, total = Durations(), LoopFigures(), 400_000
    is_over = threading.Event()

    def write() -> None:
        for at in range(1, total + 1):
            if of == "durations":
                durations.note(1000)
                durations.tidy()
            else:
                loop.note(at, at + 1, 0)
        is_over.set()

    before, interval = 0, sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=write)
    thread.start()
    try:
        while not is_over.is_set():
            copy = loop.copy()
            spread = durations.spread() if of == "durations" else copy.spreads[0]
            assert before <= spread.count <= total
            before = spread.count
            if of == "loop":
                assert copy.totals().num_batches == spread.count
            else:
                assert round(spread.total * 1e6) == spread.count
    finally:
        thread.join()
        sys.setswitchinterval(interval)


def test_all_passes_count_also_those_that_are_not_kept() -> None:
    loop = LoopFigures()
    for epoch in range(200):
        loop.begin(epoch, 0.5, "")
        loop.note(1000 * epoch + 1, 1000 * epoch + 11, 0)
    copy = loop.copy()
    assert (copy.begins, copy.totals()) == (100.0, Totals(200, 2000, 0, 0, 200, 2000))
    assert [start.epoch for start in copy.starts()] == [*range(136, 200)]


def test_a_worker_is_busy_from_when_it_is_ready() -> None:
    pool = PoolFigures()
    pool.started(0, 4711)
    lane = pool.lanes[0]
    assert lane.ready_ns(2**62) == 0
    pool.ready(0)
    assert lane.ready_ns(lane.since_ns + 7) == 7
    assert lane.ready_ns(lane.since_ns - 7) == 0
    pool.ended(0, "killed")
    assert 0 < lane.ready_ns(0) == lane.alive_ns == lane.ready_ns(2**62)
    pool.started(0)
    assert lane.ready_ns(2**62) == lane.alive_ns


def test_a_copy_changes_nothing() -> None:
    loop = LoopFigures()
    loop.begin(0, 0.0, "")
    loop.note(1, 2, 0)
    loop.copy()
    loop.note(5, 7, 0)
    assert loop.totals() == Totals(2, 3, 3, 0, 1, 1)


def test_stages() -> None:
    assert stages([], 5) == ()
    assert stages([("source", 1)], 5) == (("source", 4),)
    assert stages([("source", 1), ("get_examples", 2), ("augmenter", 4), ("transport", 9)], 10) == (
        ("get_examples", 3),
        ("augmenter", 5),
        ("transport", 1),
    )
    assert stages([("source", 1), ("function_to_run", 2)], 7) == (("source", 1), ("function_to_run", 5))
    many = [(("get_examples", "augmenter")[at % 2], at) for at in range(40)]
    assert stages(many, 40) == (("get_examples", 20), ("augmenter", 20))


def test_workers_that_come_again() -> None:
    pool = PoolFigures()
    for how in ("killed", "", "killed"):
        pool.started(0, 4711)
        pool.ready(0)
        pool.ended(0, how)
    pool.started(0)
    lane = pool.lanes[0]
    assert (lane.restarts, lane.state, lane.pid) == (2, "starting", None)
    kinds = [incident.kind for incident in pool.incidents]
    assert kinds == ["started", "ready", "died", "started", "ready", "ended", "started", "ready", "died", "started"]
    pool.ended(0)
    assert lane.restarts == 2


def test_the_slowest() -> None:
    pool, draw = PoolFigures(), random.Random(1)
    times = [draw.randrange(10**9) for _ in range(500)]
    for index, ns in enumerate(times):
        pool.span(0, 0, index, 0, ns, ())
    wanted = sorted(((ns, 0, index) for index, ns in enumerate(times)), reverse=True)[:5]
    assert sorted(pool.slowest, reverse=True) == wanted


def test_cores() -> None:
    cores = Cores()
    before = cores.use()
    sum(range(2_000_000))
    used = cores.use().since(before)
    cores.close()
    assert used.had > 0
    assert used.wanted >= 0
    assert cores.use().wanted == 0
    assert CoreUse(5, 3).since(CoreUse(1, 1)) == CoreUse(4, 2)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (units.seconds(2.1), "2.1 s"),
        (units.seconds(0.021), "21 ms"),
        (units.seconds(0.99996), "1 s"),
        (units.seconds(4.5e-4), "450 us"),
        (units.seconds(3e-8), "30 ns"),
        (units.seconds(0), "0 s"),
        (units.seconds(3600), "3,600 s"),
        (units.nbytes(38_535_168), "38.5 MB"),
        (units.nbytes(4096), "4.1 KB"),
        (units.nbytes(12), "12 bytes"),
        (units.share(0.374), "37 %"),
        (units.share(0.004), "0.4 %"),
        (units.share(0.0), "0 %"),
        (units.share(1.0), "100 %"),
        (units.count(1, "batch", "batches"), "1 batch"),
        (units.count(1200, "worker"), "1,200 workers"),
    ],
)
def test_units(text: str, wanted: str) -> None:
    assert text == wanted
