"""``sampler=`` and ``batch_sampler=``: torch's objects and others as they are, drawn once an epoch in the program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import workers
from workers import Sequence, SequenceArray, current_rng, prefetch

NUMBER = 24
WORKERS = [(0, "process"), (2, "process"), (2, "thread"), ("auto", "process")]


class Drawn(Sequence[Any]):
    def __init__(self, seed: int | None = 1) -> None:
        super().__init__(seed=seed)

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return index, current_rng().random()


class Evens:
    """An iterable that is told the epoch, and draws."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[int]:
        found = np.arange(0, NUMBER, 2)
        np.random.shuffle(found)
        yield from found.tolist()[: 6 + self.epochs[-1]]


def torch_samplers() -> dict[str, Any]:
    import torch
    from torch.utils import data

    dataset = list(range(NUMBER))
    return {
        "Random": data.RandomSampler(dataset),
        "Random by its own generator": data.RandomSampler(dataset, generator=torch.Generator()),
        "Subset": data.SubsetRandomSampler([3, 5, 8]),
        "Weighted": data.WeightedRandomSampler([1.0] * 12 + [0.0] * 12, 10),
        "Distributed": data.DistributedSampler(dataset, num_replicas=2, rank=1),
    }


def numbers_of(batches: Any) -> list[int]:
    return [int(number) for number, _ in batches]


@pytest.mark.needs("torch")
@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_samplers_of_torch(nb_workers: Any, executor: str) -> None:
    """By the seed and the epoch: the same in each run, and on any workers."""
    for name in torch_samplers():
        with prefetch(Drawn(), 0, sampler=torch_samplers()[name]) as batches:
            expected = [list(batches) for _ in range(2)]
        with prefetch(Drawn(), nb_workers, executor=executor, sampler=torch_samplers()[name]) as batches:
            assert [list(batches) for _ in range(2)] == expected, name
        found = [numbers_of(epoch) for epoch in expected]
        assert name == "Subset" or found[0] != found[1], name
        allowed = {"Subset": {3, 5, 8}, "Weighted": set(range(12))}.get(name, set(range(NUMBER)))
        assert set(found[0]) <= allowed, name


@pytest.mark.needs("torch")
def test_batch_samplers_of_torch() -> None:
    from torch.utils import data

    batch_sampler = data.BatchSampler(data.RandomSampler(range(NUMBER)), 5, drop_last=False)
    with prefetch(Drawn(), 2, batch_sampler=batch_sampler) as batches:
        assert len(batches) == 5
        for _ in range(2):
            found = [numbers.tolist() for numbers, _ in batches]
            assert [len(each) for each in found] == [5, 5, 5, 5, 4]
            assert sorted(number for each in found for number in each) == list(range(NUMBER))


def test_of_an_iterable_that_is_told_the_epoch() -> None:
    """Its length is the epoch's."""
    sampler = Evens()
    with prefetch(Drawn(), 2, sampler=sampler, batch_size=4) as batches:
        lengths = []
        for epoch in range(3):
            found = [number for numbers, _ in batches for number in numbers.tolist()]
            assert len(set(found)) == 6 + epoch
            assert not any(number % 2 for number in found)
            lengths.append(len(batches))
    assert lengths == [2, 2, 3]  # of the epoch that comes next
    assert sampler.epochs == [0, 1, 2, 3]


@pytest.mark.parametrize("given", [[3, 1, 1, -1], np.array([3, 1, 1, -1], np.int32), lambda epoch: (3, 1, 1, -1)])
def test_of_indices(given: Any) -> None:
    """What comes twice has draws of its own."""
    with prefetch(Drawn(), 1, sampler=given) as batches:
        epoch = list(batches)
    assert numbers_of(epoch) == [3, 1, 1, NUMBER - 1]
    assert epoch[1] != epoch[2]


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_lists_of_any_size(nb_workers: Any) -> None:
    arrays = SequenceArray({"x": np.arange(10)}, seed=1)
    lists = [[1], [2, 3, 3], [9, 0]]
    with prefetch(arrays, nb_workers, batch_sampler=lists) as batches:
        assert [batch["x"].tolist() for batch in batches] == lists
    with prefetch(arrays, nb_workers, batch_sampler=lambda epoch: lists[epoch:], collate_fn=len) as batches:
        assert [list(batches) for _ in range(2)] == [[1, 3, 2], [3, 2]]


def failing(sample: Any) -> Any:
    if sample["x"] == 3:
        raise LookupError("sample 3")
    return sample


def test_samples_that_raise_in_lists() -> None:
    def made(**options: Any) -> Any:
        arrays = SequenceArray({"x": np.arange(10)}, seed=1)
        return prefetch(arrays.map(failing), 2, batch_sampler=[[1, 2], [3, 4], [3]], **options)

    with made(on_error="skip") as batches:
        assert [batch["x"].tolist() for batch in batches] == [[1, 2], [4]]
    with made(on_error=lambda error: "skip") as batches:
        assert [batch["x"].tolist() for batch in batches] == [[1, 2], [4]]
    with made() as batches:
        loop = iter(batches)
        assert next(loop)["x"].tolist() == [1, 2]
        with pytest.raises(LookupError, match="sample 3"):
            next(loop)


