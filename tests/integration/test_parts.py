"""``.repeat``, ``.split`` and ``.filter``: parts of a sequence, on any workers, from any state."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numbered import Numbered

import workers
from workers import SequenceArray, prefetch

WORKERS = [(0, "process"), (2, "process"), (2, "thread"), ("auto", "process")]
NUMBER = 12


class Drawn(Numbered):
    length = NUMBER


# -- repeat


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_rounds_are_epochs(nb_workers: Any, executor: str) -> None:
    """Each has its own order and draws, and the sequence sees its epoch; also behind a batch."""
    for make in (lambda of: of.shuffle(), lambda of: of.shuffle().batch(1), lambda of: of.batch(1).shuffle()):
        orders = make(Drawn())
        expected = [[int(np.ravel(each[0])[0]) for each in orders] for _ in range(6)]
        with make(Drawn()).repeat(3).prefetch(nb_workers, executor=executor) as batches:
            assert len(batches) == 3 * NUMBER
            epochs = [list(batches) for _ in range(2)]
        found = [int(np.ravel(number)[0]) for epoch in epochs for number, _, _ in epoch]
        assert found == [number for each in expected for number in each]
        seen = [int(np.ravel(epoch)[0]) for each in epochs for _, epoch, _ in each]
        assert seen == [at // NUMBER for at in range(6 * NUMBER)]
        assert len({float(np.ravel(draw)[0]) for each in epochs for _, _, draw in each}) == 6 * NUMBER


def test_without_end() -> None:
    endless = Drawn().shuffle().repeat()
    for nb_workers in (0, 2):
        with endless.batch(5).prefetch(nb_workers) as batches:
            with pytest.raises(TypeError, match="has no length"):
                len(batches)
            loop = iter(batches)
            found = [number for _ in range(12) for number in next(loop)[0].tolist()]
            state = batches.state_dict()
            rest = next(loop)[0].tolist()
        assert [sorted(found[at : at + NUMBER]) for at in range(0, 60, NUMBER)] == [list(range(NUMBER))] * 5
        with endless.batch(5).prefetch(1) as batches:
            batches.load_state_dict(state)
            assert next(iter(batches))[0].tolist() == rest
    assert [number for number, _, _ in endless.take(3)] == found[:3]


# -- split


def test_parts_are_disjoint_and_the_same_each_time() -> None:
    for share, sizes in ((0.75, [9, 3]), ([0.5, 0.25, 0.25], [6, 3, 3]), (0.9, [11, 1])):
        parts = Drawn().split(share)
        found = [[[number for number, _, _ in part] for _ in range(2)] for part in parts]
        assert [len(part) for part in parts] == sizes
        assert all(first == second for first, second in found)
        assert sorted(number for first, _ in found for number in first) == list(range(NUMBER))
        again = [[number for number, _, _ in part] for part in Drawn(seed=9).split(share)]
        assert again == [first for first, _ in found]
    assert [number for number, _, _ in Drawn().split(0.5, seed=1)[0]] != [n for n, _, _ in Drawn().split(0.5)[0]]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_words_behind_a_split(nb_workers: Any, executor: str) -> None:
    train, test = (part.shuffle().batch(3) for part in Drawn().split(0.75))
    with train.prefetch(nb_workers, executor=executor) as batches:
        epochs = [sorted(number for numbers, _, _ in batches for number in numbers.tolist()) for _ in range(3)]
    with test.prefetch(nb_workers, executor=executor) as batches:
        others = [number for numbers, _, _ in batches for number in numbers.tolist()]
    assert epochs[0] == epochs[1] == epochs[2]
    assert sorted(epochs[0] + others) == list(range(NUMBER))


def test_groups_and_classes() -> None:
    patients = np.repeat(np.arange(10), [1, 2, 3, 4, 5, 5, 4, 3, 2, 1])
    arrays = SequenceArray({"x": np.arange(30), "patient": patients}, seed=1)
    train, test = arrays.split(0.6, by="patient")
    found = [{int(row["patient"]) for row in part} for part in (train, test)]
    assert not found[0] & found[1]
    assert found[0] | found[1] == set(range(10))
    assert abs(len(train) - 18) <= 3
    classes = ["rare"] * 10 + ["common"] * 90
    for part, share in zip(
        prefetch(range(100), 0).split([0.8, 0.1, 0.1], stratify=classes), (0.8, 0.1, 0.1), strict=True
    ):
        rare = sum(number < 10 for number in part)
        assert abs(rare - 10 * share) < 2
        assert abs(len(part) - 100 * share) <= 1


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: Drawn().split(1.0), "between 0 and 1"),
        (lambda: Drawn().split([0.5, 0.6]), "add up to 1.1"),
        (lambda: Drawn().split("half"), "between 0 and 1"),
        (lambda: Drawn().split(0.5, by=[1], stratify=[1]), "either by=... or stratify"),
        (lambda: Drawn().split(0.5, by=[1]), "by has 1 labels for 12 batches"),
        (lambda: Drawn().split(0.5, by=[1] * NUMBER), "would be empty"),
        (lambda: Drawn().split(0.01), "would be empty"),
        (lambda: Drawn().shuffle().split(0.5), "the order of SequenceShuffle changes"),
        (lambda: SequenceArray({"x": [1, 2]}, np.random.permutation).split(0.5), "the order of SequenceArray changes"),
        (lambda: prefetch(iter([1]), 0).split(0.5), "has no indices"),
        (lambda: Drawn().shard(0, 2).split(0.5), "shard last"),
        (lambda: Drawn().repeat(2).split(0.5), "split before .repeat"),
        (lambda: Drawn().repeat(0), "must be an integer >= 1"),
        (lambda: Drawn().filter("x"), "function must be a function"),
        (lambda: Drawn().shuffle().filter(bool, count=True), "the order of SequenceShuffle changes"),
        (lambda: Drawn().filter(lambda batch: False, count=True), "nothing is left"),
        (lambda: prefetch(iter([1]), 0).filter(bool, count=True), "has no indices"),
        (lambda: prefetch([1], 0).map(lambda x: [x, x]).filter(bool, count=True), "returns lists"),
        (lambda: Drawn().filter(bool).shard(0, 2), "unequal numbers of batches"),
        (lambda: Drawn().filter(bool).map(str).batch(2).shard(0, 2), "unequal numbers of batches"),
        (lambda: workers.concat([Drawn().filter(bool), Drawn()]), "count=True"),
        (lambda: Drawn().shard(0, 2).filter(bool), "unequal numbers of batches"),
    ],
)
def test_what_has_no_meaning(wrong: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        wrong()
    assert error in str(raised.value)


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_each_epoch_without_end_has_orders_of_its_own(nb_workers: Any) -> None:
    with Drawn().shuffle().repeat().prefetch(nb_workers) as batches:
        orders = [[number for number, _, _ in itertools.islice(batches, 3 * NUMBER)] for _ in range(2)]
    rounds = [order[first : first + NUMBER] for order in orders for first in (0, NUMBER, 2 * NUMBER)]
    assert all(sorted(each) == list(range(NUMBER)) for each in rounds)
    assert len(set(map(tuple, rounds))) == 6


# -- filter


def is_third(batch: Any) -> bool:
    return batch[0] % 3 == 0


@pytest.mark.parametrize("count", [False, True])
@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_a_filter_keeps(count: bool, nb_workers: Any, executor: str) -> None:
    with Drawn().filter(is_third, count).prefetch(nb_workers, executor=executor) as batches:
        for epoch in range(2):
            assert [(number, seen) for number, seen, _ in batches] == [(number, epoch) for number in (0, 3, 6, 9)]
    with Drawn().filter(is_third, count).batch(3).prefetch(nb_workers, executor=executor) as batches:
        assert [numbers.tolist() for numbers, _, _ in batches] == [[0, 3, 6], [9]]


class Hooked(Drawn):
    """Its hooks change its numbers."""

    calls = 0

    def __getitem__(self, index: int) -> Any:
        return (index + 100 * self.calls,)

    def on_epoch_begin(self) -> None:
        self.calls += 1


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_counting_calls_no_hooks(nb_workers: Any) -> None:
    """So epoch 0 is as it is without the count."""
    with Hooked().prefetch(nb_workers) as source:
        kept = source.filter(is_third, count=True)
        buckets = source.bucket(lambda batch: batch[0] + 1, batch_size=3, shuffle=False)
        assert [number for (number,) in kept] == [100, 103, 106, 109]
        assert next(iter(buckets))[0].tolist() == [200, 201, 202]


def test_of_an_iterable() -> None:
    for nb_workers in (0, 2):
        with prefetch((number for number in range(10)), nb_workers).filter(lambda number: number % 2) as batches:
            assert list(batches) == [1, 3, 5, 7, 9]


def test_lengths_of_filters() -> None:
    """Known where it was counted, and then of all that follows; else an error, and no wrong one."""
    kept = Drawn().filter(is_third)
    for made in (kept, kept.batch(2), kept.shuffle(), kept.take(3), kept.map(str), kept.prefetch(0)):
        with pytest.raises(TypeError, match="count=True"):
            len(made)
    counted = Drawn().filter(is_third, count=True)
    assert [len(counted), len(counted.batch(3)), len(counted.shard(1, 3)), len(counted.repeat(2))] == [4, 2, 1, 8]
    assert counted[-1][0] == 9
    assert len(counted.filter(lambda batch: batch[0] > 3, count=True)) == 2
    assert [number for number, _, _ in counted.weighted([0, 1, 0, 1])] != []


@pytest.mark.parametrize("count", [False, True])
def test_a_state_goes_on_in_a_filter(count: bool) -> None:
    def made(nb_workers: int) -> Any:
        return Drawn(seed=3).filter(is_third, count).shuffle().prefetch(nb_workers)

    with made(0) as batches:
        whole = [list(batches) for _ in range(2)]
    with made(2) as batches:
        loop = iter(batches)
        got = [next(loop), next(loop)]
        state = batches.state_dict()
    with made(1) as batches:
        batches.load_state_dict(state)
        assert [got + list(batches), list(batches)] == whole


def test_a_count_behind_a_map() -> None:
    for nb_workers in (0, 1):
        doubled = Drawn().prefetch(nb_workers).map(lambda batch: 2 * batch[0])
        kept = doubled.filter(lambda number: number % 3 == 0, count=True)
        assert list(kept) == [0, 6, 12, 18]


def test_a_filter_that_raises() -> None:
    def fails(batch: Any) -> bool:
        raise LookupError("no answer")

    with Drawn().filter(fails).prefetch(1) as batches, pytest.raises(LookupError, match="no answer"):
        next(iter(batches))
    with pytest.raises(LookupError, match="no answer"):
        Drawn().filter(fails, count=True)
    with Drawn().filter(fails).prefetch(1, on_error="skip") as batches:
        assert list(batches) == []


@pytest.mark.needs("keras", "torch")
def test_fit_of_a_filter() -> None:
    """Keras must know how many batches there are."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    arrays = SequenceArray({"x": np.ones((NUMBER, 2)), "y": np.arange(NUMBER)}, seed=1)
    for count in (False, True):
        kept = arrays.filter(lambda row: row["y"] % 2, count).batch(2).map(lambda batch: (batch["x"], batch["y"]))
        with kept.prefetch(0) as batches:
            if count:
                assert len(model.fit(batches, epochs=2, verbose=0).history["loss"]) == 2
                continue
            with pytest.raises(TypeError, match="count=True"):
                model.fit(batches, epochs=2, verbose=0)


def test_a_subset_of_what_has_changed() -> None:
    numbers = [1, 2, 3, 4]
    part = prefetch(numbers, 0).split(0.5)[0]
    numbers.append(5)
    with pytest.raises(ValueError, match="had 4 batches when it was split, and has 5 now"):
        list(part)


def test_their_states_are_their_own() -> None:
    first, second = Drawn(seed=1).split(0.5)
    with first.prefetch(0) as batches:
        next(iter(batches))
        state = batches.state_dict()
    with pytest.raises(workers.StateError):
        second.prefetch(0).load_state_dict(state)
