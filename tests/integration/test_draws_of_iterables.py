"""What a source that has only ``__iter__`` draws: seeded by (seed, epoch), the same on any workers and on a resume."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from workers import Sequence, SequenceArray, SequenceMap, current_job, current_rng, current_seed, prefetch
from workers.job import context

COUNT = 9


class Draws:
    """Draws in ``__iter__`` and for each item, from all that is seeded."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(1)
        self.python = random.Random(2)
        self.torch = torch.Generator().manual_seed(3)

    def drawn(self) -> list[float]:
        return [
            random.random(),
            random.gauss(0, 1),  # of a pair
            np.random.rand(),
            np.random.normal(),  # of a pair
            current_rng().random(),
            float(current_seed()[0]),
            float(torch.rand(1)),
            self.rng.random(),
            self.python.random(),
            float(torch.rand(1, generator=self.torch)),
        ]

    def states(self) -> str:
        """Of what is the user's."""
        of_numpy: Any = np.random
        generators = torch.default_generator.get_state().tolist(), self.torch.get_state().tolist()
        held = self.rng.bit_generator.state, self.python.getstate()
        return repr((random.getstate(), of_numpy.get_state(legacy=False), generators, held))

    def __iter__(self) -> Any:
        order = list(range(COUNT))
        random.shuffle(order)
        np.random.shuffle(order)
        return self.body(order, self.drawn())

    def body(self, order: list[int], drawn: list[float]) -> Any:
        for number in order:
            assert current_job() is None
            drawn = self.drawn() if number % 2 else drawn
            yield np.array([number, *drawn])


def noisy(item: Any) -> Any:
    return np.append(item, [random.random(), np.random.rand(), current_rng().random()], axis=-1)


MAKERS: dict[str, Callable[[Any, int | str], Any]] = {
    "prefetch": lambda source, workers: prefetch(source, workers, seed=1),  # type: ignore[call-overload]
    "map": lambda source, workers: SequenceMap(source, workers, noisy, seed=1),  # type: ignore[arg-type]
    "batch_size": lambda source, workers: prefetch(source, workers, seed=1, batch_size=2),  # type: ignore[call-overload]
}


def told(batches: Any) -> list[str]:
    return [repr(batch.tolist()) for batch in batches]


@pytest.mark.parametrize("name", MAKERS)
def test_draws_are_of_seed_and_epoch(name: str) -> None:
    """Whatever the loop draws in between, on any workers, and from any state on. What is the user's stays as it is."""
    make = MAKERS[name]
    epochs: list[list[str]] = []
    states: list[list[Any]] = []
    source = Draws()
    with make(source, 0) as batches:
        for _ in range(2):
            before, epochs_states, got = source.states(), [batches.state_dict()], []
            for batch in batches:
                assert source.states() == before
                got.append(repr(batch.tolist()))
                random.random(), np.random.normal(), torch.rand(1), source.rng.random(), source.python.random()
                before = source.states()
                epochs_states.append(batches.state_dict())
            assert source.states() == before
            epochs.append(got)
            states.append(epochs_states)
    assert epochs[0] != epochs[1]
    assert len(set(itertools.chain(*epochs))) == 2 * len(epochs[0])
    for workers in (0, 2, "auto"):
        source = Draws()
        before = source.states()
        with make(source, workers) as batches:
            assert [told(batches), told(batches)] == epochs, workers
            batches.load_state_dict(states[0][3])
            assert [told(batches), told(batches)] == [epochs[0][3:], epochs[1]], workers
        assert source.states() == before
    with make(Draws(), 0) as batches:
        for epoch, step in itertools.product((1, 0), range(len(epochs[0]))):
            batches.load_state_dict(states[epoch][step])
            assert told(batches) == epochs[epoch][step:]


def test_a_source_and_the_functions_draw_other_numbers() -> None:
    with SequenceMap(Draws(), 0, noisy, seed=1) as batches:
        drawn = np.array(list(batches))[:, 1:]
    assert len(np.intersect1d(drawn[:, [0, 2, 4]], drawn[:, -3:])) == 0


def test_a_seed_set_by_the_source_counts() -> None:
    """For all of its epoch: it is not seeded again between items."""

    class Seeds:
        def __iter__(self) -> Any:
            random.seed(5)
            np.random.seed(5)
            return (np.array([random.random(), np.random.rand()]) for _ in range(4))

    generator, numpys = random.Random(5), np.random.RandomState(5)
    expected = [[generator.random(), numpys.rand()] for _ in range(4)]
    with prefetch(Seeds(), 0) as batches:
        assert [batch.tolist() for batch in batches] == expected
    with prefetch(Seeds(), 0, batch_size=2) as batches:
        assert np.concatenate(list(batches)).tolist() == expected


def test_a_sequence_that_a_source_reads_has_jobs_of_its_own() -> None:
    class Drawn(Sequence):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Any:
            return np.array([index, random.random(), current_rng().random()])

    class Reads:
        def __init__(self, by_index: bool) -> None:
            self.by_index = by_index

        def __iter__(self) -> Any:
            sequence = Drawn(seed=7)
            for item in (sequence[index] for index in range(4)) if self.by_index else sequence:
                yield item + random.random() * 0

    expected = told(Drawn(seed=7))
    for by_index in (False, True):
        with prefetch(Reads(by_index), 0, seed=1) as batches:
            assert told(batches) == expected


def test_an_error_of_the_source_leaves_the_users_generators() -> None:
    class Fails(Draws):
        def body(self, order: list[int], drawn: list[float]) -> Any:
            yield np.array(drawn)
            self.drawn()
            raise LookupError

    source = Fails()
    before = source.states()
    with prefetch(source, 0, seed=1) as batches:
        next(batches)
        with pytest.raises(LookupError):
            next(batches)
    assert source.states() == before


def test_a_source_that_reads_a_sequence_leaves_no_job() -> None:
    """A thread that draws later belongs to none."""

    class Reads:
        def __iter__(self) -> Any:
            return iter(SequenceArray({"x": np.arange(3)}, seed=1).map(lambda row: current_rng().random()))

    for nb_workers in (0, 2):
        with prefetch(Reads(), nb_workers, seed=1) as batches:
            assert len(list(batches)) == 3
        assert not context._streams
