"""The report says how long each function takes, and recommends ``.cache()`` where it would help."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampler import load_image
from workers import Sequence, current_rng, prefetch, timed

SAMPLES = list(range(60))


def decode(index: int) -> Any:
    end = time.thread_time() + 0.002
    while time.thread_time() < end:
        pass
    return np.full(10_000, index % 256, np.uint8)


def noisy(row: Any) -> Any:
    return row[:100] + current_rng().random()


def slow_and_noisy(row: Any) -> Any:
    decode(0)
    return noisy(row)


def quick(index: int) -> Any:
    return np.full(10_000, index % 256, np.uint8)


def told(made: Any, nb_workers: int, epochs: int = 2) -> Any:
    with made.prefetch(nb_workers) as batches:
        for _ in range(epochs):
            for _ in batches:
                pass
        return batches.report()


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_a_cache_is_recommended_where_it_would_help(nb_workers: int) -> None:
    source = prefetch(SAMPLES, 0, seed=1)
    report = told(source.shuffle().map(decode).map(noisy).batch(5), nb_workers)
    assert list(report.functions) == ["decode", "noisy"]
    decoding = report.functions["decode"]
    assert decoding.seconds > 0.001
    assert decoding.share > 0.5
    assert decoding.nbytes == 10_000
    assert "functions (share of a job): decode" in str(report)
    found = re.search(r"of a job is decode, the same in each epoch: \.cache\(\) after \.map\(decode\)", report.verdict)
    assert found, report.verdict
    assert "600 KB" in report.verdict


@pytest.mark.parametrize(
    "make",
    [
        lambda source: source.map(decode).cache().map(noisy).batch(5),  # there is one
        lambda source: source.map(quick).map(slow_and_noisy).batch(5),  # what is slow draws
        lambda source: source.shuffle().batch(5).map(decode_batch),  # other batches in each epoch
        lambda source: source.batch(5),
    ],
)
@pytest.mark.parametrize("nb_workers", [0, 1])
def test_a_cache_is_not_recommended_where_it_would_not(make: Any, nb_workers: int) -> None:
    report = told(make(prefetch(SAMPLES, 0, seed=1)), nb_workers)
    assert ".cache()" not in report.verdict


def decode_batch(batch: Any) -> Any:
    decode(0)
    return batch


def test_batches_in_a_fixed_order_can_be_cached() -> None:
    report = told(prefetch(SAMPLES, 0, seed=1).batch(5).map(decode_batch), 0)
    assert "after .map(decode_batch)" in report.verdict


class Photos(Sequence):
    """Batches of two photos, whose third part is named by the sequence itself."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__()
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths) // 2

    def __getitem__(self, batch_id: int) -> Any:
        photos = [load_image(path) for path in self.paths[2 * batch_id : 2 * batch_id + 2]]
        with timed("turn"):
            return np.stack(photos)[:, ::-1], np.zeros(2)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 60, 80, 3), np.uint8)
    found = [str(folder / f"{number}.jpg") for number in range(len(pixels))]
    for path, photo in zip(found, pixels, strict=True):
        Image.fromarray(photo).save(path)
    return found


@pytest.mark.parametrize(("nb_workers", "executor"), [(0, "process"), (2, "process"), (2, "thread")])
def test_the_report_names_the_parts_of_a_job(paths: list[str], nb_workers: int, executor: Any) -> None:
    source = prefetch(paths, 0, seed=1)
    chains = {
        ("read", "decode", "crop", "stack"): source.map(load_image).batch(2),
        ("read", "decode", "resize", "stack"): source.map(small).bucket([1] * 8, batch_size=2),
        ("read", "decode", "crop", "turn"): Photos(paths),
    }
    for expected, chain in chains.items():
        with chain.prefetch(nb_workers, executor=executor) as batches:
            while not batches.report().parts:
                for _ in batches:
                    pass
            report = batches.report()
        assert tuple(report.parts) == expected
        assert all(share > 0 for share in report.parts.values())
        assert sum(report.parts.values()) <= 1
        assert "parts of a job: read" in str(report)


def small(path: str) -> Any:
    return load_image(path, size=(30, 40))


def test_parts_do_not_leak_into_the_job_around_them(paths: list[str]) -> None:
    with prefetch(paths, 0, seed=1).map(rows_of).prefetch(0) as batches:
        for _ in range(3):
            list(batches)
        assert set(batches.report().parts) == {"own"}


def rows_of(path: str) -> Any:
    with timed("own"):
        time.sleep(0.001)
    with prefetch([path], 0, seed=1).map(load_image).prefetch(0) as photos:
        return next(iter(photos))


def rows_in_time(row: int) -> Any:
    with KEPT:
        time.sleep(0.002)
    return np.full(3, row)


def yields_slowly(row: int) -> Any:
    time.sleep(0.002)
    yield row


KEPT = timed("kept")


def test_one_timer_in_several_threads() -> None:
    source = prefetch(SAMPLES, 0, seed=1).map(rows_in_time)
    with source.prefetch(8, executor="thread") as batches:
        while not batches.report().parts:
            for _ in batches:
                pass
        assert batches.report().parts["kept"] > 0.35


def test_what_a_generator_function_takes_is_not_told() -> None:
    report = told(prefetch(SAMPLES, 0, seed=1).map(yields_slowly), 0)
    assert not report.functions
