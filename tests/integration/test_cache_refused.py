"""What must not be cached raises: random draws, at the first item; combinations without a meaning, when built."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached import NUMBER, Samples, numbers

import workers
from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import CacheError, Sequence, current_job, current_rng, current_seed

# -- what must not be cached


class Held:
    def __init__(self) -> None:
        self.rng = np.random.default_rng(4)
        self.random = random.Random(4)


HELD, KEPT = Held(), []


def by_kept_generator(row: Any) -> Any:
    if not KEPT:
        KEPT.append(current_rng())
        return row
    return {**row, "x": KEPT[0].random()}


def by_torch(row: Any) -> Any:
    import torch

    return {**row, "x": torch.rand(1).numpy()}


def by_tensorflow(row: Any) -> Any:
    import tensorflow as tf

    return {**row, "x": tf.random.uniform([2]).numpy()}


def by_traced_tensorflow(row: Any) -> Any:
    import tensorflow as tf

    return {**row, "x": tf.function(lambda: tf.random.stateless_uniform([2], current_seed()))().numpy()}


class OfEpoch(Sequence[Any]):
    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return {"i": index + self.epoch}


class Drawing(Sequence[Any]):
    def __init__(self) -> None:
        super().__init__(seed=1)
        self.held = Held()

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return {"i": index + self.held.rng.integers(3)}


class DrawingSamples(Samples):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [{"i": index + random.random()} for index in indices]


DRAWS: dict[str, tuple[Callable[[], Any], str]] = {
    "numpy.random": (lambda: numbers().map(lambda row: {**row, "x": np.random.random()}), "lambda"),
    "numpy.random, normal": (lambda: numbers().map(lambda row: {**row, "x": np.random.standard_normal()}), "lambda"),
    "random": (lambda: numbers().map(lambda row: {**row, "x": random.random()}), "lambda"),
    "random, gauss": (lambda: numbers().map(lambda row: {**row, "x": random.gauss(0, 1)}), "lambda"),
    "current_rng": (lambda: numbers().map(noisy_row), "noisy_row"),
    "current_rng(key)": (lambda: numbers().map(lambda row: {**row, "x": current_rng(1).random()}), "lambda"),
    "current_seed": (lambda: numbers().map(lambda row: {**row, "x": current_seed()}), "lambda"),
    "a generator that was kept": (lambda: numbers().map(by_kept_generator), "by_kept_generator"),
    "a generator that is held": (lambda: Drawing().map(dict), "dict"),
    "held, without a function": (Drawing, "Drawing"),
    "a held random.Random": (lambda: numbers().map(lambda row: {**row, "x": HELD.random.random()}), "lambda"),
    "torch": (lambda: numbers().map(by_torch), "by_torch"),
    "tensorflow": (lambda: numbers().map(by_tensorflow), "by_tensorflow"),
    "tensorflow by a seed": (lambda: numbers().map(by_traced_tensorflow), "by_traced_tensorflow"),
    "the epoch": (OfEpoch, "OfEpoch"),
    "the job": (lambda: numbers().map(lambda row: {**row, "x": current_job().epoch}), "lambda"),
    "one of two functions": (lambda: numbers().map(dict).map(noisy_row), "noisy_row"),
    "several at once": (lambda: workers.SequenceMap(DrawingSamples(), 0), "DrawingSamples"),
    "a sampler": (lambda: MultiShotMemorySampler(np.arange(9.0), np.arange(9) // 3, 2, 2, 5, seed=1), "MultiShot"),
    "another sampler": (lambda: SingleShotMemorySampler(np.arange(9.0), None, 2, 5, seed=1), "SingleShot"),
}


def noisy_row(row: Any) -> Any:
    return {**row, "x": current_rng().random()}


@pytest.mark.needs("tensorflow", "torch")
@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("nb_workers", [0, 1])
def test_draws_before_a_cache_raise(name: str, nb_workers: int) -> None:
    KEPT.clear()
    make, told = DRAWS[name]
    if name != "several at once":
        with make().cache().prefetch(nb_workers, on_error="skip") as batches, pytest.raises(CacheError, match=told):
            list(batches)
    with make().cache().batch(4).prefetch(nb_workers, on_error="skip") as batches, pytest.raises(CacheError):
        list(batches)


def test_draws_in_threads_raise() -> None:
    for function in (noisy_row, lambda row: {**row, "x": current_seed()}):
        with numbers().map(function).cache().prefetch(2, executor="thread") as batches, pytest.raises(CacheError):
            list(batches)


class Twos:
    """Has only __iter__."""

    def __iter__(self) -> Any:
        return iter([2, 2])


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "batches of a shuffle": (lambda: numbers().shuffle().batch(4).cache(), "SequenceShuffle changes"),
    "buckets": (lambda: numbers().bucket([1] * NUMBER, 4).cache(), "SequenceBuckets changes"),
    "batch_by": (lambda: numbers().batch_by([[1, 2]]).cache(), "SequenceOfLists changes"),
    "zip of shuffles": (lambda: workers.zip([numbers(), numbers().shuffle()]).cache(), "SequenceShuffle changes"),
    "batches within": (lambda: numbers().shuffle().batch(4).weighted([1] * 6).cache(), "order"),
    "an iterable": (lambda: workers.SequenceMap(Twos(), 0).cache(), "no indices"),
    "rebatch": (lambda: numbers().batch(3).rebatch(4).cache(), "only .prefetch"),
    "max_samples": (lambda: numbers().batch(3).max_samples(4).cache(), "last of a chain"),
    "memory and a folder": (lambda: numbers().cache("folder", memory="1GB"), "not both"),
    "a size as a folder": (lambda: numbers().cache("8GB"), "memory='8GB'"),
    "a number as a folder": (lambda: numbers().cache(1000), "must be a path"),
    "no memory": (lambda: numbers().cache(memory=0), "memory must be"),
    "other words": (lambda: numbers().cache(memory="much"), "8GB"),
    "more than there is": (lambda: numbers().cache(memory="9000TB"), "do not fit"),
    "a name alone": (lambda: numbers().cache(name="a"), "folder"),
    "a path as a name": (lambda: numbers().cache("folder", name="../a"), "letters"),
    "a sampler without a function": (lambda: MultiShotMemorySampler(np.arange(4), [0, 0, 1, 1], cache=True), "load_"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_meaning_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, told = REFUSED[name]
    with pytest.raises((TypeError, ValueError, MemoryError), match=told):
        make()
    assert not os.listdir(tmp_path)


PROGRAM = """
import importlib
from workers import prefetch

def load(index):
    torch = importlib.import_module("tor" + "ch")  # which no search for imports finds
    return torch.rand(1).numpy()

if __name__ == "__main__":
    for nb_workers in (0, 1):
        with prefetch(list(range(8)), 0, seed=1).map(load).cache().batch(4).prefetch(nb_workers, on_error="skip") as it:
            try:
                print(list(it))
            except Exception as error:
                print(type(error).__name__)
"""


@pytest.mark.needs("torch")
def test_draws_of_a_framework_that_is_imported_on_the_way_raise(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    found = subprocess.run(
        [sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, check=True, timeout=100
    )
    assert found.stdout.split() == ["CacheError", "CacheError"]
