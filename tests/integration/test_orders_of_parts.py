"""Each source of a ``mix``, ``concat`` or ``zip`` has orders of its own, although all share one seed."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numbered import Named, named

import workers
from workers import SequenceArray


def test_two_sources_of_one_length_are_shuffled_apart() -> None:
    source = Named("a", 50, seed=1)
    both = list(workers.zip([source.shuffle(), Named("b", 50).shuffle()]))
    assert [a[1] for a, _ in both] != [b[1] for _, b in both]
    mixed = named(workers.mix([Named("a", 50).shuffle(), Named("b", 50).shuffle()], seed=4))
    assert [n for name, n in mixed if name == "a"] != [n for name, n in mixed if name == "b"]


def by_sampler(name: str) -> Any:
    arrays = {"name": np.array([name] * 30), "x": np.arange(30)}
    return SequenceArray(arrays, np.random.permutation).map(lambda row: (str(row["name"]), int(row["x"]), 0.0))


ORDERS: dict[str, Any] = {
    "shuffle, map": lambda name: Named(name, 30).shuffle().map(tuple),
    "shuffle, batch": lambda name: Named(name, 30).shuffle().batch(1).map(lambda each: (str(each[0][0]), each[1][0])),
    "shuffle, repeat": lambda name: Named(name, 15).shuffle().repeat(2),
    "weighted": lambda name: Named(name, 30).weighted(np.ones(30)).map(tuple),
    "within another": lambda name: workers.concat([Named(name, 15).shuffle(), Named(name, 15).shuffle()]),
    "a sampler's": by_sampler,
}
DRAWN: dict[str, Any] = {
    "each once": lambda name: Named(name, 30).weighted(np.ones(30), replacement=False).map(tuple),
    "reorder": lambda name: Named(name, 30).reorder(lambda epoch: np.random.permutation(30)),
    "buckets": lambda name: (
        Named(name, 30).bucket(np.ones(30, int), 1).map(lambda each: (str(each[0][0]), int(each[1][0])))
    ),
}


@pytest.mark.parametrize("order", [*ORDERS, *DRAWN])
@pytest.mark.parametrize("make", [workers.mix, workers.concat, workers.zip])
def test_each_source_has_an_order_of_its_own(make: Any, order: str) -> None:
    """Also if its shuffle is not its last word, and if one object is two sources; the same in workers, and in the
    program, which draws some orders; of a source that was given a seed, by that."""
    if order in DRAWN and make is workers.mix:
        return
    source_of = {**ORDERS, **DRAWN}[order]
    two = source_of("a")
    mixed = make([two, source_of("b"), two], seed=3)
    epochs = []
    for nb_workers in (0, 2):
        with mixed.prefetch(nb_workers) as batches:
            epochs.append([list(batches) for _ in range(2)])
            state = batches.state_dict()
    assert epochs[0] == epochs[1]
    for epoch in epochs[0]:
        found = list(itertools.chain(*epoch)) if make is workers.zip else epoch
        numbers = [int(each[1]) for each in found]
        parts = [numbers[at::3] for at in range(3)] if make is not workers.concat else np.reshape(numbers, (3, 30))
        assert len({tuple(part) for part in parts}) == 3
    with make([source_of("a"), source_of("b"), source_of("a")], seed=3).prefetch(2) as batches:
        batches.load_state_dict(state)
        third = list(batches)
    with mixed.prefetch(0) as batches:
        batches.epoch = 2
        assert list(batches) == third


def test_sources_of_sources() -> None:
    """No two have the same order, wherever they are."""

    def source(name: str) -> Any:
        return Named(name, 30).shuffle().map(tuple)

    inner = workers.mix([source("c"), source("d")])
    mixed = workers.mix([workers.concat([source("a"), source("b")]), inner, source("e")], [2, 2, 1], seed=5)
    found = [list(mixed) for _ in range(2)]
    for epoch in found:
        orders = [tuple(number for each, number in named(epoch) if each == name)[:30] for name in "abcde"]
        assert len(set(orders)) == 5
    with mixed.prefetch(2) as batches:
        batches.epoch = 0
        assert [list(batches) for _ in range(2)] == found


def test_shuffles_within_and_after_a_part_differ() -> None:
    """The same one twice would be no shuffle of two samples."""
    inner, places, outer = (
        [number for _, number in named(joined)]
        for joined in (
            workers.concat([Named("a", 30, seed=1).shuffle()]),
            workers.concat([Named("a", 30, seed=1)]).shuffle(),
            workers.concat([Named("a", 30, seed=1).shuffle()]).shuffle(),
        )
    )
    assert outer != [inner[at] for at in places]


DRAWN_ORDERS: dict[str, Any] = {
    "reorder": lambda of: of.reorder(lambda epoch: np.random.permutation(len(of))),
    "each once": lambda of: of.weighted(np.ones(len(of)), replacement=False),
}


@pytest.mark.parametrize("order", DRAWN_ORDERS)
@pytest.mark.parametrize("nested", [False, True])
def test_drawn_orders_without_a_seed(order: str, nested: bool) -> None:
    """Of any source; the workers read what the program has drawn, whatever was asked before."""
    first, second = Named("a", 6), Named("b", 6)
    joined = workers.concat([first, DRAWN_ORDERS[order](second)])
    if nested:
        joined = workers.concat([Named("c", 3), workers.zip([joined, joined.map(tuple)]).map(lambda pair: pair[0])])
    with joined.prefetch(2) as batches:
        found = list(batches)
    assert sorted(number for name, number, _ in found if name == "b") == list(range(6))
    assert list(joined) == found


@pytest.mark.parametrize("make", [workers.mix, workers.concat, workers.zip])
def test_a_seed_of_a_later_source(make: Any) -> None:
    """Is that of this source alone, in states too."""
    joined = make([Named("a", 6).shuffle(), Named("b", 6, seed=3).shuffle()])
    seed = joined.seed
    loop = iter(joined)
    next(loop)
    state, rest = joined.state_dict(), list(loop)
    assert state["seed"] == seed == joined.seed != 3
    joined.load_state_dict(state)
    assert list(joined) == rest
