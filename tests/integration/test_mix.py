"""``workers.mix``, ``concat`` and ``zip``: exact shares, each source in its own order, on any workers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numbered import Named, named

import workers
from workers import SequenceArray, SequenceMap, current_job, prefetch
from workers.sequence.apportion import Turns

WORKERS = [(0, "process"), (2, "process"), (2, "thread"), ("auto", "process")]


@pytest.mark.parametrize(
    "weights", [[0.7, 0.3], [1, 1, 1], [0.5, 0.2, 0.2, 0.1], [3, 1], [0.123, 0.4, 0.3, 0.177], [5, 1, 1, 1, 1, 1]]
)
def test_no_prefix_is_one_off(weights: list[float]) -> None:
    turns = Turns(weights)
    number = 2000
    parts, ranks = turns.at(np.arange(number))
    for part, share in enumerate(np.array(weights) / sum(weights)):
        counts = np.cumsum(parts == part)
        assert np.abs(counts - share * np.arange(1, number + 1)).max() < 1
        assert ranks[parts == part].tolist() == list(range(counts[-1]))
        assert [turns.place_of(part, turn) for turn in (0, 3, 40)] == np.flatnonzero(parts == part)[[0, 3, 40]].tolist()
    assert [turns.before(777)[part] for part in range(len(weights))] == np.bincount(parts[:777]).tolist()


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("until", ["longest", "shortest", 17])
def test_each_source_goes_on_in_its_own_order(until: Any, nb_workers: Any, executor: str) -> None:
    """Through its epochs, each with its own permutation, whatever the epochs of the loop are."""

    def sources() -> dict[str, Any]:
        return {"a": Named("a", 10, seed=1).shuffle(), "b": Named("b", 4, seed=2).shuffle(), "c": []}

    orders: dict[str, Any] = {name: sources()[name] for name in "ab"}
    expected = {name: [number for _ in range(9) for _, number in named(order)] for name, order in orders.items()}
    mixed = workers.mix(sources(), {"a": 2, "b": 1, "c": 5}, until, seed=3)
    assert len(mixed) == {"longest": 14, "shortest": 14}.get(until, 17)
    with mixed.prefetch(nb_workers, executor=executor) as batches:
        epochs = [list(batches) for _ in range(3)]
    found = named(itertools.chain(*epochs))
    for name in "ab":
        numbers = [number for each, number in found if each == name]
        assert numbers == expected[name][: len(numbers)], name
    for epoch in epochs:
        assert len({draw for _, _, draw in epoch}) == len(epoch) == len(mixed)
        shares = np.cumsum([name == "a" for name, _ in named(epoch)]) - 2 / 3 * np.arange(1, len(epoch) + 1)
        assert np.abs(shares).max() < 1
    again = workers.mix(sources(), {"a": 2, "b": 1, "c": 5}, until, seed=3)
    assert [list(again) for _ in range(3)] == epochs


def test_when_an_epoch_ends() -> None:
    """The longest: all of each, once at least. The shortest: none comes twice."""
    a, b = list(range(10)), list(range(-1, -5, -1))
    longest, shortest = list(workers.mix([a, b])), list(workers.mix([a, b], until="shortest"))
    assert [each for each in longest if each >= 0] == a
    assert [each for each in longest if each < 0] == (b * 3)[: len(longest) - 10]
    assert [each for each in shortest if each < 0] == b
    assert len(shortest) == 9  # then -1 would come again
    assert list(workers.mix([[1, 2], [3]], weights=[1, 0])) == [1, 2]
    assert list(workers.mix([[1, 2], []])) == [1, 2]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_concat_and_zip(nb_workers: Any, executor: str) -> None:
    a, b = SequenceArray({"x": np.arange(5)}, seed=1), SequenceArray({"x": 10 * np.arange(3)}, seed=2)
    options = {"nb_workers": nb_workers, "executor": executor}
    with workers.concat([a, [], b.shuffle()]).batch(4).prefetch(**options) as batches:
        for _ in range(2):
            found = np.concatenate([batch["x"] for batch in batches]).tolist()
            assert found[:5] == [0, 1, 2, 3, 4]
            assert sorted(found[5:]) == [0, 10, 20]
    with workers.zip({"left": a.map(lambda row: row["x"] + 1), "right": b}, strict=False).prefetch(
        **options
    ) as batches:
        assert [(int(each["left"]), int(each["right"]["x"])) for each in batches] == [(1, 0), (2, 10), (3, 20)]
    with workers.zip([a.batch(5), [7]]).prefetch(**options) as batches:
        assert [(left["x"].tolist(), right) for left, right in batches] == [([0, 1, 2, 3, 4], 7)]


class Hooked(Named):
    num_epochs = 0

    def on_epoch_end(self) -> None:
        self.num_epochs += 1

    def __getitem__(self, index: int) -> Any:
        return self.name, index, self.num_epochs


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
@pytest.mark.parametrize("make", [workers.mix, workers.concat])
def test_hooks_of_each_source(make: Any, nb_workers: Any) -> None:
    first, second = Named("a", 3, seed=1), Hooked("b", 3)
    with make([first, second]).prefetch(nb_workers) as batches:
        for epoch in range(3):
            assert {number for name, _, number in batches if name == "b"} == {epoch}
    assert second.num_epochs == 3


@pytest.mark.parametrize("stop", [1, 6, 13])
def test_a_state_goes_on(stop: int) -> None:
    def made(weights: Any = (2, 1)) -> Any:
        return workers.mix([Named("a", 10, seed=1).shuffle(), Named("b", 4)], weights).shuffle()

    with made().prefetch(2) as batches:
        whole = [list(batches) for _ in range(2)]
    with made().prefetch(1) as batches:
        loop = iter(batches)
        got = [next(loop) for _ in range(stop)]
        state = batches.state_dict()
    with made().prefetch("auto") as batches:
        batches.load_state_dict(state)
        assert [got + list(batches), list(batches)] == whole
    with pytest.raises(workers.StateError):
        made((1, 1)).prefetch(0).load_state_dict(state)


def test_ranks_and_what_follows() -> None:
    whole = named(workers.mix([Named("a", 10, seed=1), Named("b", 4)]))
    for world in (1, 2, 3, 4):
        ranks = [
            named(workers.mix([Named("a", 10, seed=1), Named("b", 4)]).shard(rank, world)) for rank in range(world)
        ]
        assert [each for step in zip(*ranks, strict=True) for each in step] == whole[: len(whole) // world * world]
    batched = workers.mix([Named("a", 6, seed=1), Named("b", 6)]).batch(4, True).take(2)
    assert [names for names, _, _ in batched] == [["a", "b", "a", "b"]] * 2
    of_batches = workers.mix([Named("a", 6, seed=1).batch(3), Named("b", 6).batch(2)])
    assert [names for names, _, _ in of_batches] == [["a"] * 3, ["b"] * 2, ["a"] * 3, ["b"] * 2, ["a"] * 3, ["b"] * 2]
    nested = workers.mix([workers.concat([[1, 2], [3]]), [10, 20, 30]])
    assert sorted(nested) == [1, 2, 3, 10, 20, 30]
    twice = [number for _, number in named(workers.mix([Named("a", 4, seed=1).shuffle(), []]).repeat(2))]
    assert sorted(twice[:4]) == sorted(twice[4:]) == [0, 1, 2, 3]
    assert twice[:4] != twice[4:]


def test_the_workers_of_the_sources_do_all() -> None:
    first = prefetch([1, 2, 3], 1).map(lambda number: 10 * number)
    mixed = workers.mix([first, prefetch([5], 1)], until="longest")
    with mixed.prefetch(0) as batches:
        assert batches.nb_workers == 2
        assert sorted(set(batches)) == [5, 10, 20, 30]


def lists(number: int) -> list[int]:
    return [number] * number


def test_functions_that_return_lists() -> None:
    for nb_workers in (0, 2):
        with workers.concat([prefetch([0, 2], 0).map(lists), [5]]).prefetch(nb_workers) as batches:
            assert list(batches) == [2, 2, 5]
        with workers.concat([prefetch([0, 2], 0).map(lists), [5]]).batch(2).prefetch(nb_workers) as batches:
            assert [batch.tolist() for batch in batches] == [[2, 2], [5]]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: workers.mix([]), "must not be empty"),
        (lambda: workers.mix(5), "must be a list or dict"),
        (lambda: workers.mix(Named("a", 3)), "must be a list or dict"),
        (lambda: workers.mix([[1], iter([1])]), "has no indices"),
        (lambda: workers.mix([[1], "ab"]), "single characters"),
        (lambda: workers.mix([[1], [2]], [1]), "weights must be 2 numbers"),
        (lambda: workers.mix([[1], [2]], [1, -1]), "not all 0"),
        (lambda: workers.mix([[1], [2]], [0, 0]), "not all 0"),
        (lambda: workers.mix([[1], [2]], {"a": 1}), "give the sources as a dict"),
        (lambda: workers.mix({"a": [1]}, {"b": 1}), "but the sources have ['a']"),
        (lambda: workers.mix([[1]], until="never"), "until must be"),
        (lambda: workers.mix([[], []]), "would do nothing"),
        (lambda: workers.mix([Named("a", 4).shard(0, 2), [1]]), "shard last"),
        (lambda: workers.zip([[1, 2], [1]]), "equal lengths, not [2, 1]"),
        (lambda: list(workers.zip([[1], prefetch([2], 0).map(lists)])), "as_items=False"),
        (lambda: workers.concat([prefetch([1, 2], 0).filter(bool), [1]]).batch(1).weighted([1, 1]), "count=True"),
        (lambda: workers.mix([prefetch([1, 2], 0).map(lists).batch(2), [1]]), "batch after this"),
        (lambda: workers.mix([[1], [2]]).weighted([1, 1]), "the order of SequenceMix changes"),
    ],
)
def test_what_has_no_meaning(wrong: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        wrong()
    assert error in str(raised.value)


def test_an_error_says_which_source() -> None:
    with pytest.raises(TypeError) as raised:
        workers.mix({"good": [1], "bad": iter([1])})
    assert any("sources['bad']" in note for note in raised.value.__notes__)


def test_of_front_ends_with_a_collate_fn() -> None:
    front = SequenceMap([1, 2], 0, None, collate_fn=lambda batch, source: -batch)
    assert list(workers.concat([front, [3]])) == [-1, -2, 3]


class Growing(Named):
    """Has more samples in each epoch."""

    def on_epoch_end(self) -> None:
        self.length += 2


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_lengths_that_change(nb_workers: Any, executor: str) -> None:
    """By a hook, and by the user, who goes back to the same epoch: nothing of what was before is kept."""
    makers: dict[str, Any] = {
        "mix": lambda of: workers.mix([of, [("b", 0, 0.0)] * 3]),
        "concat": lambda of: workers.concat([of, [("b", 0, 0.0)] * 3]),
        "repeat": lambda of: of.repeat(2),
        "weights": lambda of: of.weighted(lambda epoch: np.ones(of.length)),
        "shuffled": lambda of: of.shuffle().repeat(1),
    }
    for name, make in makers.items():
        with make(Growing("a", 4, seed=1)).prefetch(nb_workers, executor=executor) as batches:
            found = [sorted({number for each, number in named(batches) if each == "a"}) for _ in range(3)]
        assert found == [list(range(4)), list(range(6)), list(range(8))], name
        source = Named("a", 4, seed=1)
        with make(source).prefetch(nb_workers, executor=executor) as batches:
            for length in (4, 7):
                source.length, batches.epoch = length, 0
                assert {number for each, number in named(batches) if each == "a"} == set(range(length)), name


def two_more(epoch: int) -> list[int]:
    return [epoch, epoch + 1]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_a_drawn_order_in_a_part(nb_workers: Any, executor: str) -> None:
    """Is drawn once an epoch in the program, is in the state, and cannot be repeated."""

    def made(order: Any = two_more) -> Any:
        arrays = SequenceArray({"x": np.arange(6)}, seed=1)
        return workers.concat([arrays.reorder(order), SequenceArray({"x": np.arange(2) + 100})])

    with made().prefetch(nb_workers, executor=executor) as batches:
        for epoch in range(3):
            assert [int(row["x"]) for row in batches] == [epoch, epoch + 1, 100, 101]
        next(iter(batches))
        state = batches.state_dict()
    with made(lambda epoch: [5, 4]).prefetch(0) as other, pytest.raises(workers.StateError, match="another order"):
        other.load_state_dict(state)
    for wrong in (lambda: made().repeat(2), lambda: workers.mix([made(), [1]])):
        with pytest.raises(TypeError, match="drawn once for each epoch"):
            wrong()


def test_hooks_of_one_object_in_two_parts() -> None:
    """Are called once."""
    source = Hooked("a", 4, seed=1)
    first, second = source.split(0.5)
    with workers.concat([first.map(tuple), workers.mix([second, source])]).prefetch(0) as batches:
        list(batches)
        list(batches)
    assert source.num_epochs == 2


@pytest.mark.parametrize("options", [{"nb_workers": 0}, {"nb_workers": 2}, {"nb_workers": 2, "executor": "thread"}, {}])
@pytest.mark.parametrize("size", [None, 4])
def test_the_report_counts_the_samples_of_each_source(options: dict[str, Any], size: int | None) -> None:
    """Those that came, once, whatever failed on the way."""
    made = workers.mix({"a": range(30), "b": range(100, 120)}, {"a": 2, "b": 1}, until=30, seed=1).shuffle()
    made = made.map(fails_at_first) if size is None else made.map(fails_at_first).batch(size)
    with made.prefetch(**options, on_error="retry") as loop:
        found = [np.atleast_1d(batch) for _ in range(2) for batch in loop]
        assert loop.report().sources == {"a": 40, "b": 20}
        assert sum((batch < 100).sum() for batch in found) == 40
        assert "sources: a 40 (67 %), b 20 (33 %)" in str(loop.report())
    with workers.concat({"a": range(3), "b": range(4)}, seed=1).prefetch(2) as loop:
        list(loop)
        assert loop.report().sources == {"a": 3, "b": 4}
    with workers.mix([range(3), range(4)], seed=1).prefetch(0) as loop:
        list(loop)
        assert loop.report().sources == {}


def fails_at_first(number: Any) -> Any:
    job = current_job()
    if number % 7 == 3 and job is not None and job.attempt == 0:
        raise OSError("a slow disk")
    return np.int64(number)


@pytest.mark.needs("torch")
def test_the_report_counts_what_was_moved_ahead() -> None:
    made = workers.mix({"a": range(30), "b": range(100, 120)}, until=40, seed=1).map(np.int64)
    with made.prefetch(2, output="torch").to_device("cpu", depth=3) as loop:
        assert len(list(loop)) == 40
        assert loop.report().sources == {"a": 20, "b": 20}
