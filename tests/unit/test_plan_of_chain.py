"""What a chain computes, as a value, against plain lists: no process, no sequence of a user."""

from __future__ import annotations

import itertools
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workers.errors import StateError
from workers.job.permutation import Permutation
from workers.sequence.epoch_plan import EpochPlan
from workers.sequence.grouping import OfBatches, OfSamples
from workers.sequence.order import Order, Permuted, Shuffle
from workers.sequence.plan import Plan
from workers.sequence.position import Position

SEED = 7
LENGTHS = [1, 2, 5, 12, 13, 2000]


def double(item: Any) -> Any:
    return item


class Front:
    """Stands for a front-end with a ``collate_fn``."""


class Batches:
    """Stands for what makes batches of samples: it has as many as it was made with."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


def batched(plan: Plan, size: int, discard: bool = False, assembly: Any = None) -> Plan:
    samples = plan.num_places() or 0
    return plan.batched(Batches(samples // size if discard else -(-samples // size)), size, discard, assembly)


#: {a word: what it makes of a plan}
WORDS: dict[str, Callable[[Plan], Plan]] = {
    "map": lambda plan: plan.mapped(double, True, None, "raise", None),
    "prefetch": lambda plan: plan.mapped(None, True, None, "raise", None),
    "collate": lambda plan: plan.mapped(None, True, Front(), "raise", None).seen_from_behind(),
    "shuffle": lambda plan: plan.shuffled(None),
    "shuffle by 3": lambda plan: plan.shuffled(3),
    "shard 0/2": lambda plan: plan.sharded(0, 2, "drop"),
    "shard 1/2": lambda plan: plan.sharded(1, 2, "drop"),
    "pad 2/3": lambda plan: plan.sharded(2, 3, "pad"),
    "batch 3": lambda plan: batched(plan, 3),
    "whole 4": lambda plan: batched(plan, 4, True),
    "rebatch": lambda plan: plan.rebatched(OfBatches(4, False, list), 4, False),
    "limit": lambda plan: plan.limited(),
    "[2:]": lambda plan: plan.sliced(2, None, None),
    "[:-3]": lambda plan: plan.sliced(None, -3, None),
    "[::-2]": lambda plan: plan.sliced(None, None, -2),
    "[1:50:3]": lambda plan: plan.sliced(1, 50, 3),
}

CHAINS = [
    (),
    ("map",),
    ("prefetch",),
    ("shuffle",),
    ("shuffle", "shuffle"),
    ("shuffle", "shuffle by 3"),
    ("shuffle by 3", "shuffle"),
    ("map", "shuffle", "map"),
    ("shard 0/2",),
    ("shard 1/2",),
    ("pad 2/3",),
    ("shuffle", "shard 1/2", "map"),
    ("shuffle", "pad 2/3", "prefetch"),
    ("batch 3",),
    ("whole 4", "shuffle"),
    ("shuffle", "batch 3", "shuffle", "shard 0/2"),
    ("rebatch",),
    ("shuffle", "rebatch", "prefetch"),
    ("shuffle", "shard 1/2", "rebatch"),
    ("collate", "map"),
    ("shard 1/2", "collate", "map"),
    ("shuffle", "collate", "shuffle"),
    ("batch 3", "shuffle", "pad 2/3", "map", "limit"),
    ("[2:]",),
    ("[:-3]", "[1:50:3]"),
    ("[::-2]", "map", "[::-2]"),
    ("shuffle", "[2:]", "shuffle"),
    ("[1:50:3]", "shuffle by 3", "pad 2/3"),
    ("shuffle", "[:-3]", "batch 3", "shuffle", "shard 0/2"),
    ("batch 3", "[::-2]", "collate", "[2:]", "shuffle"),
]


def made(words: tuple[str, ...], length: int) -> Plan:
    plan = Plan.of(range(length))
    for word in words:
        plan = WORDS[word](plan)
    return plan


def drawn(length: int, seed: int, epoch: int, level: int) -> list[int]:
    if not length:
        return []
    key = (seed, epoch, 1) if level == 0 else (seed, epoch, 1, level)
    places: list[int] = Permutation(length)(np.arange(length, dtype=np.uint64), key).tolist()
    return places


def expected(words: tuple[str, ...], length: int, epoch: int) -> tuple[list[int], list[int]]:
    """(the jobs of all places, the places that this rank has), by plain lists."""
    jobs, level, given = list(range(length)), 0, None
    rank, world, pads = 0, 1, False
    for word in words:
        if word.startswith("shuffle"):
            given = 3 if word.endswith("3") else given
            order = drawn(len(jobs), SEED if given is None else given, epoch, level)
            jobs, level = [jobs[place] for place in order], level + 1
        elif word in ("batch 3", "whole 4"):
            size = int(word[-1])
            jobs = list(range(len(jobs) // size if word.startswith("whole") else -(-len(jobs) // size)))
        elif word.startswith("["):
            jobs = jobs[slice(*(int(part) if part else None for part in word[1:-1].split(":")))]
        elif word == "collate":
            jobs = list(range(len(jobs)))  # the front-end is asked for its items by their places
        elif "/" in word:
            rank, world, pads = int(word[-3]), int(word[-1]), word.startswith("pad")
    steps = -(-len(jobs) // world) if pads else len(jobs) // world
    return jobs, [(step * world + rank) % len(jobs) for step in range(steps)] if jobs else []


ROWS = [row for row in itertools.product(CHAINS, LENGTHS, (0, 3)) if row[1] // 3 > 0 or "whole 4" not in row[0]]


def test_rows_are_many() -> None:
    assert len(ROWS) >= 200


@pytest.mark.parametrize("words", CHAINS, ids=", ".join)
def test_orders(words: tuple[str, ...]) -> None:
    for length, epoch in ((length, epoch) for chain, length, epoch in ROWS if chain == words):
        plan = made(words, length)
        jobs, mine = expected(words, length, epoch)
        here = EpochPlan(plan, epoch, plan.count(), SEED)
        assert plan.num_places() == len(jobs)
        places = here.places(Position(stride=plan.world))
        assert places is not None
        assert list(places) == mine
        order = here.order(places)
        assert list(order) == here.jobs(places) == [jobs[place] for place in mine]
        assert here.num_steps == len(mine)
        for index in {0, len(mine) // 2, len(mine) - 1} & set(range(len(mine))):
            assert here.place(index) == mine[index]
            assert here.job(index) == jobs[mine[index]]
        following = EpochPlan(plan, epoch + 1, plan.count(), SEED)
        assert here.following() == following
        jobs, _ = expected(words, length, epoch + 1)
        assert list(following.order(places)) == [jobs[place] for place in mine]


@pytest.mark.parametrize("words", CHAINS, ids=", ".join)
def test_the_rest_of_an_epoch(words: tuple[str, ...]) -> None:
    """At each position: what is left there is the end of what there was."""
    for length in LENGTHS[:-1]:
        plan = made(words, length)
        here = EpochPlan(plan, 0, plan.count(), SEED)
        whole = list(here.places(Position(stride=plan.world)) or ())
        for step in range(len(whole) + 1):
            position = Position(step * plan.world, stride=plan.world)
            assert list(here.places(position) or ()) == whole[step:]
            assert here.is_at_end(step * plan.world) == (step == len(whole))


def test_only_ranks_need_batches_in_order() -> None:
    """And within a job all stand only where its batches are put together of samples that are counted."""
    apart, within = Position(2, [4]), Position(3, (), (2, 1))
    assert EpochPlan(made(("map",), 9), 0, 9).places(apart) == [2, 3, 5, 6, 7, 8]
    assert EpochPlan(made(("map",), 9), 0, 9).places(within) == [2, 3, 4, 5, 6, 7, 8]
    assert EpochPlan(made(("rebatch",), 9), 0, 9).places(within) == [2, 3, 4, 5, 6, 7, 8]
    assert EpochPlan(made(("shard 0/2", "rebatch"), 9), 0, 9).places(within) == [2, 3, 5, 7]
    for words, position, error in (
        (("shard 0/2", "map"), apart, "in_order=False"),
        (("shard 0/2", "map"), within, "within a list"),
        (("shuffle",), within, "only a map with that function"),
        ((), within, "only a map with that function"),
    ):
        with pytest.raises(StateError, match=error):
            EpochPlan(made(words, 9), 0, 9).places(position)


LAST, JOINED = "the last of a chain", "put together in the consumer's process"
REFUSED = [
    (("limit", "map"), LAST),
    (("limit", "prefetch"), LAST),
    (("limit", "shuffle"), LAST),
    (("limit", "shard 0/2"), LAST),
    (("limit", "batch 3"), LAST),
    (("limit", "rebatch"), LAST),
    (("limit", "limit"), LAST),
    (("rebatch", "limit", "map"), LAST),
    (("rebatch", "map"), JOINED),
    (("rebatch", "shuffle"), JOINED),
    (("rebatch", "shard 0/2"), JOINED),
    (("rebatch", "batch 3"), JOINED),
    (("rebatch", "rebatch"), JOINED),
    (("rebatch", "prefetch", "map"), JOINED),
    (("rebatch", "collate", "batch 3"), JOINED),
    (("shard 0/2", "shuffle"), "shuffle before sharding"),
    (("shard 0/2", "[2:]"), "slice before sharding"),
    (("pad 2/3", "map", "[::-2]"), "slice before sharding"),
    (("limit", "[2:]"), LAST),
    (("rebatch", "[2:]"), JOINED),
    (("shard 0/2", "map", "shuffle"), "shuffle before sharding"),
    (("shard 0/2", "batch 3"), "shard batches, not samples"),
    (("shard 0/2", "shard 1/2"), "not sharded yet"),
    (("pad 2/3", "prefetch", "shard 1/2"), "not sharded yet"),
]


@pytest.mark.parametrize(("words", "error"), REFUSED, ids=str)
def test_refused(words: tuple[str, ...], error: str) -> None:
    made(words[:-1], 12)
    with pytest.raises(TypeError, match=re.escape(error)):
        made(words, 12)


#: (words, the links that tell a state from others)
LINKS = [
    ((), ()),
    (("map", "prefetch", "collate"), ()),
    (("shard 0/2",), ()),
    (("shuffle",), (("SequenceShuffle", ()),)),
    (("[2:]",), (("SequenceSlice", (2, None, None)),)),
    (("shuffle", "[::-2]"), (("SequenceShuffle", ()), ("SequenceSlice", (None, None, -2)))),
    (("batch 3",), (("SequenceBatch", (3, False)),)),
    (("whole 4",), (("SequenceBatch", (4, True)),)),
    (("rebatch",), (("SequenceRebatch", (4, False)),)),
    (("shuffle", "map", "batch 3"), (("SequenceShuffle", ()), ("SequenceBatch", (3, False)))),
    (("batch 3", "shuffle", "shard 1/2"), (("SequenceBatch", (3, False)), ("SequenceShuffle", ()))),
]


@pytest.mark.parametrize(("words", "links"), LINKS, ids=str)
def test_what_tells_a_state_from_others(words: tuple[str, ...], links: Any) -> None:
    plan = made(words, 12)
    assert plan.links == links
    for word in ("map", "prefetch"):  # a state of the one is a state of the other
        if not plan.is_rebatched or word == "prefetch":
            assert WORDS[word](plan).has_places_of(plan)
    for word in ("shuffle", "batch 3", "rebatch"):
        if not (plan.is_rebatched or (plan.shard and word != "rebatch")):
            assert not WORDS[word](plan).has_places_of(plan)


@pytest.mark.parametrize("words", CHAINS, ids=", ".join)
def test_of_ranks_within_a_batch_only_the_same_one_goes_on(words: tuple[str, ...]) -> None:
    plan = made(words, 13)
    here = EpochPlan(plan, 0, plan.num_places())
    of_rank = {("shuffle", "shard 1/2", "rebatch"): [2, 1]}
    assert here.identity_of_rank() == of_rank.get(words, [])


def test_functions_and_what_finishes_a_batch() -> None:
    plan = Plan.of([1, 2, 3], (5,))
    mapped = plan.mapped(double, False, None, "skip", 6)
    assert (mapped.functions, mapped.as_items, mapped.on_error, mapped.seeds) == ((double,), (False,), "skip", (6, 5))
    assert mapped.has_lists  # an item may be missing
    assert not plan.mapped(double, False, None, "raise", None).has_lists
    assert plan.mapped(double, True, None, "raise", None).has_lists
    front = Front()
    finished = mapped.shuffled(None).mapped(double, True, front, "raise", None)
    assert (finished.source, finished.functions, len(finished.arrangements)) == ([1, 2, 3], (double, double), 1)
    behind = finished.seen_from_behind()
    assert (behind.source, behind.functions, behind.arrangements) == (front, (), ())
    assert (behind.origin, behind.counted, behind.num_shuffles) == ([1, 2, 3], [1, 2, 3], 1)
    assert mapped.seen_from_behind() is mapped
    task = mapped.task(9)
    assert (task.source, task.functions, task.seed, task.as_items) == ([1, 2, 3], (double,), 9, (False,))


def test_a_function_has_whole_batches() -> None:
    """What puts them together of samples is kept only as long as nothing works on them."""
    plan = batched(Plan.of(range(12)), 3, assembly=OfSamples(3, False))
    assert isinstance(plan.mapped(None, True, None, "raise", None).assembly, OfSamples)
    assert isinstance(plan.shuffled(None).sharded(0, 2, "drop").assembly, OfSamples)
    assert plan.mapped(double, True, None, "raise", None).assembly is None


def test_seeds_of_shuffles() -> None:
    """Its own; else one given before it; else that of the chain's end."""
    plan = Plan.of(range(9))
    assert plan.shuffled(None).needs_seed
    assert plan.shuffled(4).shuffled(None).arrangements == (Shuffle(4, 1), Shuffle(4, 0))
    assert plan.shuffled(None).mapped(None, True, None, "raise", 8).arrangements == (Shuffle(None, 0),)
    assert Plan.of(range(9), (2,)).shuffled(None).arrangements == (Shuffle(2, 0),)
    assert batched(plan.shuffled(None), 3).shuffled(None).arrangements == (Shuffle(None, 1),)


