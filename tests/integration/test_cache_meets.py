"""A cache meets what changes behind its back: samplers, memmaps, names, objects that read it, other threads."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cached import NUMBER, numbers

from workers import CacheError, Sequence, SequenceArray, concat, prefetch


def hundred_times(row: Any) -> Any:
    return int(row["i"]) * 100


def plus_one(row: Any) -> Any:
    return int(row["i"]) + 1


class Scaled(Sequence[Any]):
    def __init__(self) -> None:
        super().__init__(seed=1)
        self.scale = 1

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return index * self.scale


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_another_sampler(nb_workers: int, tmp_path: Path) -> None:
    order = np.arange(NUMBER)
    source = SequenceArray({"i": order}, sampler=order, seed=1)
    with source.map(hundred_times).cache().prefetch(nb_workers) as batches:
        assert list(batches) == [100 * at for at in order]
        source.sampler = order[::-1].copy()
        assert list(batches) == [100 * at for at in order[::-1]]
        assert batches.report().cache.hits == NUMBER
    for sampler in (order, order[::-1].copy(), np.zeros(3, int)):
        found = list(SequenceArray({"i": order}, sampler=sampler).map(hundred_times).cache(tmp_path))
        assert found == [100 * at for at in sampler]


def test_chains_of_the_same_parts_are_told_apart(tmp_path: Path) -> None:
    def made() -> list[Any]:
        one, two = (SequenceArray({"i": np.arange(4) + first}, seed=1) for first in (0, 4))
        return [
            concat([one, two]).map(hundred_times),
            concat([one.map(hundred_times), two.map(plus_one)]),
            concat([one.map(plus_one), two.map(hundred_times)]),
        ]

    for plain, cached in zip(made(), made(), strict=True):
        assert list(cached.cache(tmp_path)) == list(plain)


class OnDisk(Sequence[Any]):
    def __init__(self, path: Path) -> None:
        super().__init__(seed=1)
        self.data: Any = np.memmap(path, np.int64, "w+", shape=(40_000,))

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.data[index] + index

    def on_epoch_end(self) -> None:
        self.data += 10


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_hooks_that_write_into_a_memmap(nb_workers: int, tmp_path: Path) -> None:
    with OnDisk(tmp_path / "data").cache().prefetch(nb_workers) as batches:
        for epoch in range(3):
            assert list(batches) == [10 * epoch + at for at in range(8)]


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_a_cache_with_a_name_is_emptied_too(nb_workers: int, tmp_path: Path) -> None:
    source = Scaled()
    with source.cache(tmp_path, name="n").prefetch(nb_workers) as batches:
        assert list(batches) == list(range(NUMBER))
        source.scale = 2
        assert list(batches) == list(range(0, 2 * NUMBER, 2))
        assert list(batches) == list(range(0, 2 * NUMBER, 2))
    assert list(source.cache(tmp_path, name="n")) == list(range(0, 2 * NUMBER, 2))


class Outer(Sequence[Any]):
    """Reads a cached sequence by index."""

    def __init__(self, inner: Any) -> None:
        super().__init__(seed=1)
        self.inner = inner

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_within_another_object_it_does_not_hide_changes(nb_workers: int) -> None:
    source = Scaled()
    with Outer(source.cache()).prefetch(nb_workers) as batches:
        assert list(batches) == list(range(NUMBER))
        source.scale = 2
        assert list(batches) == list(range(0, 2 * NUMBER, 2))


def test_by_index_it_does_not_hide_changes() -> None:
    source = Scaled()
    cached = source.cache()
    assert [cached[1], cached[1], cached.batch(2)[1].tolist()] == [1, 1, [2, 3]]
    source.scale = 5
    assert [cached[1], cached.batch(2)[1].tolist(), cached.prefetch(0)[3]] == [5, [10, 15], 15]


class Slow(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.may_go_on, self.has_begun = threading.Event(), threading.Event()

    def __getitem__(self, index: int) -> Any:
        scale = self.scale
        if index == 3 and scale == 1:
            self.has_begun.set()
            self.may_go_on.wait(20)
        return index * scale

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Scaled, (), {"scale": self.scale}


def test_what_is_still_being_made_from_old_data_is_not_kept() -> None:
    source = Slow()
    cached = source.cache()
    list(cached.take(2))
    thread = threading.Thread(target=lambda: cached[3])
    thread.start()
    source.has_begun.wait(20)
    source.scale = 2
    batches = iter(cached)
    source.may_go_on.set()
    thread.join()
    assert list(batches) == list(range(0, 2 * NUMBER, 2))
    assert list(cached) == list(range(0, 2 * NUMBER, 2))


class Held:
    def __init__(self, values: Any) -> None:
        self.values = values


def test_masks_and_arrays_in_objects() -> None:
    def make(row: Any) -> Any:
        return {
            "hard": np.ma.array([1, 2, 3], mask=[1, 0, 0], hard_mask=True),
            "held": Held(np.zeros(3)),
            "enum": threading.TIMEOUT_MAX,
        }

    def write(item: Any) -> Any:
        item["hard"][:] = 7
        item["held"].values[:] = 7
        return item["hard"].filled(0).tolist(), item["held"].values.tolist()

    for _ in range(2):
        cached = numbers().map(make).cache()
        for _ in range(2):
            assert list(cached.map(write).take(3)) == [([0, 7, 7], [7.0] * 3)] * 3


PROGRAM = """
import enum, sys
from workers import prefetch

class Colour(enum.Enum):
    RED = 1

class Sample:
    def __init__(self, value):
        self.value, self.colour = value, Colour.RED

def load(index):
    return Sample(index)

def check(sample):
    return isinstance(sample, Sample) and sample.colour == Colour.RED

if __name__ == "__main__":
    with prefetch(list(range(8)), 0, seed=1).map(load).cache(sys.argv[1]).map(check).prefetch(int(sys.argv[2])) as it:
        print(sum(it), it.report().cache.hits)
        print(sum(it))
"""


def test_classes_of_the_script_are_the_same_in_a_later_run(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    for nb_workers, hits in (("1", 0), ("1", 8), ("0", 8)):
        command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "kept"), nb_workers]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        assert found.stdout.split() == ["8", str(hits), "8"]


KEPT: list[Any] = []


def keeps_another_generator(index: int) -> Any:
    KEPT.append(np.random.default_rng(index))
    return index


def test_a_job_that_always_makes_generators_ends() -> None:
    assert list(prefetch([1, 2], 0, seed=1).map(keeps_another_generator)) == [1, 2]
    with pytest.raises(RuntimeError, match="each time it ran"):
        list(prefetch([1, 2], 0, seed=1).map(keeps_another_generator).cache())
    KEPT.clear()


class Lazy:
    """Makes its generator when it is first called."""

    def __init__(self) -> None:
        self.rng: Any = None

    def __call__(self, index: int) -> Any:
        if self.rng is None:
            self.rng = np.random.default_rng()
        return self.rng.random()


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_draws_of_a_generator_that_is_made_on_the_way_are_not_kept(nb_workers: int) -> None:
    with (
        prefetch([1, 2], 0, seed=1).map(Lazy()).cache().prefetch(nb_workers) as batches,
        pytest.raises(CacheError, match="Lazy"),
    ):
        list(batches)


def test_notes_do_not_count_when_auto_compares() -> None:
    from workers.engine.auto_reading import _one
    from workers.job.notes import NOTHING

    assert _one([5, NOTHING]) == _one([5]) == 5
