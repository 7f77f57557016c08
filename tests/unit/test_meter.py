"""The figures that a loop hands to loggers: what they are made from, and that differences add up."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from workers.report.durations import DurationSum
from workers.report.figures import Meter, Tally, figures_between
from workers.report.loop import Totals

MS = 1_000_000
BEFORE = Tally(
    loop=Totals(10, 40 * MS, 90 * MS, 15, 1, 30 * MS),
    start_s=0.5,
    nbytes=1000,
    jobs=DurationSum(12, 120 * MS),
    stages={"source": DurationSum(2, 10 * MS)},
    failures={"skipped": 1},
    restarts=1,
    cache_hits=5,
    cache_misses=20,
    nb_workers=3,
    bound=8,
)
NOW = Tally(
    loop=Totals(60, 140 * MS, 490 * MS, 215, 3, 50 * MS),
    start_s=0.75,
    nbytes=9000,
    jobs=DurationSum(52, 1120 * MS),
    stages={"source": DurationSum(12, 60 * MS), "transport": DurationSum(4, 2 * MS)},
    failures={"skipped": 3, "retried": 7},
    restarts=2,
    cache_hits=35,
    cache_misses=30,
    nb_workers=4,
    bound=10,
)
SUMS = "batches", "bytes", "jobs", "restarts", "failures_skipped", "failures_retried", "cache_hits", "cache_misses"


def test_each_figure() -> None:
    assert figures_between(BEFORE, NOW) == {
        "seconds": 0.5,
        "batches": 50,
        "batches_per_s": 100.0,
        "bytes": 8000,
        "wait_s": 0.1,
        "wait_share": 0.2,
        "wait_ms": 2.0,
        "step_ms": pytest.approx(400 / 48),  # two of the 50 batches were the first of a pass
        "start_s": 0.25,
        "depth": 4.0,
        "bound": 10,
        "jobs": 40,
        "job_ms": 25.0,
        "stage_source_ms": 5.0,
        "stage_transport_ms": 0.5,
        "workers": 4,
        "restarts": 1,
        "failures_skipped": 2,
        "failures_redrawn": 0,
        "failures_retried": 7,
        "cache_hits": 30,
        "cache_misses": 10,
        "cache_share": 0.75,
    }


def test_nothing_has_happened() -> None:
    figures = figures_between(NOW, NOW)
    assert {name for name, value in figures.items() if value} == {"workers", "bound"}
    assert set(figures_between(Tally(), Tally()).values()) == {0}


def test_readers_do_not_disturb_each_other() -> None:
    one, other = Meter(), Meter(BEFORE)
    assert one.read(lambda: BEFORE)["batches"] == 10
    assert other.read(lambda: NOW)["batches"] == 50
    assert one.read(lambda: NOW)["batches"] == 50
    assert one.read(lambda: NOW)["batches"] == other.read(lambda: NOW)["batches"] == 0


def test_differences_add_up_in_threads() -> None:
    """Each reading takes what has come since the one before it, whoever reads."""
    meter, counting, number, found = Meter(), threading.Lock(), [0], list[Any]()

    def tally() -> Tally:
        with counting:
            number[0] += random.randrange(3)
            n = number[0]
        return Tally(
            loop=Totals(n), nbytes=n, jobs=DurationSum(n, n), failures={"skipped": n, "retried": n}, restarts=n,
            cache_hits=n, cache_misses=n,
        )  # fmt: skip

    def read() -> None:
        found.extend(meter.read(tally) for _ in range(300))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(figures[name] for figures in found for name in SUMS) >= 0
    assert {sum(figures[name] for figures in found) for name in SUMS} == {number[0]}
