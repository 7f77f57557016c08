"""Datasets with ``__getitems__``: batches are read by one call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workers import Sequence, SequenceMap, current_rng, prefetch

COUNT, SIZE = 21, 4


class OneByOne:
    """Samples that are read one by one."""

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return {"x": np.array([index, current_rng().random()]), "y": index}


class Several(OneByOne):
    """The same by several at once, and not otherwise."""

    def __init__(self, kind: Any = list) -> None:
        self.kind = kind
        self.calls: list[list[int]] = []

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("read one by one")

    def __getitems__(self, indices: list[int]) -> Any:
        assert type(indices) is list
        assert set(map(type, indices)) == {int}
        self.calls.append(indices)
        return self.kind([super(Several, self).__getitem__(index) for index in indices])


class Changed(Several):
    """Knows nothing of ``__getitems__``."""

    def __getitem__(self, index: int) -> Any:
        return {"y": -index}


class Without(Changed):
    __getitems__: Any = None


class Wrapper:
    """Passes on whatever it does not know."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        return {"y": -index}

    def __getattr__(self, name: str) -> Any:
        if name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)


class SeveralOfSequence(Sequence):
    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("read one by one")

    def __getitems__(self, indices: list[int]) -> Any:
        return [OneByOne()[index] for index in indices]


def add(sample: Any) -> Any:
    sample["x"][0] += 100
    return sample


def ids(samples: list[Any]) -> Any:
    """A ``collate_fn``, which writes into what it is given."""
    for sample in samples:
        sample["x"][:] += 1
    return [sample["y"] for sample in samples], samples[0]["x"]


WAYS: dict[str, Callable[..., SequenceMap[Any]]] = {
    "batch_size": lambda data, *workers: prefetch(data, *workers, batch_size=SIZE, seed=3),
    "shuffled": lambda data, *workers: prefetch(data, *workers, batch_size=SIZE, shuffle=True, seed=3),
    "drop_last": lambda data, *workers: prefetch(data, *workers, batch_size=SIZE, drop_last=True, seed=3),
    "skip": lambda data, *workers: prefetch(data, *workers, batch_size=SIZE, drop_last=True, on_error="skip", seed=3),
    "collate_fn": lambda data, *workers: prefetch(data, *workers, batch_size=SIZE, collate_fn=ids, seed=3),
    "batch": lambda data, *workers: prefetch(data, *workers, seed=3).batch(SIZE),
    "shuffle batch": lambda data, *workers: prefetch(data, *workers, seed=3).shuffle().batch(SIZE),
    "shuffle twice": lambda data, *workers: prefetch(data, *workers, shuffle=True, seed=3).shuffle().batch(SIZE),
    "batch shard": lambda data, *workers: prefetch(data, *workers, seed=3).batch(SIZE).shard(1, 2),
    "batch shuffle": lambda data, *workers: prefetch(data, *workers, seed=3).batch(SIZE).shuffle(),
    "front": lambda data, *workers: prefetch(prefetch(data, 0), *workers, shuffle=True, batch_size=SIZE, seed=3),
    "map": lambda data, *workers: prefetch(data, *workers, seed=3).map(add).batch(SIZE),
    "shuffle map": lambda data, *workers: prefetch(data, *workers, shuffle=True, seed=3).map(add).batch(SIZE),
    "map shuffle": lambda data, *workers: prefetch(data, *workers, seed=3).map(add).shuffle().batch(SIZE).map(str),
}


def epochs(batches: SequenceMap[Any]) -> str:
    with batches:
        return repr([list(batches), list(batches)])


