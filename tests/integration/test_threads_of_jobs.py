"""Jobs that draw in threads of their own: the same numbers with ``current_rng(key)`` on any number of workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from scripted import in_turns

from workers import Sequence, current_rng

LENGTH = 6


class Rows(Sequence[Any]):
    """Batches of four rows, each of which is made in a thread."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self.noise = 0.0

    def __len__(self) -> int:
        return LENGTH

    def row(self, number: int) -> float:
        return float(current_rng(("row", number)).random())

    def __getitem__(self, index: int) -> Any:
        with ThreadPoolExecutor(3) as threads:
            return [self.noise, *threads.map(self.row, range(4))]

    def on_epoch_end(self) -> None:
        with ThreadPoolExecutor(1) as threads:
            self.noise = threads.submit(self.row, 9).result()


class HandedOn(Rows):
    """The generators are asked for in the job's own thread."""

    def __getitem__(self, index: int) -> Any:
        with ThreadPoolExecutor(3) as threads:
            generators = [current_rng(("row", number)) for number in range(4)]
            return [self.noise, *(float(each) for each in threads.map(lambda it: it.random(), generators))]


def read(cls: Any, nb_workers: Any, executor: str = "process") -> list[Any]:
    with cls().prefetch(nb_workers, executor=executor) as batches:
        return [batch for _ in range(2) for batch in in_turns(batches)]


@pytest.mark.parametrize(("nb_workers", "executor"), [(1, "process"), (2, "process"), ("auto", "process")])
def test_keyed_draws_in_threads(nb_workers: Any, executor: str) -> None:
    serial = read(Rows, 0)
    assert len({number for batch in serial for number in batch[1:]}) == 2 * LENGTH * 4
    assert read(Rows, nb_workers, executor) == serial


@pytest.mark.parametrize("nb_workers", [1, 3, "auto"])
def test_generators_that_are_handed_on(nb_workers: Any) -> None:
    """Also where several jobs run in threads of one process."""
    assert read(HandedOn, nb_workers, "thread") == read(Rows, 0)
