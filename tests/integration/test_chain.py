"""What is made of a sequence, and of that again: whose workers compute it, what closing closes, what lists become."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest
from any_workers import WORKERS, Several, epochs_on

from workers import Sequence, SequenceArray, SequenceMap, StateError, current_rng, prefetch
from workers.batch.stacking import stack, unstack
from workers.sequence.base import plan_of
from workers.sequence.epoch_plan import EpochPlan
from workers.sequence.fetching import batch_at

LENGTH = 23


class Numbers(Sequence):
    """Sample i is (i, its process, a draw, its epoch)."""

    def __init__(self, length: int = LENGTH) -> None:
        super().__init__(seed=1)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return index, os.getpid(), float(current_rng().random()), self.epoch


def same(sample: Any) -> Any:
    return sample


def num_processes() -> int:
    """Worker processes of this one's pools, of which each has a server besides."""
    process = psutil.Process()
    return len(process.children(recursive=True)) - len(process.children())


def numbers_of(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in np.atleast_1d(batch[0])]


# -- whose workers


CHAINS: dict[str, Any] = {
    "map, batch": lambda: Numbers().map(same, nb_workers=2).batch(4),
    "prefetch, batch": lambda: Numbers().prefetch(2).batch(4),
    "a list, batch": lambda: prefetch([(i, os.getpid) for i in range(LENGTH)], 2).batch(4),
    "map, shard": lambda: Numbers().map(same, nb_workers=2).shard(1, 3),
    "map, shuffle": lambda: Numbers().map(same, nb_workers=2).shuffle(),
    "map, shuffle, batch, shard": lambda: Numbers().map(same, nb_workers=2).shuffle().batch(2).shard(0, 2),
    "map, batch, map": lambda: Numbers().map(same, nb_workers=1).batch(4).map(same, nb_workers=1),
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_workers_work_for_the_end_of_the_chain(name: str) -> None:
    """All of it is computed in them, by one pool, and they are gone with it."""
    with CHAINS[name]() as made:
        assert isinstance(made, SequenceMap)
        batches = list(made)
        assert num_processes() == 2
        if name != "a list, batch":
            assert os.getpid() not in {int(pid) for batch in batches for pid in np.atleast_1d(batch[1])}
        assert made.metadata.time_processing > 0
    assert num_processes() == 0


def test_the_same_batches_with_and_without_workers() -> None:
    for make in (
        lambda workers: Numbers().map(same, workers).batch(4),
        lambda workers: Numbers().map(same, workers).shuffle(),
        lambda workers: Numbers().map(same, workers).batch(4).shuffle().shard(1, 2),
        lambda workers: Numbers().shuffle().map(same, workers).batch(3),
    ):
        found = []
        for workers in (0, 1, 2):
            with make(workers) as made:
                found.append([np.array([*map(np.array, (b[0], b[2], b[3]))]).tolist() for _ in range(2) for b in made])
                by_index = made[1]
                assert np.array_equal(by_index[0], list(itertools.islice(made, 2))[1][0])
        assert found[0] == found[1] == found[2]


def test_closing_closes_nothing_that_it_was_made_from() -> None:
    numbers = Numbers()
    mapped = numbers.map(same, nb_workers=1)
    for make in (lambda s: s.batch(4), lambda s: s.shuffle(), lambda s: s.shard(0, 2), lambda s: s.map(same, 1)):
        for source in (numbers, mapped):
            with make(source) as made:
                next(iter(made))
            assert numbers_of(source) == list(range(LENGTH))
    mapped.close()
    assert numbers_of(numbers) == list(range(LENGTH))
    assert num_processes() == 0


def test_a_loop_under_way_keeps_its_workers() -> None:
    with Numbers().prefetch(1) as batches:
        loop = iter(batches)
        assert next(loop)[0] == 0
        with batches.batch(4) as made:
            assert numbers_of(made) == list(range(LENGTH))
        assert numbers_of(loop) == list(range(1, LENGTH))


# -- shuffled


def test_shuffle() -> None:
    """The same batches in another order in each epoch: with workers, by index, from a state on."""
    plain = Numbers()
    expected = {batch[0]: batch[2:] for batch in plain}
    shuffled = Numbers().shuffle()
    by_hand = [shuffled[index] for index in range(LENGTH)]
    epochs = [list(shuffled) for _ in range(2)]
    assert [batch[0] for batch in by_hand] == numbers_of(epochs[0])
    assert {batch[0]: batch[2:] for batch in epochs[0]} == expected
    orders = [numbers_of(each) for each in epochs]
    assert [sorted(order) for order in orders] == [list(range(LENGTH))] * 2
    assert len({tuple(order) for order in [*orders, list(range(LENGTH))]}) == 3
    for workers in (0, 2):
        with Numbers().shuffle().prefetch(workers) as batches:
            loop = iter(batches)
            assert numbers_of(itertools.islice(loop, 5)) == orders[0][:5]
            state = batches.state_dict()
        with Numbers().shuffle().prefetch(2 - workers) as batches:
            batches.load_state_dict(state)
            assert [numbers_of(batches), numbers_of(batches)] == [orders[0][5:], orders[1]]
    with pytest.raises(StateError, match="not 'SequenceShuffle'"):
        Numbers().shuffle().load_state_dict(plain.state_dict())


def test_shuffle_of_ranks() -> None:
    whole = numbers_of(Numbers(24).shuffle())
    ranks = [numbers_of(Numbers(24).shuffle().shard(rank, 3)) for rank in range(3)]
    assert [number for step in zip(*ranks, strict=True) for number in step] == whole


@pytest.mark.parametrize("word", ["map", "prefetch", "rebatch", "max_samples", "sub_batch"])
@pytest.mark.parametrize("nb_workers", [0, 1, "auto"])
def test_what_follows_a_collate_fn_of_a_rank(word: str, nb_workers: Any) -> None:
    """It asks for the batches of that rank, by their places; not for batches of others."""

    def noted(batch: Any, source: Any) -> Any:
        return {**batch, "y": batch["x"] + 100}

    made = []
    for rank in range(3):
        samples = SequenceArray({"x": np.arange(40)}, seed=1).shuffle().batch(2).shard(rank, 3, "pad")
        front = SequenceMap(samples, nb_workers, None, collate_fn=noted)
        wanted = [batch["y"].tolist() for batch in front]
        words: dict[str, tuple[Any, ...]] = {"map": (dict,), "prefetch": (0,), "max_samples": (2 * len(front),)}
        followed = getattr(front, word)(*words.get(word, (2,)))
        followed.epoch = 0
        with followed:
            assert [batch["y"].tolist() for batch in followed] == wanted
            if word in ("map", "prefetch"):
                followed.epoch = 0
                assert followed[1]["y"].tolist() == wanted[1]
        made += [number for batch in wanted for number in batch]
    assert set(made) == set(range(100, 140))


def test_shuffled_samples() -> None:
    """Before a batch: the samples are shuffled; of arrays, at the speed of a slice."""
    arrays = SequenceArray({"x": np.arange(1000)}, seed=1).shuffle()
    batches = arrays.batch(64)
    for _ in range(2):
        order = np.concatenate([batch["x"] for batch in batches])
        assert sorted(order) == list(range(1000))
        assert [int(sample["x"]) for sample in arrays] == order.tolist()
    assert batch_at(EpochPlan(plan_of(arrays), 0, 1000), range(3), "raise") is not None


def test_prefetch_shuffled() -> None:
    with prefetch(list(range(100)), 1, shuffle=True, seed=3) as batches:
        epochs = [list(batches) for _ in range(2)]
    assert [sorted(each) for each in epochs] == [list(range(100))] * 2
    assert epochs[0] != epochs[1]
    with prefetch(list(range(100)), 0, shuffle=True, seed=3) as batches:
        assert list(batches) == epochs[0]


def test_workers_agree_on_the_order_without_a_seed() -> None:
    """Also where only the front-end is given one."""
    for make in (
        lambda: prefetch(list(range(60)), 0, shuffle=True).batch(3),
        lambda: SequenceArray({"x": np.arange(60)}, sampler=np.random.permutation).map(lambda s: s["x"], 0, seed=5),
        lambda: SequenceArray({"x": np.arange(60)}).shuffle().map(lambda s: s["x"], 0, seed=5).batch(3),
    ):
        with make().prefetch(3) as batches:
            assert sorted(int(x) for batch in batches for x in np.atleast_1d(batch)) == list(range(60))


def test_shuffle_takes_no_memory() -> None:
    with Numbers(10**12).shuffle().prefetch(1) as batches:
        loop = iter(batches)
        first = [batch[0] for batch in itertools.islice(loop, 50)]
        assert len(set(first)) == 50
        state = batches.state_dict()
    others = Numbers(10**12).shuffle()
    others.load_state_dict({**state, "batch": 7})
    assert [batch[0] for batch in itertools.islice(others, 43)] == first[7:]


def test_what_cannot_be_shuffled() -> None:
    class Stream(Numbers):
        is_stream = True

    with pytest.raises(TypeError, match="Stream is read in an order of its own"):
        Stream().shuffle()
    with pytest.raises(TypeError, match="generator has no indices"):
        prefetch((i for i in range(3)), 0, shuffle=True)
    with pytest.raises(ValueError, match="shuffle must be one of True, False, not 7"):
        prefetch([1], 0, shuffle=7)  # type: ignore[arg-type]


# -- lists


def positive_and_negative(number: int) -> list[int]:
    """Number, and its negative; nothing for multiples of 5."""
    return [number, -number] if number % 5 else []


def expected_items(length: int) -> list[int]:
    return [item for number in range(length) for item in positive_and_negative(number)]


def in_groups(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


@pytest.fixture(params=[0, 2])
def nb_workers(request: pytest.FixtureRequest) -> Iterator[int]:
    return request.param


@pytest.mark.parametrize("size", [1, 3, 4, 50])
@pytest.mark.parametrize("discard", [False, True])
def test_batches_of_lists(nb_workers: int, size: int, discard: bool) -> None:
    """Of the items; from any state on, byte for byte."""
    length = 22

    def made() -> SequenceMap:
        return prefetch(list(range(length)), 0, seed=1).map(positive_and_negative, nb_workers).batch(size, discard)

    expected = in_groups(expected_items(length), size)
    expected = [group for group in expected if len(group) == size or not discard]
    with made() as batches:
        states, found = [batches.state_dict()], []
        for batch in batches:
            found.append(batch.tolist())
            states.append(batches.state_dict())
        assert found == expected
        assert [batch.tolist() for batch in batches] == expected
    with made() as others:
        for step, state in enumerate(states[:-1]):
            others.load_state_dict(state)
            assert [batch.tolist() for batch in others] == found[step:], state
        if len(others):
            with pytest.raises(TypeError, match="use `for batch in"):
                others[0]


def test_some_lists_and_some_not(nb_workers: int) -> None:
    """A batch that a worker has made whole is taken apart again where samples are left over before it."""

    def sometimes(number: int) -> Any:
        sample = {"x": np.array([number, number + 0.5]), "name": f"n{number}", "pair": (number, None)}
        return [sample] * 3 if number == 5 else sample

    order = [*range(5), 5, 5, 5, *range(6, 20)]
    with prefetch(list(range(20)), 0, seed=1).map(sometimes, nb_workers).batch(4) as batches:
        found = list(batches)
    assert [batch["x"][:, 0].tolist() for batch in found] == in_groups(order, 4)
    assert [batch["name"] for batch in found] == [[f"n{i}" for i in group] for group in in_groups(order, 4)]
    assert [batch["pair"][0].tolist() for batch in found] == in_groups(order, 4)


def test_unstack() -> None:
    samples = [
        {"a": (np.full((2, 3), at), at), "b": ["x", [float(at), None]], "c": np.float32(at), "d": b"y"}
        for at in range(3)
    ]
    batch = stack(samples)
    again = stack(unstack(batch))
    assert [unstack(batch)[1][key] for key in "bd"] == [["x", [1.0, None]], b"y"]
    assert repr(again) == repr(batch)


def test_lists_as_they_are(nb_workers: int) -> None:
    with prefetch(list(range(1, 4)), 0, seed=1).map(positive_and_negative, nb_workers, as_items=False) as batches:
        assert list(batches) == [[1, -1], [2, -2], [3, -3]]
        for x, y in batches:
            assert x == -y


def test_columns_are_warned_of(nb_workers: int, caplog: Any) -> None:
    """A list of x and y, such as torch's default_collate returns, is two batches: the log says so, once."""
    with prefetch(list(range(6)), 0, seed=1).map(lambda i: [np.zeros((8, 3)), np.zeros(8)], nb_workers) as batches:
        assert [batch.shape for batch in batches] == [(8, 3), (8,)] * 6
    assert len([each for each in caplog.records if "as_items=False" in each.message]) == 1
    caplog.clear()
    with prefetch(list(range(6)), 0, seed=1).map(lambda i: [np.zeros((8, 3))] * 2, nb_workers) as batches:
        list(batches)
    assert not caplog.records


def test_what_works_on_batches_of_lists() -> None:
    """It cannot know them in a worker."""
    with (
        prefetch(list(range(8)), 0, seed=1).map(positive_and_negative, 0).batch(3).map(same, 1) as batches,
        pytest.raises(TypeError, match=r"a function before .* returns lists"),
    ):
        list(batches)


# -- errors


def fails_at_three(sample: Any) -> Any:
    if sample == 3:
        raise OSError("of sample 3")
    return sample


def test_skipping_is_inherited(nb_workers: int, caplog: Any) -> None:
    """By batches, parts, and further maps: the sample is left out, and the batches are whole."""
    arrays = SequenceArray({"x": np.arange(10), "uid": np.arange(10)}, seed=1)

    def value(sample: Any) -> Any:
        return fails_at_three(int(sample["x"]))

    def made() -> SequenceMap:
        return arrays.map(value, nb_workers, on_error="skip")

    with made().batch(4) as batches:
        assert [batch.tolist() for batch in batches] == [[0, 1, 2, 4], [5, 6, 7, 8], [9]]
    with made().map(lambda x: x + 1) as batches:
        assert list(batches) == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    with made().subsample_uids([2, 3, 4], "uid") as part:
        assert list(part) == [2, 4]
    with made().subsample(10) as part:
        assert list(part) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    with arrays.map(value, nb_workers).batch(4) as batches, pytest.raises(OSError, match="of sample 3"):
        list(batches)
    assert nb_workers or "is skipped" in caplog.text


# -- arrays


def test_a_subclass_with_samples_of_its_own() -> None:
    class Doubled(SequenceArray):
        def __getitem__(self, index: int) -> Any:
            return {"x": super().__getitem__(index)["x"] * 2}

    doubled = Doubled({"x": np.arange(5)}, seed=1)
    assert [int(sample["x"]) for sample in doubled] == [0, 2, 4, 6, 8]
    assert [batch["x"].tolist() for batch in doubled.batch(4)] == [[0, 2, 4, 6], [8]]
    assert sorted(np.concatenate([batch["x"] for batch in doubled.shuffle().batch(4)])) == [0, 2, 4, 6, 8]


def forwards(number: int) -> Any:
    return np.arange(number)


def every_other(number: int) -> Any:
    return np.arange(number)[::-2]


SAMPLERS: list[Any] = [forwards, every_other, [3, 1], None, np.random.permutation, forwards, np.array([2, 2, 5])]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("chain", [lambda s: s, lambda s: s.batch(2), lambda s: s.map(dict).batch(2)])
def test_a_sampler_that_is_set_anew(chain: Any, nb_workers: Any, executor: str) -> None:
    """The next epoch has the new order, whoever computes it, and whether or not its length was asked for before."""

    def epochs(nb_workers: Any, executor: str, asks: bool) -> list[Any]:
        source = SequenceArray({"x": np.arange(6)}, every_other, seed=1)
        found = []
        with chain(source).prefetch(nb_workers=nb_workers, executor=executor) as batches:
            for sampler in SAMPLERS:
                if asks:
                    assert len(batches) > 0
                    assert len(source) > 0
                source.sampler = sampler
                found.append([batch["x"].tolist() for batch in batches])
        return found

    expected = epochs(0, "process", False)
    numbers = [np.hstack(epoch).tolist() for epoch in expected]
    assert [len(epoch) for epoch in numbers] == [6, 3, 2, 6, 6, 6, 3]
    assert [numbers[at] for at in (0, 1, 2, 3, 5, 6)] == [
        [*range(6)],
        [5, 3, 1],
        [3, 1],
        [*range(6)],
        [*range(6)],
        [2, 2, 5],
    ]
    assert epochs(nb_workers, executor, True) == expected


def test_a_sampler_that_is_set_within_an_epoch() -> None:
    """That epoch goes on in the order that it began with."""
    source = SequenceArray({"x": np.arange(6)}, every_other, seed=1)
    loop = iter(source)
    got = [int(next(loop)["x"])]
    source.sampler = forwards
    assert [*got, *(int(sample["x"]) for sample in loop)] == [5, 3, 1]
    assert [int(sample["x"]) for sample in source] == [*range(6)]
    with pytest.raises(ValueError, match="sampler has positions 0 to 6, allowed are 0 to 5"):
        source.sampler = [0, 6]
    with pytest.raises(TypeError, match="sampler must be None, integer positions or a function"):
        source.sampler = "random"
    assert source.sampler is forwards


def test_a_seed_that_is_set_after_the_length_was_asked_for() -> None:
    def order(asks: bool) -> Any:
        source = SequenceArray({"x": np.arange(20)}, np.random.permutation, seed=1)
        assert not asks or len(source)
        source.seed = 2
        return [int(sample["x"]) for sample in source]

    assert order(True) == order(False)


class Labelled(SequenceArray):
    """Finds the label of a sample by its index, and draws."""

    def __init__(self, sampler: Any = None) -> None:
        super().__init__({"x": np.arange(12), "uid": np.arange(12)[::-1].copy()}, sampler, seed=1)
        self.labels = [f"label {at}" for at in range(12)]
        self.ended = 0

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        at = index if self.sampler is None else int(sample["x"])
        return {"x": int(sample["x"]) * 10, "label": self.labels[at], "drawn": current_rng().random(), "n": self.ended}

    def on_epoch_end(self) -> None:
        self.ended += 1


PARTS: dict[str, Callable[[], Any]] = {
    "subsample": lambda: Labelled().subsample(8),
    "of fixed positions": lambda: Labelled(np.arange(2, 12)[::-1]).subsample(8),
    "of a function": lambda: Labelled(np.random.permutation).subsample(8),
    "of a subsample": lambda: Labelled().subsample(10).subsample(8),
    "of uids": lambda: Labelled().subsample_uids([5, 0, 7, 5, 99, 11, 1, 2, 3, 4], "uid"),
    "of uids in an order": lambda: Labelled().subsample_uids(range(8), "uid", np.random.permutation),
    "of uids of a subsample": lambda: Labelled().subsample(11).subsample_uids(range(9), "uid").subsample(8),
}


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_parts_of_a_subclass_have_its_samples(nb_workers: Any, executor: str) -> None:
    expected = list(Several({name: make() for name, make in PARTS.items()}))
    assert len(expected) == 8
    for name in PARTS:
        samples = [batch[name] for batch in expected]
        assert len({sample["x"] for sample in samples}) == 8, name
        assert all(sample["label"] == f"label {sample['x'] // 10}" for sample in samples), name
    got = epochs_on(Several({name: make() for name, make in PARTS.items()}), nb_workers, executor, epochs=1)[0]
    assert got == expected


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_subclass(name: str) -> None:
    part = PARTS[name]()
    epochs = [list(part) for _ in range(3)]
    assert [{sample["n"] for sample in epoch} for epoch in epochs] == [{0}, {1}, {2}]  # the hook is called
    drawn = [frozenset(sample["x"] for sample in epoch) for epoch in epochs]
    assert len(set(drawn)) == 1
    orders = {tuple(sample["x"] for sample in epoch) for epoch in epochs}
    assert len(orders) == (3 if "function" in name or "order" in name else 1)
    assert [part[at] for at in range(len(part))] != epochs[0]
    again = PARTS[name]()
    assert [again[at] for at in range(len(again))] == epochs[0]
    loop = iter(again)
    begun = [next(loop) for _ in range(3)]
    state = again.state_dict()
    other = PARTS[name]()
    other.load_state_dict(state)
    assert begun + list(other) == epochs[0]
    batched = [x for batch in PARTS[name]().batch(4) for x in batch["x"].tolist()]
    assert batched == [sample["x"] for sample in epochs[0]]


@pytest.mark.parametrize("nb_workers", [0, 1])
def test_the_seed_of_the_end_is_that_of_a_part(nb_workers: int) -> None:
    class Doubled(SequenceArray):
        def __getitem__(self, index: int) -> Any:
            return int(super().__getitem__(index)["x"]) * 2

    def samples(seed: int) -> list[Any]:
        found = []
        for part in (
            Doubled({"x": np.arange(20)}).subsample(9),
            Doubled({"x": np.arange(20)}, np.random.permutation).subsample(9),
            Doubled({"x": np.arange(20)}).subsample_uids(range(20), "x", np.random.permutation),
        ):
            with part.prefetch(nb_workers, seed=seed) as batches:
                found.append(list(batches))
        return found

    one, other = samples(5), samples(6)
    assert one == samples(5)
    assert all(mine != others for mine, others in zip(one, other, strict=True))


def test_parts_have_the_positions_of_those_of_plain_arrays() -> None:
    arrays = {"x": np.arange(12), "uid": np.arange(12)[::-1]}
    for sampler in (None, [7, 6, 5, 4, 3, 2], np.random.permutation):
        plain = SequenceArray(arrays, sampler, seed=1)
        for make in (lambda s: s.subsample(4), lambda s: s.subsample_uids([3, 8, 4], "uid")):
            assert [sample["x"] for sample in make(Labelled(sampler))] == [
                10 * int(sample["x"]) for sample in make(plain)
            ]
    with pytest.raises(ValueError, match=r"uids_name must be one of \['uid', 'x'\], not 'id'"):
        Labelled().subsample(5).subsample_uids([1], "id")


def test_a_subclass_that_adds_nothing_has_parts_that_are_arrays() -> None:
    class Named(SequenceArray):
        """Only its arguments are others."""

        def __init__(self, x: Any) -> None:
            super().__init__({"x": x}, seed=1)

    part = Named(np.arange(9)).subsample(3)
    assert type(part) is SequenceArray
    assert len(part.arrays["x"]) == 3


def test_a_part_of_what_the_sampler_draws() -> None:
    arrays = {"x": np.arange(20)}
    part = SequenceArray(arrays, sampler=[0, 1, 2, 3, 4], seed=1).subsample(4)
    assert len({int(sample["x"]) for sample in part} & {0, 1, 2, 3, 4}) == 4
    with pytest.raises(ValueError, match="nb_samples must be at most the 5 samples"):
        SequenceArray(arrays, sampler=[0, 1, 2, 3, 4], seed=1).subsample(6)

    def held_in(nb_samples: int) -> Any:
        return np.random.permutation(10)

    part = SequenceArray(arrays, sampler=held_in, seed=1).subsample(8)
    epochs = [[int(sample["x"]) for sample in part] for _ in range(4)]
    assert len(epochs[0]) == 8
    assert {*epochs[0]} <= set(range(10))
    assert len({frozenset(each) for each in epochs}) == 1
    assert len({tuple(each) for each in epochs}) == 4
    part = SequenceArray(arrays, sampler=lambda n: np.random.choice(n, 10), seed=1).subsample(4)
    assert [len(list(part)) for _ in range(3)] == [4] * 3


# -- arguments


def test_the_seed_may_be_set() -> None:
    class Seeded(Numbers):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.seed = seed

    assert Seeded(5).seed == 5
    assert [each[2] for each in Seeded(5)] == [each[2] for each in Seeded(5).prefetch(0)]
    assert [each[2] for each in Seeded(5)] != [each[2] for each in Seeded(6)]
    with pytest.raises(ValueError, match="seed must be None or 0 to"):
        Seeded(-1)
    batches = Numbers().batch(2)
    with pytest.raises(AttributeError, match="the seed of a SequenceBatch is that of what it was made from"):
        batches.seed = 5


def test_the_order_of_arguments_of_trw() -> None:
    with Numbers().map(same, 1, 4, 0.01, lambda batch, source: batch[0], 7) as batches:
        assert (batches.nb_workers, batches.max_queue_size, batches.queue_timeout) == (1, 7, 0.01)
        assert list(batches) == list(range(LENGTH))
    with Numbers().map(same, 2, 4) as batches:
        assert batches.max_queue_size == 8


def test_the_number_of_workers() -> None:
    """What is made of a front-end says how many workers it has from there."""
    with Numbers().map(same, nb_workers=2) as mapped, mapped.batch(4) as batches:
        assert (mapped.nb_workers, batches.nb_workers) == (2, 2)
    with Numbers().map(same).map(same, nb_workers=1).map(same, nb_workers=1) as batches:
        assert batches.nb_workers == 2
    assert Numbers().map(same).batch(4).nb_workers == 0


def test_arrays_that_are_none() -> None:
    with pytest.raises(TypeError, match=r"arrays\['y'\] must be an array or a list, not 5 \(int\)"):
        SequenceArray({"x": np.arange(3), "y": 5})
    with pytest.raises(TypeError, match=r"arrays\['name'\] must be an array or a list, not 'abc'"):
        SequenceArray({"x": np.arange(3), "name": "abc"})
    with pytest.raises(TypeError, match=r"arrays\['y'\] must be"):
        SequenceArray({"y": np.array(5)})


@pytest.fixture(autouse=True)
def _log(caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "workers")


# -- batches of what a function returns, of which the last short one is left out


def patches(sample: Any) -> list[int]:
    return [int(sample["x"]) * 100 + number for number in range(int(sample["x"]) % 3 * 7)]


@pytest.mark.parametrize("nb_workers", [0, 1, "auto"])
@pytest.mark.parametrize(("number", "batch_size"), [(5, 8), (8, 8), (13, 8), (3, 20), (30, 1), (1, 8)])
@pytest.mark.parametrize("in_order", [True, False])
def test_only_the_last_short_batch_is_left_out(number: int, batch_size: int, nb_workers: Any, in_order: bool) -> None:
    samples = SequenceArray({"x": np.arange(number)}, seed=1)
    wanted = [item for at in range(number) for item in patches({"x": at})]
    wanted = wanted[: len(wanted) // batch_size * batch_size]
    made = samples.map(patches, nb_workers, in_order=in_order).batch(batch_size, discard_batch_not_full=True)
    with made as batches:
        for _ in range(2):
            got = [batch.tolist() for batch in batches]
            assert {len(batch) for batch in got} <= {batch_size}
            items = [item for batch in got for item in batch]
            assert (items if in_order else sorted(items)) == wanted


def test_what_returns_one_sample_each_has_the_batches_that_it_had() -> None:
    samples = SequenceArray({"x": np.arange(13)}, seed=1)
    with samples.map(lambda sample: int(sample["x"])).batch(4, discard_batch_not_full=True) as batches:
        assert len(batches) == 3
        for _ in range(2):
            loop = iter(batches)
            got = [next(loop).tolist() for _ in range(3)]
            state = batches.state_dict()
            assert state["batch"] == 0  # the epoch is over
            assert list(loop) == []
            assert got == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_lists_of_a_part_of_the_last_samples() -> None:
    """Shuffled and sharded batches of lists: nothing comes twice, and only what fills no batch is missing."""
    samples = SequenceArray({"x": np.arange(26)}, seed=1)

    def made() -> Any:
        return samples.map(patches).batch(4, discard_batch_not_full=True)

    every = {item for at in range(26) for item in patches({"x": at})}
    with made().shuffle() as batches:
        items = [item for batch in batches for item in batch.tolist()]
        assert len(items) == len(set(items)) == len(every) // 4 * 4
        assert set(items) <= every
    ranks = []
    for rank in range(2):
        with made().shard(rank, 2) as batches:
            ranks += [item for batch in batches for item in batch.tolist()]
    assert len(ranks) == len(set(ranks)) > len(every) - 8
    assert set(ranks) <= every


def test_a_shard_that_would_have_no_batch() -> None:
    with pytest.raises(ValueError, match="so none is left for each of 3 ranks"):
        SequenceArray({"x": np.arange(26)}, seed=1).batch(13).shard(0, 3)
    assert len(SequenceArray({"x": np.arange(26)}, seed=1).batch(13).shard(0, 3, "pad")) == 1


@pytest.mark.parametrize("sampler", [None, list(range(5, 25)), np.random.permutation])
@pytest.mark.parametrize("seed", [None, 1])
def test_uids_of_a_part(sampler: Any, seed: int | None) -> None:
    """Of those that were chosen, none else."""
    samples = SequenceArray({"x": np.arange(30), "uid": np.arange(30)}, sampler, seed=seed)
    part = samples.subsample(8)
    chosen = {int(sample["uid"]) for sample in part}
    assert len(chosen) == 8
    found = [int(sample["uid"]) for sample in part.subsample_uids(range(29, -1, -1), "uid")]
    assert found == sorted(chosen, reverse=True)


def test_too_few_samples_for_a_batch() -> None:
    """Of a function that may return lists, and does not."""
    for length in range(3):
        with prefetch(list(range(length)), 0).map(np.negative).batch(3, True).batch(2, True) as batches:
            assert list(batches) == list(batches) == []
            if length:
                with pytest.raises(TypeError, match="use `for batch in"):
                    batches[0]


class HasFrontEnd(Sequence[Any]):
    """Reads a front-end that it holds by the name that the words of the chain use."""

    def __init__(self, front: Any) -> None:
        super().__init__(seed=5)
        self.source_split = front

    def __len__(self) -> int:
        return len(self.source_split)

    def __getitem__(self, index: int) -> Any:
        return self.source_split[index]


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_workers_of_what_a_users_object_holds_are_its_own(nb_workers: Any) -> None:
    inner = SequenceArray({"x": np.arange(8)}, seed=1).map(dict, nb_workers)
    outer = HasFrontEnd(inner)
    with inner, outer.prefetch(0) as none, outer.batch(2).prefetch(1) as one:
        assert (none.nb_workers, one.nb_workers, inner.nb_workers) == (0, 1, nb_workers)
        assert [batch["x"].tolist() for batch in one] == [[0, 1], [2, 3], [4, 5], [6, 7]]
        assert [int(sample["x"]) for sample in none] == list(range(8))


def test_options_that_are_set_anew_hold_from_the_next_workers_on() -> None:
    """And what is told of them at once."""
    front = SequenceArray({"x": np.arange(8)}, seed=1).map(lambda sample: os.getpid(), 1)
    with front.map(lambda pid: pid, 0):  # whose workers they are now
        front.executor, front.max_queue_size = "thread", 4
        assert (front.max_jobs_at_once, front.max_queue_size_pin) == (4, 4)
        assert set(front) == {os.getpid()}
        assert "1 thread" in repr(front)
        assert front.report().executor == "thread"
    front.close()


def test_an_attribute_of_a_users_front_end_may_be_called_options() -> None:
    class Mine(SequenceMap[Any]):
        options = "the user's own"

    with Mine([1, 2], 0, None) as front:
        assert list(front) == [1, 2]
        assert front.map(lambda number: number).max_retries == 2