class Items:
    """As HF datasets: several samples by one call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("one by one")

    def __getitems__(self, indices: list[int]) -> list[int]:
        self.calls.append(indices)
        return [10 * index for index in indices]


def test_several_samples_by_one_call() -> None:
    for options in ({"sampler": [5, 5, 2, 0], "batch_size": 3}, {"batch_sampler": [[5, 5, 2], [0]]}):
        dataset = Items()
        with prefetch(dataset, 0, seed=1, **options) as batches:
            assert [batch.tolist() for batch in batches] == [[50, 50, 20], [0]]
        assert dataset.calls == [[5, 5, 2], [0]]
    dataset = Items()
    with prefetch(dataset, 0, seed=1, weights=np.eye(NUMBER)[7], batch_size=4, num_samples=4) as batches:
        assert next(iter(batches)).tolist() == [70] * 4
    assert dataset.calls == [[7] * 4]
    with prefetch(dataset, 0, seed=1).map(lambda item: item + 1).reorder([3, 4]).batch(2) as batches:
        assert next(iter(batches)).tolist() == [31, 41]
    with prefetch(dataset, 0, seed=1).repeat(2).batch(NUMBER) as batches:
        assert [batch.tolist() for batch in batches] == [list(range(0, 10 * NUMBER, 10))] * 2


class Wandering:
    """An order that depends on what it has given before."""

    def __init__(self) -> None:
        self.start = 0

    def __iter__(self) -> Iterator[int]:
        self.start += 1
        return iter(range(self.start, self.start + 6))


def test_a_state_holds_the_hash_of_the_order() -> None:
    with prefetch(Drawn(), 2, sampler=Evens()) as batches:
        loop = iter(batches)
        got = [next(loop) for _ in range(2)]
        state = batches.state_dict()
        rest = list(loop)
    assert state["order"]
    with prefetch(Drawn(), 0, sampler=Evens()) as batches:
        batches.load_state_dict(state)
        assert list(batches) == rest
        assert got[0] not in rest
    wandering = Wandering()
    with prefetch(Drawn(), 0, sampler=wandering) as batches:
        next(iter(batches))
        state = batches.state_dict()
    with (
        prefetch(Drawn(), 0, sampler=wandering) as batches,
        pytest.raises(workers.StateError, match="another order"),
    ):
        batches.load_state_dict(state)


def test_an_order_is_drawn_once_an_epoch() -> None:
    """Whatever asks for the length, takes states, or takes over in the middle."""
    wandering = Wandering()
    with prefetch(Drawn(), "auto", sampler=wandering) as batches:
        for epoch in range(3):
            loop = iter(batches)
            next(loop)
            batches.state_dict()
            assert len(batches) == 6
            list(loop)
            assert wandering.start == epoch + 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"sampler": iter([1])}, "is an iterator"),
        ({"sampler": 3}, "must be an iterable"),
        ({"sampler": Evens}, "is the class Evens"),
        ({"sampler": [1], "shuffle": True}, "both say which samples come"),
        ({"sampler": [1], "batch_sampler": [[1]]}, "both say which samples come"),
        ({"batch_sampler": [[1]], "batch_size": 2}, "leave out batch_size"),
        ({"batch_sampler": "ab"}, "must be an iterable"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        prefetch(Drawn(), 0, **options)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"sampler": [NUMBER]}, f"gives index {NUMBER} at place 0, but there are {NUMBER} batches"),
        ({"sampler": [0.5]}, "must give integers"),
        ({"sampler": [[1, 2]]}, "batch_sampler="),
        ({"sampler": lambda epoch: 3}, "must return an iterable for epoch 0"),
        ({"batch_sampler": [1, 2]}, "give single indices as sampler="),
        ({"batch_sampler": [[1], []]}, "list 1 of batch_sampler is empty"),
        ({"batch_sampler": [[NUMBER]]}, "list 0 of batch_sampler gives index"),
    ],
)
def test_wrong_orders(options: dict[str, Any], error: str) -> None:
    with prefetch(Drawn(), 0, **options) as batches, pytest.raises((TypeError, ValueError, IndexError)) as raised:
        next(iter(batches))
    assert error in str(raised.value)


def test_an_order_without_an_end() -> None:
    import itertools

    class Endless:
        def __iter__(self) -> Iterator[int]:
            return itertools.cycle([0])

    with prefetch([1], 0, sampler=Endless()) as batches, pytest.raises(ValueError, match="and goes on"):
        next(iter(batches))


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: Drawn().shuffle().reorder([1]), "the order of SequenceShuffle changes"),
        (lambda: Drawn().reorder([1]).repeat(2), "drawn once for each epoch"),
        (lambda: workers.mix([Drawn().reorder([1]), [1]]), "drawn once for each epoch"),
        (lambda: Drawn().shard(0, 2).batch_by([[1]]), "shard last"),
    ],
)
def test_orders_without_a_meaning(wrong: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        wrong()
    assert error in str(raised.value)
