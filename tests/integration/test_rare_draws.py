"""Jobs that hardly ever draw: their numbers are those of any worker, and the program's own are left alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from shapes import exactly

from workers import Sequence, prefetch


def saved_and_restored() -> Any:
    state = random.getstate()
    drawn = random.random()
    random.setstate(state)
    return drawn


DRAWS: dict[str, Callable[[], Any]] = {
    "a state that is read": lambda: int(np.random.get_state()[1][0]),
    "a state that is restored": saved_and_restored,
    "random": random.random,
    "random.gauss": lambda: random.gauss(0, 1),
    "numpy.random": np.random.random,
    "numpy.random.normal": np.random.normal,
    "in an error": lambda: 1 / 0 if random.random() < 2 else 0,
}
RARE = {700, 701, 1_150, 1_199}


class Rare(Sequence[Any]):
    """1,200 batches that are made quickly; a few of them draw."""

    def __init__(self, draw: str) -> None:
        super().__init__(seed=1)
        self.draw = draw
        self.calls = np.zeros(1_200, int)

    def __len__(self) -> int:
        return 1_200

    def __getitem__(self, index: int) -> Any:
        self.calls[index] += 1
        if index not in RARE:
            return index, None
        try:
            return index, DRAWS[self.draw]()
        except ZeroDivisionError:
            raise ValueError(f"{random.random()}") from None


def delivered(batches: Any) -> Any:
    """The batches, and the texts of errors in their place."""
    found, iterator = [], iter(batches)
    while True:
        try:
            found.append(next(iterator))
        except StopIteration:
            return found
        except ValueError as error:
            found.append(str(error))


@pytest.mark.parametrize("draw", DRAWS)
def test_rare_draws_are_those_of_any_worker(draw: str) -> None:
    random.seed(3)
    np.random.seed(3)
    random.gauss(0, 1), np.random.normal()  # both keep the second one of a pair
    before = random.getstate(), np.random.get_state()
    source = Rare(draw)
    serial = delivered(source.prefetch(0))
    assert exactly([random.getstate(), np.random.get_state()]) == exactly(list(before))
    assert (source.calls == 1).all()
    for nb_workers in (2, "auto"):
        with Rare(draw).prefetch(nb_workers=nb_workers) as batches:
            assert exactly(delivered(batches)) == exactly(serial)
    assert len({str(serial[index]) for index in RARE}) == len(RARE)


def test_the_programs_own_draws_in_between() -> None:
    """Also a state that is put back, which differs from the present one only by the second Gaussian of a pair."""
    found = []
    for with_batches in (False, True):
        random.seed(1)
        np.random.seed(1)
        batches = iter(Rare("random").prefetch(0))
        drawn: list[Any] = []
        for index in range(600):
            if with_batches:
                next(batches)
            drawn += [random.gauss(0, 1), np.random.normal()] if index % 7 == 0 else [np.random.random()]
            if index % 50 == 0:
                np.random.normal()
                state: Any = np.random.get_state()
                drawn.append(np.random.normal())
                if with_batches:
                    next(batches)
                np.random.set_state(state)
                if with_batches:
                    next(batches)
                drawn.append(np.random.normal())
        found.append(drawn)
    assert found[0] == found[1]


def yielding(row: int) -> Iterator[Any]:
    for number in range(2):
        yield row, number, (random.random() if row in RARE else None)


def test_generator_functions() -> None:
    source = prefetch(list(range(1_200)), 0, seed=1).map(yielding)
    serial = delivered(source.prefetch(0))
    with source.prefetch(2) as batches:
        assert exactly(delivered(batches)) == exactly(serial)


def test_another_loop_within_the_jobs() -> None:
    source = prefetch(list(range(500)), 0, seed=1).map(with_inner_loop)
    serial = delivered(source.prefetch(0))
    with source.prefetch(2) as batches:
        assert exactly(delivered(batches)) == exactly(serial)


INNER = prefetch(list(range(3)), 0, seed=5).map(lambda row: (row, random.random() if row == 2 else 0))


def with_inner_loop(row: int) -> Any:
    if row % 100 != 99:
        return row
    return [list(INNER.prefetch(0)), random.random() if row > 300 else 0]


class Holding(Rare):
    """Its own generator is seeded for each job."""

    def __init__(self) -> None:
        super().__init__("random")
        self.rng = np.random.default_rng(3)

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index), self.rng.random()


def test_held_generators() -> None:
    serial = delivered(Holding().prefetch(0))
    with Holding().prefetch(2) as batches:
        assert exactly(delivered(batches)) == exactly(serial)
    assert len({drawn for _, drawn in serial}) == len(serial)
