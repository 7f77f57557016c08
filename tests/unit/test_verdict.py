"""What a report concludes, from figures of known causes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from workers.report.report import Slow
from workers.report.verdict import Facts, verdict

#: 1,000 batches, of which the loop has one each 5 ms, from 4 workers whose jobs take 4 ms.
FINE = Facts(
    num_batches=1000,
    wait=0.02,
    step=5.0,
    first_waits=0.01,
    begins=0.0,
    num_passes=1,
    why="",
    job=0.004,
    median_job=0.004,
    stages={"get_examples": 0.001, "augmenter": 0.0028, "transport": 0.0002},
    slowest=Slow(0, 17, 0.006),
    slow=0.03,
    batch_nbytes=4096.0,
    nb_workers=4,
    busy=0.2,
    computes=0.98,
    queues=0.0,
    cores=8,
    bound=100,
    is_bound_given=False,
)


def of(**changes: Any) -> str:
    return verdict(dataclasses.replace(FINE, **changes))


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, ["Not input-bound: the loop waited 0.4 % of the time; 1 worker would do."]),
        ({"job": 0.012}, ["Not input-bound", "3 workers would do"]),
        ({"nb_workers": 0}, ["Not input-bound", "it needs no workers"]),
        ({"num_batches": 3}, ["Too early to say: the loop has had 3 batches"]),
        ({"num_batches": 1}, ["Too early to say: the loop has had 1 batch."]),
        ({"job": 0.1}, ["Not input-bound", "4 workers would do"]),
        ({"begins": 4.0}, ["Start-up: the loop waited 4.02 s", "4.01 s of it before the first batch."]),
        (
            {"wait": 3.0, "job": 0.021, "median_job": 0.021, "busy": 0.98},
            ["Input-bound: the loop waited 38 % of the time", "A job takes 21 ms on average (augmenter: 13 % of it)."],
        ),
        (
            {"wait": 3.0, "job": 0.021, "median_job": 0.021, "busy": 0.98},
            ["own work takes 5 ms a batch: 5 workers would keep up; this machine has 8 cores."],
        ),
        ({"wait": 30.0, "job": 0.1, "median_job": 0.1, "busy": 0.98}, ["20 workers would", "A faster augmenter"]),
        (
            {"wait": 4.0, "nb_workers": 0, "busy": 0.0},
            ["It computes its batches itself, each in 4 ms on average", "1 worker would keep up; this machine"],
        ),
        (
            {"wait": 2.2, "slowest": Slow(3, 17, 2.1), "slow": 2.12},
            ["Batch 17 of epoch 3 took 2.1 s", "median is 4 ms"],
        ),
        (
            {"wait": 4.0, "nb_workers": 0, "busy": 0.0, "queues": 0.5, "computes": 0.1},
            ["It computes its batches itself"],
        ),
        ({"wait": 2.2, "is_bound_given": True, "bound": 1, "busy": 0.3}, ["max_queue_size=1", "give 10 or more"]),
        (
            {"wait": 2.2, "is_bound_given": True, "bound": 1, "slowest": Slow(3, 17, 0.06), "slow": 0.3, "busy": 0.3},
            ["max_queue_size=1"],
        ),
        (
            {"wait": 4.0, "is_bound_given": True, "bound": 1, "busy": 0.98},
            ["own work takes 5 ms a batch: 4 workers should just keep up"],
        ),
        (
            {"wait": 9.0, "batch_nbytes": 38.5e6, "job": 0.02, "stages": {"source": 0.009, "transport": 0.011}},
            ["Moving a batch of 38.5 MB takes 55 % of a job", "workers.empty()"],
        ),
        (
            {"wait": 9.0, "queues": 0.5, "nb_workers": 16},
            ["16 workers and the loop share 8 cores", "8 workers"],
        ),
        (
            {"wait": 9.0, "queues": 0.5},
            ["jobs waited for one 50 % of their time", "Other programs", "(augmenter: 70 % of it)"],
        ),
        (
            {"wait": 9.0, "computes": 0.1, "job": 0.04},
            ["computes for 10 % of it", "more workers than cores help", "8 workers would keep up."],
        ),
        (
            {"wait": 4.0, "first_waits": 3.5, "begins": 0.1, "why": "4 workers had to be started"},
            ["Start-up: the loop waited 4.1 s, 3.6 s of it", "(4 workers had to be started)", "9.1 % of the time. "],
        ),
        (
            {"wait": 4.0, "first_waits": 3.98, "slowest": Slow(0, 1, 2.5), "slow": 2.6},
            [
                "batch 1 of epoch 0 took 2.5 s (the median is 4 ms). After",
                "0.4 % of the time; 1 worker would do. Start-up comes once",
            ],
        ),
        ({"wait": 4.0, "first_waits": 3.9, "num_passes": 12}, ["batches of 12 passes. After", "Longer passes"]),
        (
            {"wait": 9.0, "first_waits": 7.0, "job": 0.1, "median_job": 0.1},
            ["Input-bound: besides 7 s before the first batch, the loop waited 29 % of the time. A job takes 100 ms"],
        ),
        ({"wait": 9.0, "reading": 7.0}, ["Reading the source takes 78 % of that, in this process", ".map()"]),
        ({"wait": 9.0, "reading": 2.0}, ["A job takes"]),
        ({"wait": 9.0, "step": 0.0005, "busy": 1.0}, ["no number of workers would keep up"]),
    ],
)
def test_the_cause_is_named(changes: dict[str, Any], parts: list[str]) -> None:
    told = of(**changes)
    for part in parts:
        assert part in told, told


def test_a_slow_batch_is_no_cause_where_the_loop_did_not_wait_for_it() -> None:
    told = of(wait=5.0, first_waits=4.1, slowest=Slow(0, 1, 4.0), slow=4.1)
    assert told.startswith("Input-bound: besides 4.1 s"), told
    assert "single slow" not in told
    late = of(wait=4.0, first_waits=1.0, slowest=Slow(3, 17, 2.1), slow=2.12)
    assert "single slow" in late


def test_a_slow_batch_is_no_cause_where_all_are_slow() -> None:
    told = of(wait=30.0, job=0.1, median_job=0.1, busy=0.99, slowest=Slow(3, 17, 2.1), slow=2.5)
    assert "Batch 17" not in told


@pytest.mark.parametrize(("lets_go", "workers_nbytes"), [(None, 10**9), (0.89, 10**9), (1.0, 10**7), (0.0, 10**9)])
def test_processes_where_threads_would_not_do(lets_go: float | None, workers_nbytes: int) -> None:
    assert "thread" not in of(lets_go=lets_go, workers_nbytes=workers_nbytes)


@pytest.mark.parametrize("others", [{}, {"wait": 3.0, "job": 0.021, "busy": 0.98}, {"begins": 4.0}])
def test_threads_where_jobs_let_go_of_the_lock(others: dict[str, Any]) -> None:
    """Whatever else there is to say: it is a matter of the memory too."""
    said = of(lets_go=0.94, workers_nbytes=812_000_000, **others)
    assert said == of(**others) + (
        ' Jobs release the interpreter\'s lock 94 % of the time: executor="thread" would be as fast, without the '
        "812 MB of 4 processes, if they draw from current_rng() only."
    )
