"""What a report concludes of real pipelines of which it is known what makes them slow."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from causes import Computing, Importing, Large, Sleeping, augmented, loaded

from workers import Report, Sequence, prefetch

ROOT = Path(__file__).resolve().parents[2]


def after(sequence: Any, work_s: float = 0.0, **options: Any) -> Report:
    """The report of an epoch whose loop works for ``work_s`` with each batch."""
    with sequence.prefetch(**options) as batches:
        for _ in batches:
            time.sleep(work_s)
        return batches.report()  # type: ignore[no-any-return]


def is_input_bound(report: Report) -> bool:
    return report.verdict.startswith("Input-bound: ")


# On a busy machine it may be that the cores are taken: that is told then, and the stage with it.
@pytest.mark.parametrize(
    ("make", "stage"), [(augmented, "augmenter"), (loaded, "get_examples")], ids=["augmenter", "get_examples"]
)
def test_a_slow_stage(make: Any, stage: str) -> None:
    report = after(make(0.03), 0.003, nb_workers=1)
    assert is_input_bound(report), str(report)
    assert f"on average ({stage}: 9" in report.verdict, str(report)
    assert max(report.stages, key=lambda name: report.stages[name].total) == stage


@pytest.mark.parametrize("nb_workers", [1, 2])
def test_a_slow_stage_that_waits(nb_workers: int) -> None:
    report = after(Sleeping(40, 0.08), 0.002, nb_workers=nb_workers)
    assert is_input_bound(report), str(report)
    assert "the rest is waiting, perhaps for files or the network, so more workers than cores help" in report.verdict
    assert "would keep up." in report.verdict


def test_one_slow_batch() -> None:
    report = after(Sleeping(60, 0.003, slow={30: 1.5}), 0.01, nb_workers=2)
    assert is_input_bound(report), str(report)
    assert "Batch 30 of epoch 0 took 1.5" in report.verdict, str(report)
    assert "more workers would not help" in report.verdict
    assert report.slowest[0][:2] == (0, 30)


def test_a_slow_loop() -> None:
    """Threads are there at once; processes have to be started, which is told apart."""
    report = after(Sleeping(20, 0.001), 0.25, nb_workers=2, executor="thread")
    assert report.verdict.startswith("Not input-bound: "), str(report)
    assert report.verdict.endswith("; 1 worker would do.")
    report = after(Sleeping(30, 0.001), 0.05, nb_workers=2)
    assert not is_input_bound(report), str(report)
    assert "1 worker would do." in report.verdict, str(report)


@pytest.mark.parametrize(
    ("seconds", "slow", "work_s"),
    [
        pytest.param(0.002, dict.fromkeys(range(5, 60, 6), 0.1), 0.02, id="of different lengths"),
        pytest.param(0.03, {}, 0.02, id="of one length"),
        pytest.param(0.03, {}, 0.0, id="a loop that does nothing"),
    ],
)
def test_a_queue_that_is_too_small(seconds: float, slow: dict[int, float], work_s: float) -> None:
    def jobs() -> Sleeping:
        return Sleeping(60, seconds, slow)

    report = after(jobs(), work_s, nb_workers=2, max_queue_size=1)
    assert is_input_bound(report), str(report)
    assert "max_queue_size=1 does not let them work ahead. Leave it out, or give 6 or more." in report.verdict, str(
        report
    )
    assert "max_queue_size" not in after(jobs(), work_s, nb_workers=2).verdict


def test_a_queue_that_is_large_enough() -> None:
    report = after(Sleeping(80, 0.05), nb_workers=2, max_queue_size=4)
    assert is_input_bound(report), str(report)
    assert "max_queue_size" not in report.verdict, str(report)


def test_large_batches() -> None:
    report = after(Large(60), 0.001, nb_workers=1)
    assert is_input_bound(report), str(report)
    assert "Moving a batch of 38.5 MB takes" in report.verdict, str(report)


def test_a_start_that_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "takes_long.py").write_text("import time\n\ntime.sleep(1.5)\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    report = after(Importing(10), 0.02, nb_workers=2)
    assert report.verdict.startswith("Start-up: the loop waited "), str(report)
    assert " of it before the first batch (2 workers had to be started); batch " in report.verdict, str(report)
    assert "of epoch 0 took 1.5" in report.verdict, str(report)
    assert "takes_long" not in sys.modules


def test_passes_that_are_too_short() -> None:
    """More of them than the report lists one by one."""

    class Hooked(Sleeping):
        def on_epoch_end(self) -> None:
            self.seconds += 1e-9  # what has changed is sent again, so nothing is computed ahead

    with Hooked(2, 0.02).prefetch(nb_workers=1) as batches:
        for _ in range(70):
            for _ in batches:
                time.sleep(0.025)
        report = batches.report()
    assert report.verdict.startswith("Start-up: the loop waited "), str(report)
    assert "before the first batches of 70 passes" in report.verdict, str(report)
    assert report.verdict.endswith("Longer passes, or fewer, would help.")
    assert len(report.starts) == 64


@pytest.mark.parametrize("kind", [Computing, Sleeping])
def test_a_loop_without_workers(kind: Any) -> None:
    report = after(kind(30, 0.03), 0.01, nb_workers=0)
    assert is_input_bound(report), str(report)
    assert "It computes its batches itself, each in " in report.verdict, str(report)
    assert "workers would keep up; this machine has" in report.verdict


def test_a_loop_that_needs_no_workers() -> None:
    report = after(Sleeping(10), 0.5, nb_workers=0)
    assert report.verdict.startswith("Not input-bound: "), str(report)
    assert report.verdict.endswith("; it needs no workers.")


def test_after_a_few_batches() -> None:
    with Sleeping(40).prefetch(nb_workers=1) as batches:
        assert batches.report().verdict == "Too early to say: the loop has had 0 batches."
        next(iter(batches))
        assert batches.report().verdict == "Too early to say: the loop has had 1 batch."


CROWDED = """
import json, os, sys
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from causes import Computing

