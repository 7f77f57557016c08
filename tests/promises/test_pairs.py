"""Every two values of source, words and options meet at least once: in a row that delivers what the model says, or in a
pair that is refused when it is built."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest
from model import Word
from pairwise import Row, all_pairs
from pipelines import SOURCES, Loop, Spec, copies, failing, kept_server, made, modelled, noisy
from scripted import have, scripted

from workers import SequenceMap

LENGTH = 12  # each batch is whole, so that batches can be batched again

WORDS: dict[str, Word | None] = {
    "none": None,
    "map": Word("map", (noisy,)),
    "map to lists": Word("map", (copies,)),
    "map that fails": Word("map", (failing,)),
    "collate": Word("collate"),
    "batch": Word("batch", (3,)),
    "shuffle": Word("shuffle"),
    "shard": Word("shard", (1, 2)),
    "take": Word("take", (3,)),
    "skip": Word("skip", (1,)),
    "sub_batch": Word("sub_batch", (1,)),
    "rebatch": Word("rebatch", (4,)),
    "max_samples": Word("max_samples", (7,)),
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
BEFORE_SHARDING = "take", "skip", "shard", "shuffle", "batch", "prefetch shuffled", "prefetch batched"
OPTIONS = "in_order", "output", "on_error", "batch_size", "shuffle", "max_queue_size"
DEFAULTS: Row = {"source": "Sequence", "first": "none", "second": "none", "nb_workers": 0, "executor": "process"}


def words_of(row: Row) -> list[Word]:
    """What is said, in its order; ``prefetch`` comes last where the row does not say."""
    words = [WORDS[row.get(name, "none")] for name in ("first", "second")]
    options = {name: row[name] for name in OPTIONS if row.get(name) is not None}
    words.insert(row.get("place", 2), Word("prefetch", (), options))
    return [word for word in words if word is not None]


def has_meaning(row: Row) -> bool:
    """As far as the columns in it say."""
    names = []
    for word in words_of(row):
        if word.name != "prefetch":
            names.append(word.name)
        elif "place" in row:
            names += ["prefetch shuffled"] * bool(row.get("shuffle")) + ["prefetch batched"] * bool(
                row.get("batch_size")
            )
    if row.get("source") == "iterable" and (row.get("shuffle") or {"shuffle", "shard", "take", "skip"} & set(names)):
        return False
    makes_lists = row.get("first") in ("sub_batch", "map to lists")
    if row.get("source") == "iterable" and makes_lists and row.get("batch_size") and row.get("second") == "max_samples":
        return False  # each of its batches raises, so a pass never has its samples
    for before, after in itertools.combinations(names, 2):
        if before == "shard" and after in BEFORE_SHARDING:
            return False
        if before == "rebatch" and after != "max_samples":
            return False
        if before == "max_samples" and not after.startswith("prefetch"):
            return False
    return True


ROWS, REFUSED = all_pairs(COLUMNS, has_meaning)


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
        loop.begin()
        loop.next()
        wanted = 0
        while loop.next():
            pass


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
