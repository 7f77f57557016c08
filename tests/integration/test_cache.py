"""``.cache()``: the same batches as without it, by any word and on any workers, and each item is made once."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS, epochs_on
from cached import NUMBER, Load, Samples, noisy, numbers
from shapes import exactly

import workers
from workers import concat, mix


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load(tmp_path)


def twice(row: Any) -> list[Any]:
    return [row, row] if row["i"] % 3 else []


def spread(row: Any) -> Any:
    for _ in range(int(row["i"]) % 3):
        yield row


def lists_of_spread(row: Any) -> list[Any]:
    """Behind a cache, a generator's items are those of a list."""
    return list(spread(row))


def is_even(row: Any) -> bool:
    return bool(row["i"] % 2 == 0)


def at_random(number: int) -> Any:
    return np.random.permutation(number)


WEIGHTS = [1 + at % 4 for at in range(NUMBER)]
#: What comes before the cache, as a function of ``load``, which makes the items.
BEFORE: dict[str, Callable[[Any], Any]] = {
    "map": lambda load: numbers().map(load),
    "two maps": lambda load: numbers().map(dict).map(load),
    "shuffle, map": lambda load: numbers().shuffle().map(load),
    "map, shuffle": lambda load: numbers().map(load).shuffle(),
    "take, shuffle, skip": lambda load: numbers().take(20).shuffle().skip(3).map(load),
    "weighted": lambda load: numbers().weighted(WEIGHTS).map(load),
    "map, weighted": lambda load: numbers().map(load).weighted(WEIGHTS),
    "without replacement": lambda load: numbers().weighted(WEIGHTS, num_samples=9, replacement=False).map(load),
    "reorder": lambda load: numbers().reorder(at_random_of_epoch).map(load),
    "a sampler": lambda load: numbers(sampler=at_random).map(load),
    "a sampler, weighted": lambda load: numbers(sampler=np.arange(NUMBER)[::-1]).weighted(WEIGHTS).map(load),
    "repeat": lambda load: numbers().shuffle().repeat(2).map(load),
    "split": lambda load: numbers().split(0.5)[0].shuffle().map(load),
    "filter": lambda load: numbers().filter(is_even).map(load),
    "lists": lambda load: numbers().map(twice).map(load),
    "generators": lambda load: numbers().map(spread).map(load),
    "mix": lambda load: mix({"a": numbers(), "b": numbers().shuffle()}, {"a": 2, "b": 1}).map(load),
    "concat": lambda load: concat([numbers().map(load), numbers().shuffle().map(load)]),
    "mix of mixes": lambda load: mix([mix([numbers(), numbers().take(5)]), numbers().weighted(WEIGHTS)]).map(load),
    "zip": lambda load: workers.zip([numbers(), numbers()]).map(first_of).map(load),
    "list": lambda load: workers.SequenceMap(list(range(NUMBER)), 0, load, seed=3),
    "several at once": lambda load: workers.SequenceMap(Samples(), 0, seed=3).shuffle().map(load),
    "several at once, mapped": lambda load: workers.SequenceMap(Samples(), 0, seed=3).map(load).shuffle(),
    "collate_fn": lambda load: numbers().map(load, collate_fn=same),
    "on_error": lambda load: numbers().map(load, on_error="skip"),
}


def at_random_of_epoch(epoch: int) -> Any:
    return np.random.default_rng(epoch).permutation(NUMBER)


def first_of(pair: Any) -> Any:
    return pair[0]


def same(batch: Any, source: Any) -> Any:
    return batch


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize(("nb_workers", "executor"), [(0, "process"), (2, "process")])
def test_batches_are_the_same_and_each_item_is_made_once(
    name: str, nb_workers: int, executor: str, load: Load, tmp_path: Path
) -> None:
    plain = BEFORE[name] if name != "generators" else lambda load: numbers().map(lists_of_spread).map(load)
    wanted = epochs_on(plain(Load(tmp_path / "other")).map(noisy).batch(4), 0, "process", 3)
    found = epochs_on(BEFORE[name](load).cache().map(noisy).batch(4), nb_workers, executor, 3)
    assert exactly(found) == exactly(wanted)
    calls = load.calls()
    if nb_workers == 0:  # two workers may make the same one at the same time
        many = {"lists": 2, "generators": 2, "mix": 2, "concat": 2, "mix of mixes": 3}
        assert all(calls.count(each) <= many.get(name, 1) for each in calls)
    with BEFORE[name](load).cache().prefetch(nb_workers, executor=executor) as batches:
        for _ in range(4):
            for _ in batches:
                pass
        num_calls = len(load.calls())
        if name not in ("weighted", "map, weighted", "without replacement", "a sampler, weighted", "mix of mixes"):
            for _ in batches:
                pass
            assert len(load.calls()) == num_calls  # all are kept
        assert batches.report().cache.hits


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_on_any_workers(nb_workers: Any, executor: str, where: str, load: Load, tmp_path: Path) -> None:
    def made(load: Any) -> Any:
        return numbers().shuffle().map(load)

    folder = None if where == "memory" else tmp_path / "kept"
    wanted = epochs_on(made(Load(tmp_path / "other")).map(noisy).batch(4), 0, "process", 3)
    assert exactly(epochs_on(made(load).cache(folder).map(noisy).batch(4), nb_workers, executor, 3)) == exactly(wanted)
    assert set(load.calls()) == set(range(NUMBER))


