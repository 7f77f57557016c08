"""A PyDataset that defines ``num_batches`` and no ``__len__``. None, or nothing at all: it has no end."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import workers
from workers import Sequence, SequenceArray, current_rng, prefetch


class Noise(keras.utils.PyDataset):  # type: ignore[misc]
    @property
    def num_batches(self) -> int | None:
        return None

    def __getitem__(self, index: int) -> Any:
        return np.array([index, current_rng().random(), os.getpid()])


class Unsaid(keras.utils.PyDataset):  # type: ignore[misc]
    __getitem__ = Noise.__getitem__


class NoiseOfOurs(Sequence[Any]):
    num_batches = None  # type: ignore[assignment]
    __getitem__ = Noise.__getitem__


class Five(Noise):
    """Counts its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = self.ended = 0

    @property
    def num_batches(self) -> int:
        return 5

    def on_epoch_begin(self) -> None:
        self.begun += 1

    def on_epoch_end(self) -> None:
        self.ended += 1


class FiveByLength(Five):
    def __len__(self) -> int:
        return 5


class FiveOfOurs(Sequence[Any]):
    num_batches = 5  # type: ignore[assignment]
    __getitem__ = Noise.__getitem__


@pytest.mark.parametrize(
    ("make", "nb_workers"), [(Noise, 0), (Noise, 2), (Noise, "auto"), (Unsaid, 2), (NoiseOfOurs, 2)]
)
def test_an_endless_dataset_is_a_stream(make: Callable[[], Any], nb_workers: Any) -> None:
    with prefetch(make(), nb_workers, seed=1) as batches:
        got = [batch[:2].tolist() for batch in itertools.islice(batches, 500)]
        assert [index for index, _ in got] == list(range(500))
        iterator = iter(batches)  # the next epoch
        processes = {next(iterator)[2]}
        state = batches.state_dict()
        following = next(iterator)
        processes.add(following[2])
        assert (os.getpid() not in processes) or nb_workers != 2
        with pytest.raises(TypeError, match=f"a map of a {make.__name__} has no length: it does not end"):
            len(batches)
        assert batches.num_batches is None
    with prefetch(make(), 0, seed=1) as batches:
        assert [batch[:2].tolist() for batch in itertools.islice(batches, 500)] == got
        batches.load_state_dict(state)
        assert next(batches)[:2].tolist() == following[:2].tolist()


def test_batches_of_an_endless_dataset() -> None:
    with prefetch(Noise(), 0, batch_size=3) as batches:
        assert [batch[:, 0].tolist() for batch in itertools.islice(batches, 2)] == [[0, 1, 2], [3, 4, 5]]
        assert batches.num_batches is None


def test_what_has_no_end_is_not_shuffled() -> None:
    with pytest.raises(TypeError, match=r"Noise has no end.*cannot be shuffled.*current_rng"):
        prefetch(Noise(), 0, shuffle=True)


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_a_length_that_only_num_batches_says(nb_workers: Any) -> None:
    """The same batches, hooks and states as with ``__len__``; in the workers."""

    def batches_of(dataset: Any, **options: Any) -> list[Any]:
        with prefetch(dataset, nb_workers, seed=1, **options) as batches:
            assert len(batches) == batches.num_batches
            got = [batch for _ in range(2) for batch in batches]
        if nb_workers == 2 and not options:
            assert os.getpid() not in {batch[2] for batch in got}
        return [batch[..., :2].tolist() for batch in got]

    expected = batches_of(FiveByLength())
    assert len(expected) == 10
    for dataset in (Five(), FiveOfOurs()):
        assert batches_of(dataset) == expected
        assert isinstance(dataset, FiveOfOurs) or (dataset.begun, dataset.ended) == (2, 2)
    for options in ({"shuffle": True}, {"batch_size": 2}):
        assert batches_of(Five(), **options) == batches_of(FiveByLength(), **options)


def test_a_state_of_a_dataset_without_a_length() -> None:
    """Is that of its class, as with ``__len__``."""
    with prefetch(Five(), 0, seed=1) as batches:
        next(batches)
        state = batches.state_dict()
        following = next(batches)[1]
    assert (state["sampler"], state["length"], state["batch"]) == ("Five", 5, 1)
    with prefetch(Five(), 2, seed=1) as batches:
        batches.load_state_dict(state)
        assert next(batches)[1] == following


def test_a_sequence_that_says_nothing_of_its_length() -> None:
    class Nothing(Sequence[Any]):
        __getitem__ = Noise.__getitem__

    with pytest.raises(NotImplementedError, match="Nothing must define __len__"):
        len(Nothing())


def numbers() -> Any:
    return SequenceArray({"x": np.arange(6)}, seed=1)


@pytest.mark.parametrize(
    "word",
    [
        lambda source: source,
        lambda source: source.batch(4).shard(1, 3),
        lambda source: source.shuffle().shard(0, 2),
        lambda source: source.repeat(3).batch(2, True),
        lambda source: workers.concat([numbers(), source]).shard(0, 1000),
        lambda source: workers.zip([source, source]),
        lambda source: workers.mix([source, numbers().repeat()]).batch(4).shard(0, 2),
        lambda source: source.map(dict).batch(3),
    ],
)
def test_what_is_made_of_an_endless_sequence_has_no_end(word: Callable[[Any], Any]) -> None:
    batches = word(numbers().repeat()).prefetch(0)
    assert batches.num_batches is None
    with pytest.raises(TypeError, match="no length: it does not end"):
        len(batches)
    assert len(list(itertools.islice(batches, 3))) == 3


def test_nothing_comes_after_what_has_no_end() -> None:
    with pytest.raises(ValueError, match=r"sources\['train'\] of a concat has no end"):
        workers.concat({"train": numbers().repeat(), "test": numbers()})
    for made in (lambda: numbers().repeat()[::2], lambda: numbers().repeat().skip(2)):
        with pytest.raises(TypeError, match=r"has no end: only \.take"):
            made()
    assert len(numbers().repeat().take(20)) == 20
