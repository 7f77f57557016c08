"""The figures of a report are those of what has happened."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from causes import Sleeping, augmented
from faulty import wait_for, worker_processes

from workers import Report, Sequence, SequenceArray, current_job
from workers.report.timeline import LOOP

LENGTH = 30
NBYTES = 8000  # of a batch


class Rows(Sequence[Any]):
    """Batches of so many bytes. ``bad``: those of which the first ``times`` attempts raise."""

    def __init__(self, length: int = LENGTH, bad: tuple[int, ...] = (), times: int = 100, nbytes: int = NBYTES) -> None:
        super().__init__(seed=1)
        self.length, self.bad, self.times, self.nbytes = length, bad, times, nbytes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        if index in self.bad and job is not None and job.attempt < self.times:
            raise ValueError(f"batch {index}")
        time.sleep(0.003)
        return np.full(self.nbytes // 8, index)


class Hooked(Rows):
    """Changes at the end of each epoch, so that nothing is computed ahead of it."""

    def on_epoch_end(self) -> None:
        self.changes = self.epoch


def as_it_is(batch: Any) -> Any:
    return batch


def check(report: Report, is_closed: bool = False) -> None:
    """What holds for each report of a loop that is not running. Until it is closed its workers may work ahead."""
    assert report.wait.count == report.num_batches
    assert report.seconds == pytest.approx(report.wait.total + report.step.total)
    assert sum(start.wait for start in report.starts) <= report.wait.total * 1.000001
    assert 0 <= report.depth <= max(report.bound, 1)
    for worker in report.workers:
        assert 0 <= worker.busy <= 1
    if report.workers and LOOP not in {span.worker for span in report.timeline.spans}:
        num_jobs = sum(worker.num_jobs for worker in report.workers)
        assert num_jobs == report.job.count if is_closed else num_jobs >= report.job.count
    assert sum(spread.total for spread in report.stages.values()) <= report.job.total * 1.000001
    assert report.slowest == sorted(report.slowest, key=lambda slow: slow.seconds, reverse=True)
    check_timeline(report)
    assert report.verdict.endswith(".")
    assert max(map(len, str(report).splitlines())) <= 100


def check_timeline(report: Report) -> None:
    spans, steps = report.timeline.spans, report.timeline.steps
    for one, other in itertools.pairwise(steps):
        assert one.asked_ns <= one.got_ns <= other.asked_ns
    for lane in {span.worker for span in spans}:
        mine = sorted(span for span in spans if span.worker == lane)
        mine.sort(key=lambda span: span.start_ns)
        for one, other in itertools.pairwise(mine):
            assert one.start_ns + one.job_ns <= other.start_ns
    for span in spans:
        assert sum(ns for _, ns in span.stages) <= span.job_ns
        assert span.start_ns + span.job_ns <= time.monotonic_ns()
    of_loop = [span for span in spans if span.worker == LOOP]  # its jobs run while it waits
    within = [step for step in steps for span in of_loop if step.asked_ns <= span.start_ns < step.got_ns]
    assert len(within) == len(of_loop)


# (what makes it, batches in an epoch)
KINDS: dict[str, tuple[Callable[[], Any], int]] = {
    "processes": (lambda: Hooked().prefetch(nb_workers=2), LENGTH),
    "threads": (lambda: Hooked().prefetch(nb_workers=2, executor="thread"), LENGTH),
    "serial": (lambda: Hooked().prefetch(nb_workers=0), LENGTH),
    "auto": (lambda: Hooked().prefetch(), LENGTH),
    "as they come": (lambda: Hooked().prefetch(nb_workers=2, in_order=False), LENGTH),
    "skip": (lambda: Hooked(bad=(3, 4)).prefetch(nb_workers=2, on_error="skip"), LENGTH - 2),
    "skip, serial": (lambda: Hooked(bad=(3, 4)).prefetch(nb_workers=0, on_error="skip"), LENGTH - 2),
    "retry": (lambda: Hooked(bad=(3, 4), times=1).prefetch(nb_workers=2, on_error=lambda error: "retry"), LENGTH),
    "map": (lambda: Hooked().map(as_it_is, nb_workers=2), LENGTH),
    "torch": (lambda: Hooked().prefetch(nb_workers=2, output="torch"), LENGTH),
    "chain": (
        lambda: SequenceArray({"x": np.arange(100)}, seed=1).shuffle().map(as_it_is, nb_workers=2).batch(10),
        10,
    ),
    "stream": (lambda: SequenceArray({"x": np.arange(12)}, seed=1).map(as_it_is, nb_workers=2), 12),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_adds_up(kind: str) -> None:
    if kind == "torch":
        pytest.importorskip("torch")
    make, length = KINDS[kind]
    with make() as batches:
        for epoch in range(3):
            assert len([*batches]) == length
            report = batches.report()
            assert report.num_batches == (epoch + 1) * length
            assert [start.epoch for start in report.starts] == [*range(epoch + 1)]
            assert len(report.timeline.steps) == report.num_batches
            assert report.step.count == (epoch + 1) * (length - 1)
            check(report)
    after = batches.report()
    check(after, is_closed=True)
    assert after.num_batches == 3 * length
    assert {worker.pid for worker in after.workers} <= {None}


def test_bytes_and_jobs() -> None:
    """Of a sequence that changes, so that nothing is computed ahead of its second epoch."""
    with Hooked().prefetch(nb_workers=2, max_queue_size=8) as batches:
        for _ in range(3):
            for batch in batches:
                assert batch.nbytes == NBYTES
        report = batches.report()
    # Behind the first epoch it is not yet known that it changes.
    ahead = report.job.count - 3 * LENGTH
    assert 0 <= ahead <= report.bound
    assert report.nbytes % NBYTES == 0
    assert 3 * LENGTH * NBYTES <= report.nbytes <= report.job.count * NBYTES
    assert 0 < report.segments_made <= report.nb_workers * (report.bound + 2)
    spans = Counter((span.epoch, span.index) for span in report.timeline.spans)
    assert {(epoch, index) for epoch in range(3) for index in range(LENGTH)} <= spans.keys()


def test_pieces_of_shared_memory() -> None:
    """They are used again, unless the loop keeps its batches. The bound is given, for one that the pool chooses
    changes; each worker has memory of its own for as many."""
    with Rows(40, nbytes=2 << 20).prefetch(nb_workers=2, max_queue_size=8) as batches:
        for _ in batches:
            pass
        report = batches.report()
        assert 0 < report.segments_made <= report.nb_workers * (report.bound + 2)
        kept = [*batches]
        assert batches.report().segments_made >= len(kept)


def test_jobs_that_were_cancelled_do_not_count() -> None:
    """Each job takes long enough to be told of in detail."""
    with Rows(100).prefetch(nb_workers=2, max_queue_size=40) as batches:
        for _ in range(15):
            next(iter(batches))
    report = batches.report()
    assert report.job.count == len(report.timeline.spans)
    assert sum(worker.num_jobs for worker in report.workers) == report.job.count


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_starts_of_epochs(executor: Any) -> None:
    sequence = Rows()
    with sequence.prefetch(nb_workers=2, executor=executor) as batches:
        for times in (100, 100, 7):
            sequence.times = times
            for _ in batches:
                pass
        first, second, third = batches.report().starts
    changed = "the sequence had changed, and was sent to the workers again" if executor == "process" else ""
    assert (first.why, second.why, third.why) == ("2 workers had to be started", "", changed)
    with sequence.prefetch(nb_workers=2, executor=executor) as batches:
        sequence.times = 8
        next(iter(batches))
        (first,) = batches.report().starts
    assert first.why == "2 workers had to be started" + (f"; {changed}" if changed else "")
    with Rows().prefetch(nb_workers=0) as batches:
        assert len([*batches]) == LENGTH
        assert [start.why for start in batches.report().starts] == [""]


def test_the_slowest_batch() -> None:
    with Sleeping(40, 0.001, slow={23: 0.6}).prefetch(nb_workers=2) as batches:
        for _ in batches:
            pass
        report = batches.report()
    assert report.slowest[0][:2] == (0, 23)
    assert report.slowest[0].seconds >= 0.6
    assert report.job.p99 == pytest.approx(report.slowest[0].seconds, rel=0.035) or report.job.count > 100
    assert len(report.slowest) == 5


def test_stages_add_up_to_the_job() -> None:
    with augmented(0.01).prefetch(nb_workers=1) as batches:
        for _ in batches:
            pass
        report = batches.report()
    assert set(report.stages) == {"get_examples", "augmenter", "transport"}
    assert {spread.count for spread in report.stages.values()} == {report.job.count}
    in_stages = sum(spread.total for spread in report.stages.values())
    assert 0.9 * report.job.total <= in_stages <= report.job.total
    for span in report.timeline.spans:
        assert [stage for stage, _ in span.stages] == ["get_examples", "augmenter", "transport"]


def test_long_jobs_among_short_ones() -> None:
    """All long ones are told of in detail, but few of the short ones; of all is known what they had of the cores."""
    slow = range(100, 3000, 300)
    with Sleeping(3000, 0.0, slow=dict.fromkeys(slow, 0.01)).prefetch(nb_workers=1) as batches:
        assert len(list(batches)) == 3000
        pool: Any = batches._live.pool._figures.pool  # type: ignore[union-attr]
        cores, cores_of_ns = pool.cores, pool.cores_of_ns
        report = batches.report()
    spans = report.timeline.spans
    assert {*slow} <= {span.index for span in spans if span.job_ns >= 10_000_000}
    assert all(span.stages for span in spans)
    seconds = (max(span.start_ns + span.job_ns for span in spans) - min(span.start_ns for span in spans)) / 1e9
    short = [span for span in spans if span.job_ns < 1_000_000]
    assert 1 <= len(short) <= seconds / 0.005 + 1
    assert report.job.count >= 3000  # some of the next epoch
    assert len(slow) * 10_000_000 <= cores_of_ns <= report.job.total * 1e9 * 1.000001
    assert cores.had > 0


def test_a_worker_that_is_killed() -> None:
    with Rows(60).prefetch(nb_workers=2) as batches:
        got = 0
        for batch in batches:
            assert batch[0] == got
            got += 1
            if got in (10, 30):
                os.kill(wait_for(lambda: batches.report().workers[1].pid), signal.SIGKILL)
                restarts = 1 if got == 10 else 2
                wait_for(lambda number=restarts: _is_back(batches.report(), number))
        report = batches.report()
        assert {worker.pid for worker in report.workers} == {process.pid for process in worker_processes()}
    assert got == report.num_batches == 60
    assert [worker.restarts for worker in report.workers] == [0, 2]
    assert [worker.restarts for worker in batches.report().workers] == [0, 2]  # also of a pool that was closed
    assert [incident.text for incident in report.timeline.incidents if incident.kind == "died"] == [
        "killed by SIGKILL",
        "killed by SIGKILL",
    ]
    check(report)


def _is_back(report: Report, restarts: int) -> bool:
    kinds = [incident.kind for incident in report.timeline.incidents if incident.worker == 1]
    return report.workers[1].restarts == restarts and kinds[-1] == "ready"


def test_passes_that_are_left_and_gone_on_with() -> None:
    with Rows().prefetch(nb_workers=2) as batches:
        for _ in zip(range(7), batches, strict=False):
            pass
        state = batches.state_dict()
        assert batches.report().num_batches == 7
        assert len([*batches]) == LENGTH
        report = batches.report()
        assert (report.num_batches, [start.epoch for start in report.starts]) == (7 + LENGTH, [0, 1])
        check(report)
    with Rows().prefetch(nb_workers=2) as batches:
        batches.load_state_dict(state)
        assert len([*batches]) == LENGTH - 7
        report = batches.report()
        assert (report.num_batches, [start.epoch for start in report.starts]) == (LENGTH - 7, [0])
        assert min(span.index for span in report.timeline.spans if span.epoch == 0) == 7
        check(report)


class Tiny(Rows):
    def __getitem__(self, index: int) -> Any:
        return np.full(4, index)


@pytest.mark.parametrize("options", [{"nb_workers": 2}, {"nb_workers": 0}, {"nb_workers": 2, "executor": "thread"}])
def test_asked_for_while_the_loop_runs(options: dict[str, Any]) -> None:
    """By another thread, again and again: no batch is lost, and no report counts less than the one before it."""
    length, reports, errors = 6_000 if options["nb_workers"] else 1_000, [], []
    with Tiny(length).prefetch(**options) as batches:
        is_over = threading.Event()

        def ask() -> None:
            try:
                while not is_over.is_set():
                    reports.append(batches.report())
                    time.sleep(0.001)  # else it takes the interpreter's lock at each of the loop's calls
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            got = [int(batch[0]) for _ in range(2) for batch in batches]
        finally:
            is_over.set()
            thread.join()
        assert got == [*range(length)] * 2
        assert errors == []
        assert batches.report().num_batches == 2 * length
    for one, other in itertools.pairwise(reports):
        assert one.num_batches <= other.num_batches
        assert one.job.count <= other.job.count
        assert one.nbytes <= other.nbytes
        assert one.wait.count == one.num_batches
        assert one.seconds == pytest.approx(one.wait.total + one.step.total)
    assert len(reports) > 2
