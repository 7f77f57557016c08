"""Samples that raise, with ``batch_size``: they are left out, and batches are filled from what follows."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from workers import SequenceMap, current_rng, prefetch

COUNT, SIZE = 41, 8
BAD = frozenset({3, 17, 18})


class Samples:
    """The bad ones raise."""

    def __init__(self, bad: Any = BAD, error: Callable[[int], BaseException] = ValueError) -> None:
        self.bad, self.error = frozenset(bad), error

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise self.error(index)
        return np.array([index, current_rng().random()]), index


class Stream:
    def __iter__(self) -> Iterator[int]:
        return iter(range(COUNT))


def checked(number: int) -> Any:
    """A function of a sample."""
    return Samples()[number]


def listed(samples: list[Any]) -> list[int]:
    """A ``collate_fn``."""
    return [int(index) for _, index in samples]


def skip(error: BaseException) -> str:
    return "skip"


def good(bad: Any = BAD, drop_last: bool = False) -> list[list[int]]:
    """The indices in each batch."""
    left = [index for index in range(COUNT) if index not in bad]
    batches = [left[start : start + SIZE] for start in range(0, len(left), SIZE)]
    return [batch for batch in batches if len(batch) == SIZE or not drop_last]


def indices(batches: Any) -> list[list[int]]:
    return [batch[1].tolist() for batch in batches]


def draws(batches: Any) -> list[list[float]]:
    return [batch[0][:, 1].tolist() for batch in batches]


FRONTS: dict[str, Callable[..., Any]] = {
    "prefetch": lambda workers, **options: prefetch(Samples(), workers, batch_size=SIZE, seed=1, **options),
    "map, batch": lambda workers, drop_last=False, **options: SequenceMap(Samples(), workers, seed=1, **options).batch(
        SIZE, drop_last
    ),
    "of a map": lambda workers, on_error, **options: prefetch(
        SequenceMap(Samples(), 0, seed=1, on_error=on_error), workers, batch_size=SIZE, **options
    ),
    "shuffled": lambda workers, on_error, **options: prefetch(
        SequenceMap(Samples(), 0, seed=1, on_error=on_error), workers, batch_size=SIZE, shuffle=True, **options
    ),
    "iterable": lambda workers, drop_last=False, **options: SequenceMap(
        Stream(), workers, checked, seed=1, **options
    ).batch(SIZE, drop_last),
    "iterable, prefetch": lambda workers, on_error, **options: prefetch(
        SequenceMap(Stream(), 0, checked, seed=1), workers, batch_size=SIZE, on_error=on_error, **options
    ),
}


@pytest.mark.parametrize("on_error", ["skip", skip])
@pytest.mark.parametrize("name", FRONTS)
def test_bad_samples_are_left_out(name: str, on_error: Any, caplog: pytest.LogCaptureFixture) -> None:
    """On any workers; a state taken at any step goes on with the next batch."""
    make = FRONTS[name]
    states, epochs = [], []
    with caplog.at_level(logging.ERROR, "workers"), make(0, on_error=on_error) as batches:
        for _ in range(2):
            epochs.append([])
            for batch in batches:
                epochs[-1].append(batch[0][:, 1].tolist())
                states.append(batches.state_dict())
        assert indices(batches) == good() or name == "shuffled"
        assert sorted(itertools.chain(*indices(batches))) == sorted(itertools.chain(*good()))
    assert "skipped" in caplog.text
    assert epochs[0] != epochs[1]
    with make(0, on_error=on_error, drop_last=True) as batches:
        assert indices(batches) == good(drop_last=True) or name == "shuffled"
    for workers in (0, 2, "auto"):
        with make(workers, on_error=on_error) as batches:
            assert [draws(batches), draws(batches)] == epochs, workers
            for step in range(len(good())) if workers == 0 else (1, 3):
                batches.load_state_dict(states[step])
                rest = epochs[0][step + 1 :] if states[step]["epoch"] == 0 else epochs[1]
                assert draws(batches) == rest, (workers, step)
    if on_error == "skip":
        return
    with make(2, on_error=on_error, in_order=False) as batches:
        assert sorted(itertools.chain(*indices(batches))) == sorted(itertools.chain(*good()))


@pytest.mark.parametrize("bad", [[0, 40], [40], range(8), range(7, 26), [*range(0, 41, 2)], range(41), []])
def test_any_samples_may_be_bad(bad: Any) -> None:
    for on_error, drop_last in itertools.product(("skip", skip), (False, True)):
        with prefetch(Samples(bad), 0, batch_size=SIZE, on_error=on_error, drop_last=drop_last) as batches:
            assert indices(batches) == good(bad, drop_last), (on_error, drop_last)
            assert len(batches) == (5 if drop_last else 6)  # of all samples


@pytest.mark.parametrize("on_error", ["skip", skip])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_fn_gets_the_samples_that_are_left(workers: int, on_error: Any) -> None:
    """It runs in the workers, where it is not known what follows."""
    expected = [[at for at in range(start, min(start + 8, COUNT)) if at not in BAD] for start in range(0, COUNT, 8)]
    with prefetch(Samples(), workers, batch_size=SIZE, collate_fn=listed, on_error=on_error) as batches:
        assert list(batches) == expected
    stream = SequenceMap(Stream(), 0, checked)
    with prefetch(stream, workers, batch_size=SIZE, collate_fn=listed, on_error=on_error) as batches:
        assert list(batches) == expected
    with prefetch(Samples(range(8, 16)), 0, batch_size=SIZE, collate_fn=listed, on_error=on_error) as batches:
        assert [batch[0] for batch in batches] == [0, 16, 24, 32, 40]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_function_is_asked_for_each_sample(workers: int) -> None:
    asked: list[int] = []

    def on_error(error: BaseException) -> str:
        asked.append(error.args[0])
        return "skip" if isinstance(error, ValueError) else "raise"

    def error(index: int) -> BaseException:
        return KeyError(index) if index == 18 else ValueError(index)

    with prefetch(Samples(BAD, error), workers, batch_size=SIZE, on_error=on_error) as batches:
        loop = iter(batches)
        got = [next(loop)[1].tolist()]
        with pytest.raises(KeyError, match="18"):
            next(loop)
        got += indices(loop)
    assert asked == [3, 17, 18]
    left = [at for at in range(COUNT) if at != 3 and not 16 <= at < 24]  # the batch of 18 is lost
    assert got == [left[start : start + SIZE] for start in range(0, len(left), SIZE)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_is_tried_again(workers: int) -> None:
    class Flaky(Samples):
        def __getitem__(self, index: int) -> Any:
            from workers import current_job

            job = current_job()
            assert job is not None
            self.bad = BAD if job.attempt == 0 else frozenset({18})
            return super().__getitem__(index)

    def on_error(error: BaseException) -> str:
        return "retry" if error.args[0] != 18 else "skip"

    with prefetch(Flaky(), workers, batch_size=SIZE, on_error=on_error) as batches:
        assert indices(batches) == good({18})
    with (
        prefetch(Samples({3}), workers, batch_size=SIZE, on_error=lambda error: "retry") as batches,
        pytest.raises(ValueError, match="3"),
    ):
        next(batches)


def test_an_error_that_is_raised_again_elsewhere() -> None:
    """What was left of a batch is not delivered for another job that raises the same object."""
    same = ValueError(0)

    class Fails(Samples):
        def __getitem__(self, index: int) -> Any:
            if index == 3:
                raise same
            return index

    def fails(batch: Any) -> Any:
        if batch[0] == 16:
            raise same
        return batch

    with (
        prefetch(Fails(), 0, batch_size=SIZE, on_error=skip) as samples,
        samples.map(fails, 0) as batches,
    ):
        assert [batch[0] for batch in batches] == [8, 24, 32, 40]


def test_functions_of_batches_get_the_samples_that_are_left() -> None:
    """In the workers, where it is not known what follows. One that decides by a function cannot leave out samples."""
    expected = [[at for at in range(start, min(start + 8, COUNT)) if at not in BAD] for start in range(0, COUNT, 8)]
    makers: list[Callable[[Any], Any]] = [
        lambda on_error: prefetch(Samples(), 0, batch_size=SIZE, on_error=on_error).map(lambda batch: batch[1]),
        lambda on_error: SequenceMap(Stream(), 0, checked, on_error=on_error).batch(SIZE).map(lambda batch: batch[1]),
    ]
    for make in makers:
        with make("skip") as batches:
            assert [batch.tolist() for batch in batches] == expected
        with make(skip) as batches:
            assert [batch.tolist() for batch in batches] == [batch for batch in expected if not {2, 16} & {*batch}]