@pytest.mark.parametrize("on_error", ["skip", "redraw"])
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_errors_are_not_kept(
    on_error: str, nb_workers: int, load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(row: Any) -> Any:
        item = load(row)
        if row["i"] % 5 == 0:
            raise LookupError("this one")
        return item

    def made(cached: bool) -> Any:
        front = numbers().map(failing, on_error=on_error)
        return (front.cache() if cached else front).map(noisy).batch(4)

    wanted = epochs_on(made(False), 0, "process", 2)
    before = load.calls().count(5)
    assert exactly(epochs_on(made(True), nb_workers, "process", 2)) == exactly(wanted)
    assert load.calls().count(5) - before >= 2
    assert load.calls().count(6) >= 1
    caplog.clear()  # tracebacks, which hold the sequence


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_shards_share_a_cache(nb_workers: int, load: Load, tmp_path: Path) -> None:
    plain = numbers().map(Load(tmp_path / "other")).batch(2).shuffle()
    cached = numbers().map(load).cache().batch(2).shuffle()
    for _ in range(2):
        for rank in range(2):
            found = epochs_on(cached.shard(rank, 2), nb_workers, "process")
            assert exactly(found) == exactly(epochs_on(plain.shard(rank, 2), 0, "process"))
    assert nb_workers or load.calls() == list(range(NUMBER))


#: What comes behind the cache. The first argument is that of the samples.
AFTER: dict[str, Callable[[Any], Any]] = {
    "shuffle": lambda seq: seq.shuffle().batch(4),
    "weighted": lambda seq: seq.weighted(WEIGHTS).map(noisy).batch(4),
    "reorder": lambda seq: seq.reorder(at_random_of_epoch).map(noisy).batch(4),
    "repeat": lambda seq: seq.shuffle().repeat(2).map(noisy).batch(4),
    "split": lambda seq: seq.split(0.5)[1].map(noisy).batch(4),
    "slice": lambda seq: seq.shuffle()[3:20:2].map(noisy).batch(4),
    "filter": lambda seq: seq.filter(is_long).map(noisy).batch(4),
    "counted filter": lambda seq: seq.filter(is_long, count=True).map(noisy).batch(4),
    "bucket": lambda seq: seq.bucket([1 + at % 5 for at in range(NUMBER)], 4).map(noisy),
    "batch_by": lambda seq: seq.batch_by([[5, 3], [1, 1, 2]]).map(noisy),
    "rebatch": lambda seq: seq.map(noisy).batch(4).rebatch(5),
    "sub_batch": lambda seq: seq.map(noisy).batch(4).sub_batch(3),
    "max_samples": lambda seq: seq.map(noisy).batch(4).max_samples(9),
    "lists": lambda seq: seq.map(two_of).batch(4),
    "generators": lambda seq: seq.map(each_of_two).batch(4),
    "reservoir": lambda seq: seq.shuffle().reservoir(4, 3).map(noisy).batch(4),
    "mix": lambda seq: mix({"a": seq, "b": seq.shuffle()}, until=30).map(noisy).batch(4),
    "zip": lambda seq: workers.zip([seq, seq.shuffle()]).map(first_of).map(noisy).batch(4),
    "another cache": lambda seq: seq.map(renamed).cache().map(noisy).batch(4),
    "a cache of batches": lambda seq: seq.batch(4).cache().shuffle().map(noisy),
    "nothing": lambda seq: seq,
}


def is_long(item: Any) -> bool:
    return len(item["raw"]) % 3 != 1


def two_of(item: Any) -> list[Any]:
    return [noisy(item), {**item, "x": item["x"] * 2}]


def each_of_two(item: Any) -> Any:
    yield from two_of(item)


def renamed(item: Any) -> Any:
    return {**item, "name": item["name"].upper()}


@pytest.mark.parametrize("name", AFTER)
@pytest.mark.parametrize("nb_workers", [0, 2])
def test_words_behind_a_cache(name: str, nb_workers: int, load: Load, tmp_path: Path) -> None:
    plain, cached = (numbers().map(each, as_items=False) for each in (Load(tmp_path / "other"), load))
    cached = cached.cache()
    wanted = epochs_on(AFTER[name](plain), 0, "process", 3)
    assert exactly(epochs_on(AFTER[name](cached), nb_workers, "process", 3)) == exactly(wanted)
    assert exactly(epochs_on(AFTER[name](cached), 0, "process", 3)) == exactly(wanted)  # all of it from the cache
    if nb_workers == 0:
        calls = load.calls()
        assert len(calls) == len(set(calls))


def test_items_are_found_in_another_order_and_by_another_loop(load: Load) -> None:
    cached = numbers().map(load).cache()
    first = epochs_on(cached.batch(5), 2, "process", 1)
    with cached.shuffle().batch(3).prefetch(1) as batches:
        assert sum(len(batch["name"]) for batch in batches) == NUMBER
        assert batches.report().cache.misses == 0
    assert exactly(epochs_on(cached.batch(5), 0, "process", 1)) == exactly(first)
    copied = pickle.loads(pickle.dumps(cached))  # refers to the same memory
    assert exactly(list(copied.batch(5))) == exactly(first[0])
    del cached, batches
