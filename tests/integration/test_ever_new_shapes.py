"""Batches of ever new shapes, keys and numbers of parts: whoever computes them, every byte is the same.

Both ends remember few layouts here, so they forget and learn them all the time, also between messages of one poll.
``SHAPES_SEED=n`` runs with that seed again.
"""

from __future__ import annotations

import functools
import os
import random
from typing import Any

import pytest
from scripted import at_random, scripted, until_ready
from shapes import KINDS, NUMBERS, Shapes, Stream, drawn, exactly

from workers import SequenceMap
from workers.batch import slot_writer

LENGTH = 400
NB_EPOCHS = 2
SEED = int(os.environ.get("SHAPES_SEED") or random.SystemRandom().randrange(1 << 32))


def remember_few(worker: int = 0) -> None:
    slot_writer._MAX_LAYOUTS_NBYTES = 4000  # 10 or so


@pytest.fixture(autouse=True)
def _few_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    print(f"SHAPES_SEED={SEED}")
    monkeypatch.setattr(slot_writer, "_MAX_LAYOUTS_NBYTES", 4000)  # also undoes what worker_init_fn does here


def read(batches: Any, place: Any = lambda batch: batch[1]) -> list[dict[Any, str]]:
    """{place: all that can be told of the batch} of each epoch, without who made it, in the order of delivery."""
    return [{place(batch): exactly(batch[1:]) for batch in batches} for _ in range(NB_EPOCHS)]


@functools.cache
def serial(numbers_only: bool = False, output: str | None = None) -> list[dict[Any, str]]:
    with Shapes(LENGTH, SEED, NUMBERS if numbers_only else KINDS).prefetch(0, output=output) as batches:
        return read(batches, _place)


def _place(batch: Any) -> Any:
    epoch, index = batch[1]
    return int(epoch), int(index)


@pytest.mark.parametrize("in_order", [True, False], ids=["in order", "as they come"])
@pytest.mark.parametrize("nb_workers", [1, 2])
def test_workers(nb_workers: int, in_order: bool) -> None:
    options: Any = {"in_order": in_order, "worker_init_fn": remember_few}
    with Shapes(LENGTH, SEED).prefetch(nb_workers, **options) as batches:
        got = read(batches)
    assert got == serial()
    if in_order:
        assert [list(epoch) for epoch in got] == [list(epoch) for epoch in serial()]


def test_workers_that_come_and_go() -> None:
    """``nb_workers="auto"``, whose choices are made here, in the midst of epochs."""
    with Shapes(LENGTH, SEED).prefetch(worker_init_fn=remember_few) as batches:
        choose, makers = at_random(SEED, 0.03), set()

        def choose_when_ready(look: int) -> int | None:
            if batches._live.pool.engine.chooser.nb_workers:
                until_ready(batches)
            return 0 if look % LENGTH < LENGTH // 4 else choose(look)  # so that the loop computes some, too

        scripted(batches, choose_when_ready)
        got = read(batches, lambda batch: makers.add(batch[0]) or batch[1])  # type: ignore[func-returns-value]
    assert got == serial()
    assert [list(epoch) for epoch in got] == [list(epoch) for epoch in serial()]
    assert os.getpid() in makers
    assert len(makers) > 1


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_threads(nb_workers: int) -> None:
    with Shapes(LENGTH, SEED).prefetch(nb_workers, executor="thread") as batches:
        assert read(batches) == serial()


@pytest.mark.needs("torch")
@pytest.mark.parametrize("in_order", [True, False], ids=["in order", "as they come"])
def test_tensors(in_order: bool) -> None:
    options: Any = {"in_order": in_order, "worker_init_fn": remember_few, "output": "torch"}
    with Shapes(LENGTH, SEED, NUMBERS).prefetch(2, **options) as batches:
        assert read(batches, _place) == serial(True, "torch")


def test_batches_that_are_held() -> None:
    """Random ones, and parts of them: none changes, however many come behind it."""
    chance, held = random.Random(SEED), []
    with Shapes(LENGTH, SEED).prefetch(2, worker_init_fn=remember_few) as batches:
        for batch in batches:
            held.append((batch, exactly(batch[1:])))
            while len(held) > chance.randrange(60):
                kept, told = held.pop(chance.randrange(len(held)))
                assert exactly(kept[1:]) == told
            del batch
    assert all(exactly(batch[1:]) == told for batch, told in held)


@pytest.mark.parametrize("in_order", [True, False], ids=["in order", "as they come"])
def test_a_stream(in_order: bool) -> None:
    """Items of ever new shapes go to the workers through the ring, and come back as batches."""

    def epochs(nb_workers: int) -> list[dict[Any, str]]:
        options: Any = {"in_order": in_order, "worker_init_fn": remember_few, "seed": 3}
        with SequenceMap(Stream(LENGTH, SEED), nb_workers, drawn, **options) as batches:
            return read(batches, lambda batch: batch[1][0])

    assert epochs(2) == epochs(0)