@pytest.mark.parametrize("way", WAYS)
def test_batches_are_read_by_one_call(way: str) -> None:
    """They are the same as one by one, and on any number of workers."""
    expected = epochs(WAYS[way](OneByOne(), 0))
    data = Several()
    assert epochs(WAYS[way](data, 0)) == expected
    places = [at for call in data.calls for at in call]
    assert max(map(len, data.calls)) == SIZE
    if "shard" not in way:
        num = COUNT // SIZE * SIZE if way in ("drop_last", "skip") else COUNT
        assert len(places) == 2 * num
        assert len(data.calls) == 2 * -(-num // SIZE)
    assert epochs(WAYS[way](SeveralOfSequence(), 0)) == expected
    assert epochs(WAYS[way](Several(), "auto")) == expected


@pytest.mark.parametrize("options", [{"executor": "process"}, {"executor": "thread"}])
def test_batches_are_read_by_one_call_in_workers(options: dict[str, Any]) -> None:
    for way in ("shuffled", "map"):
        expected = epochs(WAYS[way](OneByOne(), 0))
        got = epochs(WAYS[way](prefetch(Several(), 0, **options), 2) if way == "map" else WAYS[way](Several(), 2))
        assert got == expected


def test_a_getitem_that_getitems_does_not_know_is_used() -> None:
    """That of a subclass, or of a class that passes on what it does not know."""
    for data in (Changed(), Without(), Wrapper(Several())):
        with prefetch(data, 0, batch_size=SIZE) as batches:
            assert next(iter(batches))["y"].tolist() == [0, -1, -2, -3]


def test_datasets_of_torch() -> None:
    data = pytest.importorskip("torch.utils.data")
    of = Several()
    with prefetch(data.Subset(of, [5, 3, 1]), 0, batch_size=2) as batches:
        assert [batch["y"].tolist() for batch in batches] == [[5, 3], [1]]
    assert of.calls == [[5, 3], [1]]


def test_rows_of_what_is_returned_are_the_samples() -> None:
    class Rows(Several):
        def __getitems__(self, indices: list[int]) -> Any:
            return self.kind([[index, index + 1] for index in indices])

    for kind in (tuple, np.array):
        with prefetch(Rows(kind), 0, batch_size=SIZE) as batches:
            assert np.array(list(batches)[1]).ravel().tolist()[:: 2 if kind is np.array else 1][:1] == [4]


@pytest.mark.parametrize(
    ("kind", "got"),
    [
        (lambda samples: {"y": samples}, "for 4 indices it has returned a dict"),
        (lambda samples: samples[1:], "for 4 indices it has returned 3 samples"),
        (iter, "for 4 indices it has returned a list_iterator"),
        (lambda samples: None, "for 4 indices it has returned a NoneType"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_what_is_no_list_of_samples(kind: Any, got: str, on_error: Any) -> None:
    with (
        prefetch(Several(kind), 0, batch_size=SIZE) as batches,
        pytest.raises(TypeError, match=f"Several.__getitems__ must return a list .*{got}"),
    ):
        list(batches)


BAD = 6


class Failing(OneByOne):
    def __getitem__(self, index: int) -> Any:
        if index == BAD:
            raise ValueError("no such image")
        return index

    def __getitems__(self, indices: list[int]) -> Any:
        return [self[index] for index in indices]


@pytest.mark.parametrize(("nb_workers", "make"), [(0, "batch_size"), (1, "batch_size"), (0, "map"), ("auto", "map")])
def test_errors_name_the_samples(nb_workers: Any, make: str) -> None:
    def batches(**options: Any) -> Any:
        if make == "map":
            return prefetch(Failing(), nb_workers, **options).map(abs).batch(SIZE)
        return prefetch(Failing(), nb_workers, batch_size=SIZE, **options)

    with batches() as failing, pytest.raises(ValueError, match="no such image") as raised:
        list(failing)
    assert any("Failing.__getitems__([4, 5, 6, 7])" in note for note in raised.value.__notes__)
    good = [index for index in range(COUNT) if index != BAD]
    asked: list[BaseException] = []

    def ask(error: BaseException) -> str:
        asked.append(error)
        return "skip"

    for on_error in ("skip", ask):
        with batches(on_error=on_error) as skipping:
            assert np.concatenate(list(skipping)).tolist() == good
    assert [str(error) for error in asked] == ["no such image"]


def test_the_log_names_the_sample_that_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), prefetch(Failing(), 0, batch_size=SIZE, on_error="skip") as batches:
        list(batches)
    assert [record.getMessage() for record in caplog.records] == [f"sample {BAD} is skipped"]


def test_samples_that_the_dataset_holds_are_not_written_into() -> None:
    held = [{"x": np.zeros(2), "y": index} for index in range(4)]

    class Held(Several):
        def __len__(self) -> int:
            return len(held)

        def __getitems__(self, indices: list[int]) -> Any:
            return [held[index] for index in indices]

    for make in (WAYS["map"], WAYS["collate_fn"]):
        assert epochs(make(Held(), 0))
        assert not any(sample["x"].any() for sample in held)
