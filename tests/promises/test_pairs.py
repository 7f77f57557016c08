"""Every two values of source, words and options meet at least once: in a row that delivers what the model says, or in a
pair that is refused when it is built."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
from model import Raised, Word
from pairwise import Row, all_pairs
from pipelines import (
    DRAWS_NOTHING,
    SOURCES,
    Loop,
    Spec,
    copies,
    failing,
    is_kept,
    kept_server,
    made,
    modelled,
    noisy,
    spread,
    spread_and_fail,
    told,
)
from scripted import have, scripted

from workers import SequenceMap

LENGTH = 12  # each batch is whole, so that batches can be batched again

WORDS: dict[str, Word | None] = {
    "none": None,
    "map": Word("map", (noisy,)),
    "map to lists": Word("map", (copies,)),
    "map that fails": Word("map", (failing,)),
    "map that yields": Word("map", (spread,)),
    "map that yields and fails": Word("map", (spread_and_fail,)),
    "collate": Word("collate"),
    "batch": Word("batch", (3,)),
    "shuffle": Word("shuffle"),
    "shard": Word("shard", (1, 2)),
    "take": Word("take", (6,)),
    "skip": Word("skip", (1,)),
    "reorder": Word("reorder", ([3, 0, 2, 2, 1, 0],)),
    "weighted": Word("weighted", ()),
    "repeat": Word("repeat", (2,)),
    "batch_by": Word("batch_by", ([[3, 1, 0], [2, 2, 1], [0, 4, 5], [1, 2, 3]],)),
    "filter": Word("filter", (is_kept,)),
    "sub_batch": Word("sub_batch", (1,)),
    "rebatch": Word("rebatch", (4,)),
    "max_samples": Word("max_samples", (7,)),
    "cache": Word("cache"),
}
COLUMNS: dict[str, list[Any]] = {
    "source": list(SOURCES),
    "first": list(WORDS),
    "second": list(WORDS),
    "place": [0, 1, 2],  # of prefetch among the two words
    "nb_workers": [0, 1, 2, "auto"],
    "executor": ["process", "thread"],
    "in_order": [True, False],
    "output": [None, "torch"],
    "on_error": ["raise", "skip"],
    "batch_size": [None, 2],
    "shuffle": [False, True],
    "max_queue_size": [None, 1, 4],
}
NAME_PLACES = "reorder", "weighted", "batch_by"
NEED_INDEX = "shuffle", "shard", "take", "skip", "repeat", *NAME_PLACES
BEFORE_SHARDING = *NEED_INDEX, "batch", "prefetch shuffled", "prefetch batched"
DRAWN = "reorder", "batch_by"
CHANGE_ORDER = "shuffle", "prefetch shuffled", "reorder", "weighted", "batch_by"
OPTIONS = "in_order", "output", "on_error", "batch_size", "shuffle", "max_queue_size"
DEFAULTS: Row = {"source": "Sequence", "first": "none", "second": "none", "nb_workers": 0, "executor": "process"}


def words_of(row: Row) -> list[Word]:
    """What is said, in its order; ``prefetch`` comes last where the row does not say."""
    words = [WORDS[row.get(name, "none")] for name in ("first", "second")]
    options = {name: row[name] for name in OPTIONS if row.get(name) is not None}
    words.insert(row.get("place", 2), Word("prefetch", (), options))
    found: list[Word] = []
    for word in words:
        arguments = word.arguments if word else ()
        number = number_of_jobs(found)
        if word and word.name == "weighted":  # one for each of what comes before it
            arguments = ([at * 7 % 4 for at in range(number)],)
        elif word and word.name == "reorder":
            arguments = ([at for at in arguments[0] if at < number],)
        elif word and word.name == "batch_by":
            arguments = ([[at % number for at in places] for places in arguments[0]],)
        found += [word._replace(arguments=arguments)] if word else []
    return found


def number_of_jobs(words: list[Word]) -> int:
    length = LENGTH
    for name, arguments, options in words:
        if name in ("batch", "prefetch") and (arguments or options.get("batch_size")):
            size = arguments[0] if arguments else options["batch_size"]
            length = -(-length // size)
        elif name in ("reorder", "batch_by"):
            length = len(arguments[0])
        elif name == "take":
            length = min(length, arguments[0])
        elif name == "skip":
            length -= arguments[0]
        elif name == "repeat":
            length *= arguments[0]
        elif name == "shard":
            length //= arguments[1]
    return length


YIELDS = {"map that yields", "map that yields and fails"}


def makes_in_loop(names: list[str]) -> bool:
    """Whether ``.batch`` behind these words puts items of a generator function together in the loop."""
    yields = False
    for name in names:
        yields = name in YIELDS or (yields and name not in NAME_PLACES and name != "repeat")
    return yields


def has_meaning(row: Row) -> bool:
    """As far as the columns in it say."""
    names = []
    for word in words_of(row):
        if word.name != "prefetch":
            names.append(next((name for name in YIELDS if WORDS[name] == word), word.name))
        elif "place" in row:
            names += ["prefetch shuffled"] * bool(row.get("shuffle")) + ["prefetch batched"] * bool(
                row.get("batch_size")
            )
    if draws_before_cache(row):
        return False
    if row.get("source") == "iterable" and (row.get("shuffle") or {*NEED_INDEX, "cache"} & set(names)):
        return False
    makes_lists = row.get("first") in ("sub_batch", "map to lists")
    if row.get("source") == "iterable" and makes_lists and row.get("batch_size") and row.get("second") == "max_samples":
        return False  # each of its batches raises, so a pass never has its samples
    makes_any_number = row.get("first") in ("filter", "sub_batch", "map to lists", "map that fails", *YIELDS)
    if makes_any_number and row.get("second") == "batch_by" and row.get("batch_size"):
        return False  # its batches are of several sizes
    if "skip" in names and sum(name in ("batch", "prefetch batched") for name in names[names.index("skip") :]) > 1:
        return False  # the last batch is short, so that it cannot be batched again
    for at, name in enumerate(names):
        is_batch = name in ("batch", "prefetch batched")
        if is_batch and makes_in_loop(names[:at]) and not {*names[at + 1 :]} <= {"max_samples"}:
            return False
    for before, between, after in itertools.combinations(names, 3):
        if before in CHANGE_ORDER and between in ("batch", "prefetch batched") and after == "cache":
            return False  # a batch of it is other samples in each epoch
    for before, after in itertools.combinations(names, 2):
        if (before in CHANGE_ORDER and after in NAME_PLACES) or (before in DRAWN and after == "repeat"):
            return False
        if (before == "shard" and after in BEFORE_SHARDING) or {before, after} == {"filter", "shard"}:
            return False
        if (before, after) == ("batch_by", "cache"):
            return False
        if before == "rebatch" and after != "max_samples":
            return False
        if before == "max_samples" and not after.startswith("prefetch"):
            return False
    return True


def draws_before_cache(row: Row) -> bool:
    """Whether a cache would keep draws, which raises at the first item."""
    first, second = row.get("first", "none"), row.get("second", "none")
    source_draws = row.get("source", "list") not in DRAWS_NOTHING
    return ("cache" in (first, second) and source_draws) or (second == "cache" and first.startswith("map"))


ROWS, REFUSED = all_pairs(COLUMNS, has_meaning)
REFUSED = [row for row in REFUSED if not draws_before_cache(row)]


def spec_of(row: Row) -> Spec:
    return Spec(row["source"], LENGTH, words_of(row), 3)


def run(row: Row) -> None:
    """Two epochs, of which with "auto" workers take over within the first, and are gone in the second."""
    spec, nb_workers = spec_of(row), row["nb_workers"]
    pipeline, wanted = modelled(spec), 0
    with made(spec, 0) as serial:
        loop = Loop(serial, pipeline)
        loop.epoch()
        loop.epoch()
    with made(spec, nb_workers, executor=row["executor"]) as batches:
        loop = Loop(batches, pipeline, row["in_order"])
        front = batches if isinstance(batches, SequenceMap) else batches.source_split
        is_auto = nb_workers == "auto" and hasattr(front._live.pool.engine, "chooser") and row["in_order"]
        if is_auto:
            scripted(front, lambda look: wanted)
        loop.begin()
        loop.next()
        if is_auto:
            wanted = 1
            have(front, 1)
        while loop.next():
            pass
        look_aside(front, loop.last)
        loop.begin()
        loop.next()
        wanted = 0
        while loop.next():
            pass


def look_aside(batches: Any, batch: Any) -> None:
    """Figures, a report, and a loop over free data: none of them changes what the next epoch delivers."""
    figures = batches.figures()
    assert figures["batches"] == batches.report().as_dict()["batches"]
    assert min(figures.values()) >= 0, figures
    if batch is None or isinstance(batch, Raised):
        return
    with batches.free(batch, length=3) as free:
        assert [told(each) for each in free] == [told(batch)] * 3


@pytest.mark.needs("torch", "keras")
@pytest.mark.parametrize("source", SOURCES)
def test_every_two_values_together(source: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "workers")
    failed = []
    with kept_server():
        for row in ROWS:
            if row["source"] != source:
                continue
            try:
                run(row)
            except Exception as error:
                failed.append(f"{row}: {type(error).__name__}: {error}"[:1500])
    assert not failed, f"{len(failed)} rows:\n" + "\n\n".join(failed)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: ", ".join(f"{name}={value}" for name, value in row.items()))
def test_what_has_no_meaning_is_refused_when_it_is_built(row: Row) -> None:
    whole = {**DEFAULTS, **row}
    with pytest.raises((TypeError, ValueError)) as caught:
        made(spec_of(whole), whole["nb_workers"], executor=whole["executor"]).close()
    assert len(str(caught.value)) > 30, "a sentence says why"
