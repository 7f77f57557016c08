"""Samples and batches that fail are counted and listed, on any workers; ``max_failures`` and ``retry_wait``."""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import Any

import numpy as np
import pytest

import workers
from workers import TooManyFailuresError, current_job, pad, prefetch

WORKERS = [(0, "process"), (2, "process"), (2, "thread"), ("auto", "process")]
BAD = [4, 13, 22, 31]
LENGTH = 40


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "workers")


class Damaged:
    """Some of its samples raise."""

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        if index in BAD:
            raise ValueError(f"bad {index}")
        return np.int64(index)


def skip(error: BaseException) -> str:
    return "skip"


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("on_error", ["skip", "redraw", skip])
@pytest.mark.parametrize("collate_fn", [None, pad()])
def test_failed_samples_are_listed(nb_workers: Any, executor: str, on_error: Any, collate_fn: Any) -> None:
    """Each is listed once an epoch, with its batch. Batches that are computed ahead of the loop add none."""
    options: dict[str, Any] = {"on_error": on_error, "nb_workers": nb_workers, "executor": executor, "seed": 1}
    with prefetch(Damaged(), batch_size=4, collate_fn=collate_fn, **options) as batches:
        for _ in range(2):
            list(batches)
        loop = iter(batches)
        for _ in range(3):
            next(loop)
        failures = batches.report().failures
        what = on_error if on_error == "redraw" else "skip"
        wanted = [(epoch, bad // 4, bad) for epoch in range(2) for bad in BAD] + [(2, 1, 4)]
        extra = [(2, 3, 13)]  # the batch that fills the third one, if samples are skipped
        assert [(each.epoch, each.batch, each.sample) for each in failures] in (wanted, wanted + extra)
        assert {each.what for each in failures} == {{"redraw": "redrawn", "skip": "skipped"}[what]}
        assert {(each.sample, each.error, each.times) for each in failures} == {
            (bad, f"ValueError: bad {bad}", 1) for bad in BAD
        }
        assert f"{len(failures)} {failures[0].what}; the last one, epoch 2, sample" in " ".join(
            str(batches.report()).split()
        )


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_failed_batches_are_listed(nb_workers: Any, executor: str) -> None:
    with prefetch(Damaged(), nb_workers, executor=executor, on_error="skip") as batches:
        assert len(list(batches)) == LENGTH - len(BAD)
        found = [(each.batch, each.sample, each.what) for each in batches.report().failures]
    assert found == [(bad, None, "skipped") for bad in BAD]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("on_error", ["skip", "redraw", skip])
@pytest.mark.parametrize(("limit", "allowed"), [(3, 3), (0.05, 2), (0, 0), (0.1, 4), (4, 4)])
def test_too_many_failures(nb_workers: Any, executor: str, on_error: Any, limit: float, allowed: int) -> None:
    """The batch in which one too many is lost is an error, the same one on any workers; each epoch counts anew."""
    options: dict[str, Any] = {"nb_workers": nb_workers, "executor": executor, "seed": 1}
    with prefetch(Damaged(), batch_size=4, on_error=on_error, max_failures=limit, **options) as batches:
        for epoch in range(2):
            loop, found = iter(batches), []
            if allowed < len(BAD):
                with pytest.raises(TooManyFailuresError, match=f"of epoch {epoch} have failed") as raised:
                    found.extend(loop)
                assert f"max_failures={limit} allows {allowed}: " in str(raised.value)
                assert [each.sample for each in raised.value.failures] == BAD[: allowed + 1]
                assert len(found) <= BAD[allowed] // 4
            else:
                assert len(list(loop)) in (9, 10)


def test_what_is_made_of_failures_only_in_a_loop() -> None:
    """Of a plain sequence nobody counts them, and an index has one batch."""
    samples = prefetch(Damaged(), 0, batch_size=4, collate_fn=pad(), on_error="skip")
    assert samples[1].tolist() == [5, 6, 7]
    assert [len(batch) for batch in samples.source_split] == [4, 3, 4, 3, 4, 3, 4, 3, 4, 4]


@pytest.mark.needs("torch")
@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_with_tensors_that_are_moved_ahead(nb_workers: Any) -> None:
    with prefetch(Damaged(), nb_workers, batch_size=4, on_error="redraw", output="torch", seed=1) as batches:
        found = [batch.tolist() for batch in batches.to_device("cpu", depth=3)]
        assert len(found) == 10
        assert [each.sample for each in batches.report().failures] == BAD


class Flaky:
    """Each second batch fails the first two times."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> Any:
        for attempt in range(2 * (index % 2)):
            job = current_job()  # the next epoch's may run already
            tried = self.folder / f"{job and job.epoch}.{index}.{attempt}"
            if not tried.exists():
                tried.touch()
                raise OSError("no answer")
        return np.array([index, time.monotonic_ns()])


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_retries_wait(tmp_path: Any, nb_workers: Any, executor: str) -> None:
    """Longer each time; each is listed, and none counts as lost."""
    options: dict[str, Any] = {"nb_workers": nb_workers, "executor": executor}
    start_ns = time.monotonic_ns()
    with prefetch(Flaky(tmp_path), on_error="retry", retry_wait=0.05, **options) as batches:
        found = list(batches)
        failures = [(each.batch, each.what, each.times) for each in batches.report().failures]
    assert [batch[0] for batch in found] == list(range(6))
    assert found[-1][1] - start_ns >= 3 * 150_000_000
    assert failures == [(index, "retried", 2) for index in (1, 3, 5)]


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_retries_end(tmp_path: Any, nb_workers: int) -> None:
    with prefetch(Flaky(tmp_path), nb_workers, on_error="retry", max_retries=1) as batches:
        loop = iter(batches)
        assert next(loop)[0] == 0
        with pytest.raises(OSError, match="no answer"):
            next(loop)
        assert next(loop)[0] == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_failures": 3}, 'max_failures counts the samples that on_error="skip"'),
        ({"max_failures": 3, "on_error": "retry"}, "max_failures counts"),
        ({"max_failures": -1, "on_error": "skip"}, "an integer >= 0, or a share of the samples between 0 and 1"),
        ({"max_failures": 1.5, "on_error": "skip"}, "a share of the samples between 0 and 1"),
        ({"retry_wait": 1.0}, 'give on_error="retry"'),
        ({"retry_wait": -1.0, "on_error": "retry"}, "retry_wait must be"),
        ({"on_error": "ignore"}, "one of 'raise', 'skip', 'redraw', 'retry'"),
    ],
)
def test_wrong_options(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        prefetch(Damaged(), 0, **options)
    assert error in str(raised.value)


def test_a_share_of_what_has_no_length() -> None:
    with pytest.raises(TypeError, match="is unknown: give a number of samples"):
        prefetch(iter([1, 2]), 0, on_error="skip", max_failures=0.5)
    assert issubclass(TooManyFailuresError, workers.PrefetchError)


BEHIND: dict[str, Any] = {
    "batch": lambda front: front.batch(4),
    "batch_by": lambda front: front.batch_by(np.arange(LENGTH).reshape(-1, 4).tolist()),
    "bucket": lambda front: front.bucket(np.ones(LENGTH, int), 4, shuffle=False),
    "map, batch": lambda front: front.map(np.negative).batch(4),
    "repeat": lambda front: front.repeat(2).batch(4),
    "mix": lambda front: workers.mix([front, [np.int64(1)] * LENGTH]),
    "concat": lambda front: workers.concat([[np.int64(1)], front]),
    "shuffle, batch": lambda front: front.shuffle().batch(4),
}


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("word", BEHIND)
def test_what_comes_after_a_front_end_that_skips(word: str, nb_workers: Any, executor: str) -> None:
    """Tells of its samples too, by their indices, and is limited."""

    def made(**options: Any) -> Any:
        made = BEHIND[word](prefetch(Damaged(), 0, on_error="skip", seed=1, **options))
        limits = {} if word in ("mix", "concat") and not options else options
        return made.prefetch(nb_workers, executor=executor, on_error="skip", **limits)

    with made() as batches:
        list(batches)
        found = [each.sample for each in batches.report().failures]
    assert set(found) == set(BAD)
    assert len(found) == (8 if word == "repeat" else 4)
    with made(max_failures=2) as batches, pytest.raises(TooManyFailuresError, match="3 samples of epoch 0"):
        list(batches)


def test_an_epoch_that_is_read_again_is_counted_anew() -> None:
    with prefetch(Damaged(), 0, batch_size=4, on_error="skip", max_failures=4) as batches:
        for _ in range(3):
            list(batches)
            batches.epoch = 0


@pytest.mark.parametrize(("slice_", "allowed"), [(slice(None), 4), (slice(2), 0), (slice(0, 10, 2), 2)])
def test_a_share_of_the_samples_of_a_slice(slice_: slice, allowed: int) -> None:
    batches = prefetch(Damaged(), 0, batch_size=4, on_error="redraw", max_failures=0.1, seed=1)[slice_]
    bad = {4: 4, 0: 1, 2: 0}[allowed]
    if bad <= allowed:
        list(batches)
        assert len(batches.report().failures) == bad
    else:
        with pytest.raises(TooManyFailuresError, match=f"max_failures=0.1 allows {allowed}"):
            list(batches)


class DamagedAndDeadly(Damaged):
    """Each batch with a sample that raises ends its worker first."""

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        if index in BAD and job is not None and job.worker is not None and job.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.parametrize("on_error", ["skip", "redraw"])
def test_failures_of_jobs_whose_workers_have_died(on_error: Any) -> None:
    """Each is counted once, and the batches are those without workers."""
    with prefetch(Damaged(), 0, batch_size=4, on_error=on_error, seed=1) as batches:
        expected = [batch.tolist() for batch in batches]
        failures = batches.report().failures
    options: dict[str, Any] = {"on_error": on_error, "max_failures": len(BAD), "seed": 1}
    with prefetch(DamagedAndDeadly(), 2, batch_size=4, **options) as batches:
        assert [batch.tolist() for batch in batches] == expected
        assert batches.report().failures == failures
        assert sum(worker.restarts for worker in batches.report().workers) >= len(BAD)


@pytest.mark.needs("keras")
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, before the error
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_fit_with_too_many_failures(nb_workers: int) -> None:
    """It ends with the error of the loop."""
    import keras

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile(loss="mse")
    made = prefetch(Rows(), nb_workers, batch_size=4, on_error="skip", max_failures=2, seed=1)
    with made as batches, pytest.raises(TooManyFailuresError, match="max_failures=2 allows 2"):
        model.fit(batches, epochs=2, verbose=0, shuffle=False)


class Rows(Damaged):
    def __getitem__(self, index: int) -> Any:
        return np.full(3, super().__getitem__(index), np.float32), np.float32(index)


class Looping(Damaged):
    """Its samples loop over another sequence before they raise."""

    def __init__(self) -> None:
        self.other = prefetch([1, 2, 3], 0, seed=1).map(int)

    def __getitem__(self, index: int) -> Any:
        assert list(self.other) == [1, 2, 3]
        return super().__getitem__(index)


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_a_loop_within_a_job_hides_no_failures(nb_workers: int) -> None:
    named = workers.mix({"a": prefetch(Looping(), 0, seed=1, on_error="skip").map(int)})
    with named.batch(4).prefetch(nb_workers, on_error="skip") as batches:
        assert sum(len(batch) for batch in batches) == LENGTH - len(BAD)
        report = batches.report()
    assert sorted(each.sample for each in report.failures if each.sample is not None) == BAD
    assert report.sources == {"a": LENGTH}
