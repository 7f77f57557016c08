"""rebatch, sub_batch, collate and max_samples: what trw's users have, with the promises of all chains."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import psutil
import pytest
from faulty import wait_for
from varying import SIZES, TOTAL, Varying, same, told

from workers import SequenceArray, prefetch
from workers.errors import StalePassError


def numbers_of(batches: Any) -> list[list[int]]:
    return [batch["x"].tolist() for batch in batches]


def in_groups(numbers: Any, size: int) -> list[list[int]]:
    numbers = list(numbers)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def pieces(size: int, discard: bool = False) -> list[list[int]]:
    found, start = [], 0
    for each in SIZES:
        cut = in_groups(range(start, start + each), size) or [[]]
        found += [part for part in cut if not (discard and each > size and len(part) < size)]
        start += each
    return found


def lists(batch: Any) -> list[Any]:
    """As a function that returns a list: each batch twice."""
    return [batch, batch]


def streamed() -> Iterator[Any]:
    return map(Varying().__getitem__, range(len(SIZES)))


@pytest.fixture(params=[0, 2])
def nb_workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


# -- what the batches are


EXPECTED: list[tuple[Callable[[Any], Any], list[list[int]]]] = [
    (lambda s: s.rebatch(8), in_groups(range(TOTAL), 8)),
    (lambda s: s.rebatch(1), in_groups(range(TOTAL), 1)),
    (lambda s: s.rebatch(TOTAL + 1), [[*range(TOTAL)]]),
    (lambda s: s.rebatch(8, True), in_groups(range(TOTAL), 8)[:-1]),
    (lambda s: s.rebatch(TOTAL + 1, discard_batch_not_full=True), []),
    (lambda s: s.sub_batch(8), pieces(8)),
    (lambda s: s.sub_batch(8, True), pieces(8, True)),
    (lambda s: s.sub_batch(100), pieces(100)),
    (lambda s: s.sub_batch(8).rebatch(5), in_groups(range(TOTAL), 5)),
    (lambda s: s.sub_batch(8).map(same), pieces(8)),
    (lambda s: s.collate(), pieces(100)),
    (lambda s: s.collate(lambda batch: {"x": -batch["x"]}), [[-x for x in part] for part in pieces(100)]),
    (lambda s: s.max_samples(1), [part for part in pieces(100) if part][:1]),
    (lambda s: s.max_samples(6), [part for part in pieces(100) if part][:2]),
    (lambda s: s.rebatch(8).max_samples(20), in_groups(range(24), 8)),
]


@pytest.mark.parametrize("case", range(len(EXPECTED)))
def test_what_the_batches_are(nb_workers: int, case: int) -> None:
    make, expected = EXPECTED[case]
    with make(Varying().prefetch(nb_workers)) as batches:
        assert numbers_of(batches) == expected
    with make(Varying()) as made:
        assert numbers_of(made) == expected
    with make(Varying()).prefetch(nb_workers) as batches:
        assert numbers_of(batches) == expected
    with make(prefetch(streamed(), nb_workers)) as batches:
        assert numbers_of(batches) == expected


def test_all_parts_of_a_batch(nb_workers: int) -> None:
    """Draws and names stay with their samples; of what has no samples, there is one for each part."""
    whole = list(Varying())
    names = [name for batch in whole for name in batch["pair"][1]]
    draws = np.concatenate([batch["pair"][0] for batch in whole])
    with Varying().prefetch(nb_workers).rebatch(8) as batches:
        found = list(batches)
    assert [name for batch in found for name in batch["pair"][1]] == names
    assert np.array_equal(np.concatenate([batch["pair"][0] for batch in found]), draws)
    assert [type(batch["pair"]) for batch in found] == [tuple] * len(found)
    assert [batch["epoch"] for batch in found] == [0] * len(found)
    for batch in found:
        batch["x"][:] = 0  # writable, and nobody else's
    with Varying().prefetch(nb_workers).rebatch(8, collate_fn=len) as batches:
        assert list(batches) == [2, 1, 4, 1, 1, 1, 3, 1]
    others = [{"x": np.zeros(2), "of": name, "number": number} for number, name in enumerate("aab")]
    with prefetch(others, nb_workers, seed=1).rebatch(4) as batches:
        assert [told(batch) for batch in batches] == [
            {"x": [0, 0, 0, 0], "of": "a", "number": [0, 1]},
            {"x": [0, 0], "of": "b", "number": 2},
        ]


def test_lists_of_samples(nb_workers: int) -> None:
    """A list is a batch of samples, where it is not delivered one by one."""

    def as_samples(number: int) -> list[dict[str, int]]:
        return [{"x": number, "y": -number}] * number

    with prefetch([3, 1, 2], 0, seed=1).map(as_samples, nb_workers, as_items=False) as samples:
        with samples.rebatch(4) as batches:
            assert [[each["x"] for each in batch] for batch in batches] == [[3, 3, 3, 1], [2, 2]]
        with samples.sub_batch(2) as batches:
            assert [[each["x"] for each in batch] for batch in batches] == [[3, 3], [3], [1], [2, 2]]
        with samples.collate(lambda batch: batch[:1]) as batches:
            assert [told(batch) for batch in batches] == [[{"x": n, "y": -n}] for n in (3, 1, 2)]
        with samples.collate() as batches:
            assert [told(batch) for batch in batches] == [{"x": [n] * n, "y": [-n] * n} for n in (3, 1, 2)]


@pytest.mark.parametrize(
    ("nb_workers", "word", "size"),
    [
        (0, lambda s: s, 3),
        (0, lambda s: s.shuffle(), 8),
        (0, lambda s: s.shard(0, 1), 100),
        (2, lambda s: s, 8),
        ("auto", lambda s: s, 8),
    ],
)
def test_batches_of_a_functions_lists_are_cut_and_joined(
    nb_workers: Any, word: Callable[[Any], Any], size: int
) -> None:
    """What stands for them on the way is no sample; also where samples are skipped, here with 3."""

    def twice(number: int) -> list[int]:
        if number == 3:
            raise ValueError(number)
        return [number] * 2

    with word(prefetch(range(12), nb_workers, on_error="skip", seed=1).map(twice).batch(5)) as batches:
        joined = [batch.tolist() for batch in batches.rebatch(size)]
    assert sorted(number for batch in joined for number in batch) == sorted([n for n in range(12) if n != 3] * 2)
    assert {len(batch) for batch in joined[:-1]} <= {size}


# -- promises


CHAINS: dict[str, Callable[[int], Any]] = {
    "rebatch": lambda w: Varying().prefetch(w).rebatch(8),
    "rebatch, discard": lambda w: Varying().prefetch(w).rebatch(8, True),
    "lists, rebatch": lambda w: Varying().map(lists, w).rebatch(7),
    "shuffle, rebatch": lambda w: Varying().shuffle().prefetch(w).rebatch(8),
    "shard, rebatch": lambda w: Varying().shard(1, 2).prefetch(w).rebatch(6),
    "shuffle, shard, rebatch": lambda w: Varying().prefetch(w).shuffle().shard(0, 3).rebatch(4),
    "batch, rebatch": lambda w: SequenceArray({"x": np.arange(50)}, seed=1).shuffle().batch(7).prefetch(w).rebatch(9),
    "sub_batch": lambda w: Varying().prefetch(w).sub_batch(4),
    "shuffle, sub_batch": lambda w: Varying().shuffle().prefetch(w).sub_batch(4),
    "collate": lambda w: Varying().prefetch(w).collate(same),
    "max_samples": lambda w: Varying().prefetch(w).max_samples(21),
    "shuffle, max_samples": lambda w: Varying().shuffle().max_samples(21).prefetch(w),
    "shard, max_samples": lambda w: Varying().shard(1, 2).prefetch(w).max_samples(40),
    "rebatch, max_samples": lambda w: Varying().shuffle().prefetch(w).rebatch(8).max_samples(20),
}


def two_epochs(batches: Any) -> tuple[list[Any], list[Any], list[int]]:
    """(the batches, the state before each and at the end, after how many of them each epoch ends)."""
    found, states, ends = [], [json.loads(json.dumps(batches.state_dict()))], []
    for _ in range(2):
        for batch in batches:
            found.append(told(batch))
            states.append(json.loads(json.dumps(batches.state_dict())))
        ends.append(len(found))
    return found, states, ends


@pytest.mark.parametrize("name", CHAINS)
def test_the_same_on_any_workers_and_from_any_state(name: str) -> None:
    with CHAINS[name](0) as batches:
        found, states, ends = two_epochs(batches)
    assert len({str(batch) for batch in found}) > 2
    for nb_workers in (1, 2):
        with CHAINS[name](nb_workers) as batches:
            assert two_epochs(batches) == (found, states, ends)
    for nb_workers in (0, 2):
        with CHAINS[name](nb_workers) as batches:
            for step, state in enumerate(states[:-1]):
                batches.load_state_dict(state)
                left = [told(batch) for batch in batches] if "max" in name else []
                if left:  # the rest of its pass
                    assert left == found[step : ends[step >= ends[0]]], state
                while len(left) < len(found) - step:
                    left += [told(batch) for batch in islice(batches, len(found) - step - len(left))]
                assert left == found[step:], (step, state)


@pytest.mark.parametrize("name", ["rebatch", "shuffle, rebatch", "sub_batch"])
def test_break(name: str, nb_workers: int) -> None:
    """The next pass is the next epoch, whole."""
    with CHAINS[name](0) as batches:
        found, _, ends = two_epochs(batches)
    with CHAINS[name](nb_workers) as batches:
        for _ in batches:
            break
        assert [told(batch) for batch in batches] == found[ends[0] :]


def test_break_of_max_samples(nb_workers: int) -> None:
    """The next pass goes on there, with a count of its own; an older loop is over."""
    with Varying([4] * 10).prefetch(nb_workers).max_samples(8) as batches:
        older = iter(batches)
        assert next(older)["x"][0] == 0
        assert [part[0] for part in numbers_of(batches)] == [4, 8]
        with pytest.raises(StalePassError):
            next(older)
        assert [[part[0] for part in numbers_of(batches)] for _ in range(4)] == [[12, 16], [20, 24], [28, 32], [36, 0]]
        assert batches.epoch == 1
        batches.epoch = 5
        assert [(batch["x"][0], batch["epoch"]) for batch in batches] == [(0, 5), (4, 5)]


def test_max_samples_of_nothing(nb_workers: int) -> None:
    """An epoch without samples ends the pass; nothing hangs."""
    for sizes in ([], [0, 0]):
        with Varying(sizes).prefetch(nb_workers).max_samples(3) as batches:
            assert [list(batches), list(batches)] == [[], []]


def test_workers_are_those_of_the_source() -> None:
    def num_processes() -> int:
        process = psutil.Process()
        return len(process.children(recursive=True)) - len(process.children())

    for make in (
        lambda s: s.rebatch(8),
        lambda s: s.sub_batch(8),
        lambda s: s.collate(same),
        lambda s: s.max_samples(8),
    ):
        for begin in (lambda: Varying().prefetch(2, 3), lambda: Varying().map(same, 2, max_queue_size_pin=3)):
            with begin() as source, make(source) as made:
                next(iter(made))  # one worker is enough for it
                wait_for(lambda: num_processes() == 2)
                front = made.source_split if "Max" in type(made).__name__ else made
                assert (front.nb_workers, front.max_queue_size) == (2, 3)
            assert num_processes() == 0


@pytest.mark.parametrize("depth", [0, 2])
def test_tensors(nb_workers: int, depth: int) -> None:
    """Where a front-end delivers tensors, these are put together and counted likewise."""
    torch = pytest.importorskip("torch")
    with Varying().prefetch(nb_workers, output="torch").to_device("cpu", depth) as source:
        with source.rebatch(8) as batches:
            found = list(batches)
            assert all(isinstance(batch["x"], torch.Tensor) for batch in found)
            assert numbers_of(found) == in_groups(range(TOTAL), 8)
        with source.max_samples(6) as batches:
            assert numbers_of(batches) == [part for part in pieces(100) if part][:2]


def shard_of(number: int) -> Iterator[Any]:
    """Reads a shard into memory that it uses again for each item."""
    item = np.zeros(2)
    for value in range(number):
        item[:] = 10 * number + value
        yield item


def test_a_function_that_yields(nb_workers: int) -> None:
    """Its items are delivered one by one, batched, and resumed within."""
    expected = [[10.0, 10], [20, 20], [21, 21], [30, 30], [31, 31], [32, 32]]
    with prefetch([0, 1, 2, 3], nb_workers, seed=1).map(shard_of) as items:
        for _ in range(2):
            assert [item.tolist() for item in items] == expected
        loop = iter(items)
        got = [next(loop).tolist() for _ in range(3)]
        state = items.state_dict()
    with prefetch([0, 1, 2, 3], 0, seed=1).map(shard_of) as items:
        items.load_state_dict(state)
        assert got + [item.tolist() for item in items] == expected
    with prefetch(iter([2, 3]), nb_workers, seed=1).map(shard_of) as items:
        assert [item.tolist() for item in items] == expected[1:]
    with prefetch([3, 1], nb_workers, seed=1).map(shard_of).map(lambda item: item + 1).batch(3) as batches:
        assert [batch[:, 0].tolist() for batch in batches] == [[31, 32, 33], [11]]
    with (
        prefetch([2], nb_workers, collate_fn=shard_of) as items,
        pytest.raises(TypeError, match="returned a generator"),
    ):
        next(iter(items))
