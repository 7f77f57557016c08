"""What a cache keeps, and that it is emptied when what was cached changes."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_workers import epochs_on
from cached import NUMBER, Load, numbers

import workers
from workers import Sequence


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load(tmp_path)


# -- what the cache holds


def assert_hits(batches: Any, number: int) -> None:
    """An item may be made twice if two workers need it at the same time, for this epoch and for the next one."""
    hits = batches.report().cache.hits
    assert number - 4 * bool(batches.nb_workers) <= hits <= number


def filled(row: Any) -> Any:
    return np.full(100_000, row["i"], np.uint8)


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_what_fits_is_kept_and_stays(nb_workers: int) -> None:
    cached = numbers().map(filled).cache(memory="1.1 MB")
    with cached.shuffle().prefetch(nb_workers) as batches:
        hits = []
        for _ in range(4):
            assert sorted(int(batch[0]) for batch in batches) == list(range(NUMBER))
            hits.append(batches.report().cache.hits)
        report = batches.report()
    assert np.diff(hits).tolist() == [10, 10, 10]
    assert report.cache.num_items == 10
    assert report.cache.nbytes <= 1_100_000
    assert report.cache.misses == NUMBER + 3 * 14
    assert "cache: 10 items" in str(report)


def test_items_take_little_more_than_their_bytes() -> None:
    cached = numbers().map(filled).cache()
    with cached.prefetch(1) as batches:
        for _ in batches:
            pass
        assert batches.report().cache.nbytes < 1.02 * NUMBER * 100_000


class Deadly:
    """An item whose worker is killed while it writes the item."""

    def __init__(self, number: int, folder: str) -> None:
        self.number, self.folder = number, folder

    def __reduce__(self) -> Any:
        try:
            os.mkdir(os.path.join(self.folder, f"died {self.number}"))
        except FileExistsError:
            return Deadly, (self.number, self.folder)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def test_a_killed_worker_loses_the_item_that_it_was_writing(load: Load, tmp_path: Path) -> None:
    def deadly(row: Any) -> Any:
        made = load(row)
        return {**made, "deadly": Deadly(row["i"], str(tmp_path))} if row["i"] % 10 == 7 else {**made, "deadly": None}

    with numbers().map(deadly).cache().map(lambda item: item["x"]).prefetch(2) as batches:
        for _ in range(3):
            assert [int(batch[0, 0]) for batch in batches] == list(range(NUMBER))
        assert batches.report().cache.num_items == NUMBER
        assert sum(worker.restarts for worker in batches.report().workers) == 2
    calls = load.calls()
    assert calls.count(7) == calls.count(17) == 2
    assert len(calls) <= NUMBER + 2 + 4  # and those that were computed at the same time


def test_what_cannot_be_kept_raises() -> None:
    def locked(row: Any) -> Any:
        return threading.Lock()

    for nb_workers in (0, 1):
        with (
            numbers().map(locked).cache().prefetch(nb_workers) as batches,
            pytest.raises(TypeError, match="cannot pickle") as raised,
        ):
            next(iter(batches))
        assert any("locked" in note and ".cache()" in note for note in raised.value.__notes__)
        del raised


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_functions_may_write_into_items(nb_workers: int) -> None:
    def spoil(item: Any) -> Any:
        item["x"][:] = -1
        item["list"].append(3)
        return item

    def make(row: Any) -> Any:
        return {"x": np.full(4, row["i"]), "list": [1, 2]}

    cached = numbers().map(make).cache()
    for _ in range(2):
        for item in epochs_on(cached.map(spoil), nb_workers, "process", 1)[0]:
            assert item["x"].tolist() == [-1] * 4
            assert item["list"] == [1, 2, 3]
        for number, item in enumerate(epochs_on(cached, nb_workers, "process", 1)[0]):
            assert item["x"].tolist() == [number] * 4
            assert item["list"] == [1, 2]
            item["x"][:] = -2  # a batch is the loop's own


@pytest.mark.needs("torch")
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_all_kinds_of_items(nb_workers: int) -> None:
    import torch

    kinds: list[Any] = [
        np.arange(6).reshape(2, 3).T,
        np.array(["a", "bc"]),
        np.array([None, "x"], object),
        np.ma.masked_array([1, 2], [True, False]),
        np.zeros((0, 3)),
        np.float32(2),
        torch.arange(5),
        ("tuple", [1, {2: b"3"}]),
        None,
        "text",
        np.array([(1, 2.0)], [("a", "i1"), ("b", "f8")]),
    ]
    plain = list(workers.SequenceMap(kinds, 0))
    with workers.SequenceMap(kinds, nb_workers).cache() as batches:
        for _ in range(3):
            for found, wanted in zip(batches, plain, strict=True):
                assert type(found) is type(wanted)
                assert repr(found) == repr(wanted)
                assert getattr(found, "dtype", None) == getattr(wanted, "dtype", None)


# -- when what was cached changes


class Scaled(Sequence[Any]):
    def __init__(self, has_array: bool = False) -> None:
        super().__init__(seed=1)
        self.scale: Any = np.ones(50_000) if has_array else 1

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return np.full(3, index) * np.max(self.scale)


class Growing(Scaled):
    def on_epoch_end(self) -> None:
        self.scale += 1


class Idle(Scaled):
    begun = 0

    def on_epoch_begin(self) -> None:
        type(self).begun += 1


def sums(batches: Any) -> list[float]:
    return [float(np.sum(batch)) for batch in batches]


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_changes_empty_the_cache(nb_workers: int, where: str, tmp_path: Path) -> None:
    folder = str(tmp_path / "kept") if where == "folder" else None
    source = Scaled()
    with source.cache(folder).shuffle().prefetch(nb_workers) as batches:
        first = sums(batches)
        assert sorted(sums(batches)) == sorted(first)
        assert_hits(batches, NUMBER)
        source.scale = 3
        assert sorted(sums(batches)) == sorted(3 * each for each in first)
        assert_hits(batches, NUMBER)
        assert sorted(sums(batches)) == sorted(3 * each for each in first)
        assert_hits(batches, 2 * NUMBER)
        source.scale = 1
        assert sorted(sums(batches)) == sorted(first)
        assert_hits(batches, (3 if where == "folder" else 2) * NUMBER)  # found again


@pytest.mark.parametrize("has_array", [False, True])
@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_hooks_that_change_something_empty_it_and_others_do_not(
    has_array: bool, nb_workers: int, where: str, tmp_path: Path
) -> None:
    folder = str(tmp_path / "kept") if where == "folder" else None
    with Growing(has_array).cache(folder).prefetch(nb_workers) as batches:
        for epoch in range(3):
            assert sums(batches) == [3.0 * at * (1 + epoch) for at in range(NUMBER)]
        assert_hits(batches, 0)
    with Idle(has_array).cache(folder).prefetch(nb_workers) as batches:
        for _ in range(3):
            assert sums(batches) == [3.0 * at for at in range(NUMBER)]
        assert_hits(batches, 2 * NUMBER)


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("where", ["memory", "folder"])
@pytest.mark.parametrize("who", ["source", "front-end"])
def test_changed_empties_it(nb_workers: int, where: str, who: str, load: Load, tmp_path: Path) -> None:
    folder = str(tmp_path / "kept") if where == "folder" else None
    source = numbers()
    with source.map(load).cache(folder).prefetch(nb_workers) as batches:
        for _ in range(2):
            list(batches)
        (source if who == "source" else batches).changed()
        for _ in range(2):
            list(batches)
        assert_hits(batches, 2 * NUMBER)
    assert all(load.calls().count(each) >= 2 for each in range(NUMBER))


def test_new_weights_do_not_empty_it(load: Load) -> None:
    weighted = numbers().weighted([1] * NUMBER)
    with weighted.map(load).cache().prefetch(0) as batches:
        list(batches)
        weighted.weights = [1] * 4 + [0] * (NUMBER - 4)
        list(batches)
        assert_hits(batches, NUMBER)


class Plain(Sequence[Any]):
    """Without a seed of its own."""

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return np.full(3, index)


class PlainWithHooks(Plain):
    def on_epoch_end(self) -> None:
        pass


@pytest.mark.parametrize("kind", [Plain, PlainWithHooks])
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_a_seed_that_is_drawn_later_does_not_empty_it(kind: Any, nb_workers: int) -> None:
    with kind().map(np.sum).cache().prefetch(nb_workers) as batches:
        for _ in range(3):
            assert list(batches) == [3 * at for at in range(NUMBER)]
        assert_hits(batches, 2 * NUMBER)


def test_arrays_that_are_shared_later_do_not_empty_it() -> None:
    big = workers.SequenceArray({"x": np.arange(40_000).reshape(4, 10_000)})
    cached = big.map(dict).cache()
    assert [int(row["x"][0]) for row in cached] == [0, 10_000, 20_000, 30_000]
    with cached.prefetch(2) as batches:  # which moves the array into shared memory
        list(batches)
        list(batches)
        assert batches.report().cache.misses <= 4


class OneBuffer:
    """Returns the same array each time, with other content."""

    def __init__(self) -> None:
        self.buffer = np.zeros(2000)

    def __call__(self, row: Any) -> Any:
        self.buffer[:] = row["i"]
        return self.buffer


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_what_a_function_holds_is_read_from_the_cache(nb_workers: int) -> None:
    for function in (OneBuffer(), lambda row: row):
        with numbers().map(function).cache().batch(8).prefetch(nb_workers) as batches:
            first, second = (
                [batch["i"] if isinstance(batch, dict) else batch[:, 0] for batch in batches] for _ in "12"
            )
        assert np.concatenate(first).tolist() == np.concatenate(second).tolist() == list(range(NUMBER))
