"""Loops of ``nb_workers="auto"`` whose choices a test makes, and what they deliver."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from workers import Sequence, SequenceMap, current_rng
from workers.engine.auto import AutoEngine
from workers.engine.chooser import Choice

LENGTH = 60


class Drawn(Sequence[Any]):
    """Batches that draw, and that say what was seen of the object."""

    def __init__(self, length: int = LENGTH) -> None:
        super().__init__(seed=7)
        self.length = length
        self.array = np.arange(100_000)
        self.noted = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        drawn = current_rng().random(20), np.random.random(3), random.random()
        return drawn, index, self.epoch, self.noted, int(self.array[index])


class Aside:
    """Something told of how a batch was computed, which is no part of it: one is as good as another."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aside)

    __hash__ = None  # type: ignore[assignment]


def plain(batch: Any) -> Any:
    """``batch`` as it can be compared."""
    (one, two, three), *rest = batch
    return one.tolist(), two.tolist(), three, *rest


def scripted(batches: Any, choose: Callable[[int], int | None]) -> list[int]:
    """Have ``choose(look)`` decide how many workers there are; None: as before. Returns what it has chosen."""
    auto, chosen = batches._live.pool.engine, []
    assert isinstance(auto, AutoEngine)

    def look(left: int) -> float:
        number = choose(len(chosen))
        chosen.append(auto.chooser.nb_workers if number is None else number)
        if number is not None and number != auto.chooser.nb_workers:
            auto._choose(Choice(number, "the test wants it"))
        return 0.0  # at each batch

    auto.look = look  # type: ignore[method-assign]
    return chosen


def at_random(seed: int, often: float = 0.15) -> Callable[[int], int | None]:
    draw = random.Random(seed)
    return lambda look: draw.choice([0, 1, 2, 3]) if draw.random() < often else None


def until_ready(batches: Any) -> None:
    """Blocks: until a worker could begin."""
    deadline = time.monotonic() + 60.0
    while not batches._live.pool.engine.is_ready:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def have(batches: Any, nb_workers: int) -> None:
    """Have so many workers, and wait until one could begin."""
    auto = batches._live.pool.engine
    auto._choose(Choice(nb_workers, "the test wants it"))
    until_ready(batches)


def in_turns(batches: Any) -> Iterator[Any]:
    """One epoch; with "auto", the loop and two workers compute a few batches each, in turns."""
    if not (isinstance(batches, SequenceMap) and isinstance(batches._live.pool.engine, AutoEngine)):
        yield from batches
        return
    wanted = 0
    scripted(batches, lambda look: wanted)
    for at, batch in enumerate(batches):
        yield batch
        if at % 4 == 1:
            wanted = 2
            have(batches, 2)
        elif at % 4 == 3:
            wanted = 0


def expected(sequence: Callable[[], Sequence[Any]], epochs: int) -> list[Any]:
    with sequence().prefetch(nb_workers=0) as batches:
        return [plain(batch) for _ in range(epochs) for batch in batches]