if __name__ == "__main__":
    with Computing(40, 0.03).prefetch(nb_workers=4) as batches:
        for _ in batches:
            pass
        report = batches.report()
    print(json.dumps([report.verdict, report.cores]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be pinned to a core here")
def test_more_workers_than_cores(tmp_path: Path) -> None:
    script = tmp_path / "crowded.py"
    script.write_text(CROWDED)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
    told, cores = json.loads(done.stdout)
    assert cores == 1
    assert told.startswith("Input-bound: "), told
    assert "The cores are taken: 4 workers and the loop share 1 core" in told, told
    assert told.endswith(" 1 worker would do as much."), told


class Holding(Sequence[Any]):
    """Jobs of 25 ms that hold the interpreter's lock all the time, or hardly; and memory of each worker's own."""

    def __init__(self, holds: bool) -> None:
        super().__init__(seed=1)
        self.holds = holds
        self.data = os.urandom(300_000)
        self.own: Any = None

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> int:
        self.own = np.ones(30_000_000, np.uint8) if self.own is None else self.own
        number, end_s = 0, time.monotonic() + 0.025
        while time.monotonic() < end_s:
            number += 1 if self.holds else len(zlib.compress(self.data))
        return number


@pytest.mark.parametrize("holds", [False, True])
@pytest.mark.parametrize("nb_workers", [1, 2])
def test_whether_threads_would_do(holds: bool, nb_workers: int) -> None:
    with Holding(holds).prefetch(nb_workers) as batches:
        figures, epochs = batches._live.figures.pool, 0
        while figures.lock_looks < 40 and epochs < 40:
            epochs += sum(1 for _ in batches) // 30
        said = batches.report().verdict
    assert figures.lock_looks >= 40
    assert ('executor="thread" would be as fast' in said) == (not holds)


class SlowLines:
    def __iter__(self) -> Any:
        for number in range(150):
            time.sleep(0.01)
            yield number


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_a_source_that_is_slow_to_read(nb_workers: int) -> None:
    with prefetch(SlowLines(), nb_workers).map(str) as batches:
        for _ in range(2):
            list(batches)
        report = batches.report()
    assert is_input_bound(report), str(report)
    assert "Reading the source takes" in report.verdict, str(report)
