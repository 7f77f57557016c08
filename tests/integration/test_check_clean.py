"""``workers.check`` of sources without a fault: no false alarm, and they stay as they were. And the command."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import checked
import numpy as np
import pytest

import workers
from sampler import MultiShotMemorySampler
from workers.__main__ import _run

ROOT = Path(workers.__file__).parents[1]
ARRAYS = {"x": np.arange(4000.0).reshape(40, 100), "y": np.arange(40)}


def augment(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    return x + workers.current_rng().normal(size=x.shape), y


def drawn(sample: Any) -> Any:
    return {**sample, "noise": np.random.random(2)}


def several(number: int) -> Any:
    yield from range(number % 3)


SOURCES: dict[str, Any] = {
    "list": lambda: list(range(20)),
    "sequence": checked.Ten,
    "hooks": checked.Hooked,
    "arrays": lambda: workers.SequenceArray(ARRAYS).shuffle().batch(8),
    "sampler": lambda: MultiShotMemorySampler(ARRAYS["x"], ARRAYS["y"] // 4, augmenter=augment, steps_per_epoch=9),
    "chain": lambda: workers.SequenceArray(ARRAYS, seed=3).shuffle().map(dict).cache().map(drawn).batch(4).shard(1, 2),
    "weighted": lambda: workers.prefetch(ARRAYS["y"], 0, weights=np.arange(1.0, 41.0), batch_size=4),
    "yields": lambda: workers.prefetch(list(range(30)), 0).map(several).batch(4),
    "collated": lambda: workers.SequenceArray(ARRAYS).map(dict, collate_fn=lambda batch, source: batch),
    "rebatched": lambda: workers.SequenceArray(ARRAYS).batch(3).rebatch(4),
    "iterable": checked.Numbers,
    "iterable, mapped": lambda: workers.prefetch(checked.Numbers(), 2, batch_size=4).map(np.sqrt),
    "threads": lambda: checked.Ten().prefetch(2, executor="thread"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_no_false_alarm(name: str) -> None:
    source = SOURCES[name]()
    report = workers.check(source)
    assert [str(each) for each in report.findings if each.level != "fact"] == []
    if isinstance(source, workers.Sequence):
        source.close()


def test_an_empty_source() -> None:
    report = workers.check([])
    assert report.ok
    assert [each.text for each in report.of_kind("shapes")] == ["The epoch has no batch, so nothing could be compared."]


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report = workers.check(checked.Ten(), 1, step_ms=50.0, num_batches=3)
    assert capsys.readouterr().out == f"{report}\n"
    assert str(report).startswith("Ten: ok\n\nFacts\n- ")
    assert max(map(len, str(report).splitlines())) <= 100
    assert (report.source, report.nb_workers, report.num_batches) == ("Ten", 1, 3)
    assert [each.kind for each in report.findings] == ["shapes", "opens", "first batch", "time", "memory", "workers"]


def test_the_source_stays_as_it_was() -> None:
    source = checked.Hooked()
    attributes = {name: value for name, value in vars(source).items() if name != "_live"}
    workers.check(source)
    assert {name: value for name, value in vars(source).items() if name != "_live"} == attributes
    assert source.order.tolist() == list(range(10))
    assert source.epoch == 0
    with source.prefetch(0) as batches:
        assert [epoch for _, epoch in batches] == [0] * 10
    assert source.num_hooks == 1


def test_a_front_end_in_the_middle_of_its_epoch() -> None:
    """Its workers and its pass stay, and it draws no other numbers after it."""
    with checked.Ten().prefetch(0) as batches:
        expected = [batch["noise"] for batch in batches]
    with checked.Ten().prefetch(2) as batches:
        reading = iter(batches)
        got = [next(reading)["noise"]]
        while None in (pids := [each.pid for each in batches.report().workers]):
            time.sleep(0.01)  # a worker has not begun yet
        assert workers.check(batches, 1).ok
        assert [each.pid for each in batches.report().workers] == pids
        got += [batch["noise"] for batch in reading]
    assert np.array_equal(got, expected)


def test_no_seed_is_drawn_for_the_source() -> None:
    source = workers.SequenceArray(ARRAYS)
    assert workers.check(source).ok
    assert not {"_given_seed", "_sequence_seed"} & set(vars(source))


@pytest.mark.needs("keras", "tensorflow")
def test_sources_of_frameworks() -> None:
    """In a process of its own, as TensorFlow leaves threads."""
    program = """
import numpy as np, keras, tensorflow as tf, workers
class Images(keras.utils.PyDataset):
    order = None
    def __len__(self):
        return 6
    def on_epoch_begin(self):
        self.order = np.random.permutation(6)
    def __getitem__(self, index):
        return np.full((4, 2), self.order[index], np.float32), tf.random.uniform((4,))
data = tf.data.Dataset.range(40).shuffle(40, seed=1, reshuffle_each_iteration=False).batch(4)
unseeded = tf.data.Dataset.range(40).shuffle(40).batch(4)
reports = [workers.check(each) for each in (Images(), data, unseeded)]
assert [report.ok for report in reports] == [True, True, False]
assert "shuffle(..., seed=1)" in str(reports[2])
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


# -- the command


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["checked:Ten", "--workers", "1", "--step-ms", "50"], 0),
        (["checked:ByUrandom"], 1),
        (["checked:nothing"], 2),
        (["nothing.at.all:Ten"], 2),
        (["checked"], 2),
        (["checked:SCALE"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["check", *arguments]) == code
    out, err = capsys.readouterr()
    assert bool(out) == (code != 2)
    assert err.startswith("python -m workers check: ") == (code == 2)


def test_the_command_in_a_folder(tmp_path: Path) -> None:
    """The module is found there, and a function returns the source."""
    (tmp_path / "training.py").write_text("def batches():\n    return [1, 2, 3]\n")
    command = [sys.executable, "-m", "workers", "check", "training:batches"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("list: ok\n")
