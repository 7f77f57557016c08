"""The report says how long each function takes, and recommends ``.cache()`` where it would help."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from workers import current_rng, prefetch

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