def test_a_source_without_a_length() -> None:
    plan = Plan.of(iter([1, 2]))
    assert plan.is_read_here
    assert plan.num_places() is None
    here = EpochPlan(plan, 0, None)
    assert here.places(Position()) is None
    assert not here.is_at_end(5)
    with pytest.raises(TypeError, match="list_iterator has no length"):
        here.num_steps  # noqa: B018


def test_it_is_a_value() -> None:
    plan = made(("shuffle", "map", "batch 3", "shuffle", "shard 1/2"), 100)
    assert pickle.loads(pickle.dumps(plan)).arrangements == plan.arrangements
    order = EpochPlan(plan, 2, plan.num_places(), SEED).order(range(5, 30))
    again = pickle.loads(pickle.dumps(order))
    assert again == order
    assert list(again) == list(order)
    with pytest.raises(AttributeError):
        plan.shard = None  # type: ignore[misc]


@pytest.mark.parametrize("places", [range(3000), range(7, 3000, 3), [5, 2, 2999, 0], range(0)], ids=str)
@pytest.mark.parametrize("levels", [1, 2])
def test_an_order_is_a_sequence(places: Any, levels: int) -> None:
    order = Order(places, tuple(Permuted(3000, SEED, 0, level) for level in range(levels)))
    known = list(order)
    assert len(order) == len(known) == len(places)
    for where in (slice(None), slice(2, 7), slice(-5, None), slice(None, None, 2), slice(None, None, -3), slice(9, 2)):
        assert list(order[where]) == known[where]
        assert order[where] == Order(places[where], order.orderings)
    some = [at for at in (0, 1, -1, 1030, -2000) if -len(known) <= at < len(known)]
    assert [order[at] for at in some] == [known[at] for at in some]
    assert all(type(order[at]) is int for at in some)
    assert order.take(some).tolist() == [known[at] for at in some]
    assert order.take(np.arange(len(known))).dtype == np.int64
    for at in (len(known), -len(known) - 1):
        with pytest.raises(IndexError):
            order[at]
        with pytest.raises(IndexError):
            order.take([at])
    assert order != Order(places, ())
    assert order != known
    assert [order.index(job) for job in known[:3]] == list(range(min(3, len(known))))
    with pytest.raises(ValueError, match="not in this order"):
        order.index(3001)
