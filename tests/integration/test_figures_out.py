"""``figures()`` and ``report().as_dict()``: numbers that are those of what has happened, for any logger."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from faulty import wait_for, worker_processes

from workers import Sequence, StateError
from workers.report.figures import Meter

LENGTH = 12
NBYTES = 800  # of a batch
SUMS = "batches", "seconds", "bytes", "wait_s", "start_s", "jobs", "cache_hits", "cache_misses", "failures_skipped"
KINDS: dict[str, dict[str, Any]] = {
    "processes": {"nb_workers": 2},
    "threads": {"nb_workers": 2, "executor": "thread"},
    "serial": {"nb_workers": 0},
    "auto": {"nb_workers": "auto"},
    "as they come": {"nb_workers": 2, "in_order": False},
}


class Rows(Sequence[Any]):
    """``bad`` batches raise."""

    def __init__(self, bad: tuple[int, ...] = ()) -> None:
        super().__init__(seed=1)
        self.bad = bad

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise ValueError(f"batch {index}")
        time.sleep(0.006)
        return np.full(NBYTES // 8, index)


class Hooked(Rows):
    """Changes at the end of each epoch, so that nothing is computed ahead of it."""

    def on_epoch_end(self) -> None:
        self.changes = self.epoch


def settled(batches: Any) -> dict[str, float]:
    """The figures of the whole loop, once no worker is at work any more: nothing is computed ahead of an epoch."""
    number = -1.0

    def is_settled() -> bool:
        nonlocal number
        before, number = number, batches.report().as_dict()["jobs"]
        return before == number

    wait_for(is_settled)
    return batches.report().as_dict()  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", KINDS)
def test_each_figure(kind: str) -> None:
    """Against what the timeline has recorded, job by job and step by step."""
    with Hooked().prefetch(**KINDS[kind]) as batches:
        for _ in range(3):
            for _ in batches:
                time.sleep(0.001)
        figures, timeline = settled(batches), batches.report().timeline
        workers = batches.report().nb_workers
    wait_ns = sum(step.got_ns - step.asked_ns for step in timeline.steps)
    pairs = [(one, two) for at, (one, two) in enumerate(zip(timeline.steps, timeline.steps[1:], strict=False), 1)
             if at % LENGTH]  # fmt: skip
    step_ns = sum(two.asked_ns - one.got_ns for one, two in pairs)
    jobs_ns = [span.job_ns for span in timeline.spans]
    stages = Counter[str]()
    for span in timeline.spans:
        stages.update(dict(span.stages))
    assert figures["batches"] == len(timeline.steps) == 3 * LENGTH
    assert figures["seconds"] == pytest.approx((wait_ns + step_ns) / 1e9)
    assert figures["batches_per_s"] == pytest.approx(3 * LENGTH / figures["seconds"])
    assert figures["wait_s"] == pytest.approx(wait_ns / 1e9)
    assert figures["wait_share"] == pytest.approx(wait_ns / (wait_ns + step_ns))
    assert figures["wait_ms"] == pytest.approx(wait_ns / 1e6 / (3 * LENGTH))
    assert figures["step_ms"] == pytest.approx(step_ns / 1e6 / (3 * (LENGTH - 1)))
    assert figures["step_ms"] >= 1
    assert figures["depth"] == pytest.approx(sum(step.num_ready for step in timeline.steps) / (3 * LENGTH))
    assert figures["jobs"] == len(jobs_ns) == 3 * LENGTH
    assert figures["job_ms"] == pytest.approx(sum(jobs_ns) / 1e6 / len(jobs_ns))
    assert {name: figures[f"stage_{name}_ms"] for name in stages} == {
        name: pytest.approx(sum(ns) / len(ns) / 1e6)
        for name in stages
        for ns in [[dict(span.stages)[name] for span in timeline.spans if name in dict(span.stages)]]
    }
    assert figures["workers"] == workers
    assert figures["bound"] == timeline.bound
    if kind in ("processes", "as they come"):
        assert (figures["workers"], figures["bytes"]) == (2, pytest.approx(3 * LENGTH * NBYTES, rel=0.3))
    assert not [name for name in figures if name.startswith(("failures", "cache", "restarts")) and figures[name]]


@pytest.mark.parametrize("kind", ["processes", "serial", "auto"])
def test_differences_add_up(kind: str) -> None:
    """Over epochs, a loop that is left, a state that is loaded, and ``close()``; whoever else reads."""
    found, own = [], Meter()
    with Rows().prefetch(**KINDS[kind]) as batches:
        live = batches._live
        for at, _ in enumerate(batches):
            if at % 5 == 0:
                found.append(batches.figures())
            if at == 7:
                state = batches.state_dict()
                others = own.read(live.tally)
        for at, _ in enumerate(batches):
            if at == 3:
                found.append(batches.figures())
                break
        batches.load_state_dict(state)
        assert len(list(batches)) == LENGTH - 8
        found.append(batches.figures())
        first = batches.figures()
        assert (first["batches"], first["wait_share"], first["batches_per_s"]) == (0, 0, 0)
    found.append(batches.figures())
    whole = batches.report().as_dict()
    assert [figures["batches"] for figures in found] == [1, 5, 5, 1 + 4, LENGTH - 8, 0]
    for name in SUMS:
        assert sum(figures[name] for figures in (*found, first)) == pytest.approx(whole[name]), name
    assert others["batches"] == 8
    assert own.read(live.tally)["batches"] == whole["batches"] - 8
    assert json.loads(json.dumps(whole)) == whole
    assert batches.figures() | {"workers": 0, "bound": 0} == dict.fromkeys(whole, 0)


def test_faults_and_caches() -> None:
    with Rows(bad=(3, 4)).prefetch(nb_workers=2, on_error="skip") as batches:
        next(iterator := iter(batches))
        os.kill(worker_processes()[0].pid, signal.SIGKILL)
        assert len(list(iterator)) == LENGTH - 3
        wait_for(lambda: batches.report().as_dict()["restarts"])
        figures = batches.figures()
        assert (figures["batches"], figures["restarts"], figures["failures_skipped"]) == (LENGTH - 2, 1, 2)
        assert batches.figures()["restarts"] == 0
    assert batches.report().as_dict()["restarts"] == 1
    with Rows().cache().prefetch(nb_workers=1) as batches:
        cached = []
        for _ in range(2):
            list(batches)
            cached.append(batches.figures())
    told = [[each[f"cache_{name}"] for name in ("hits", "misses", "share")] for each in cached]
    assert told == [[0, LENGTH, 0], [LENGTH, 0, 1]]


def test_after_close_of_auto() -> None:
    """How many workers it had, as a record of the run."""
    with Hooked().prefetch() as batches:
        wait_for(lambda: list(batches) and batches.report().nb_workers)
        number = batches.report().nb_workers
    assert batches.report().as_dict()["workers"] == batches.figures()["workers"] == number


def test_while_another_thread_reads() -> None:
    with Hooked().prefetch(nb_workers=2) as batches:
        found, is_over = [], threading.Event()

        def look() -> None:
            while not is_over.is_set():
                found.append(batches.figures())

        thread = threading.Thread(target=look)
        thread.start()
        for _ in range(2):
            list(batches)
        is_over.set()
        thread.join()
        found.append(batches.figures())
    assert sum(figures["batches"] for figures in found) == 2 * LENGTH
    assert min(min(figures.values()) for figures in found) >= 0


def test_a_sequence_that_nothing_reads() -> None:
    with pytest.raises(StateError, match=r"give fit or the loop a \.prefetch\(\) of this Hooked"):
        Hooked().figures()
