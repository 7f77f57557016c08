"""``on_error="redraw"``: another sample takes the place of one that raises, and nothing behind it moves."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import workers
from workers import Sequence, current_rng, prefetch

NUMBER = 30
DAMAGED = {4, 5, 17}
WORKERS = [(0, "process"), (1, "process"), (3, "process"), (2, "thread"), ("auto", "process")]


class Photos(Sequence[Any]):
    """Photos, three of which are damaged."""

    damaged = frozenset(DAMAGED)

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        if index in self.damaged:
            raise OSError(f"photo {index} is damaged")
        return index, self.epoch


class Whole(Photos):
    damaged = frozenset()


def numbers(batches: Any) -> list[list[int]]:
    return [found.tolist() for found, _ in batches]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "workers")


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize(
    "options", [{"shuffle": True}, {"weights": np.arange(NUMBER) + 1.0}, {}], ids=["shuffled", "weighted", "in order"]
)
def test_nothing_behind_it_moves(options: dict[str, Any], nb_workers: Any, executor: str) -> None:
    """Each batch is whole; all other samples are where they would be; the same on any workers."""

    def made(source: Any, number: Any, **others: Any) -> Any:
        return prefetch(source(seed=3), number, batch_size=7, on_error="redraw", **options, **others)

    with made(Whole, 0) as batches:
        whole = [numbers(batches) for _ in range(2)]
    with made(Photos, 0) as batches:
        expected = [numbers(batches) for _ in range(2)]
    with made(Photos, nb_workers, executor=executor) as batches:
        assert len(batches) == 5
        assert [numbers(batches) for _ in range(2)] == expected
    for epoch, of_whole in zip(expected, whole, strict=True):
        assert [len(batch) for batch in epoch] == [7, 7, 7, 7, 2]
        pairs = [pair for batch in zip(epoch, of_whole, strict=True) for pair in zip(*batch, strict=True)]
        assert all(found == wanted for found, wanted in pairs if wanted not in DAMAGED)
        assert not {found for found, _ in pairs} & DAMAGED
        assert any(wanted in DAMAGED for _, wanted in pairs)


def failing(sample: Any) -> Any:
    if sample[0] in DAMAGED:
        raise ValueError(f"no function of {sample[0]}")
    return sample[0] + current_rng().random(), sample[1]


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_of_functions_and_lists(nb_workers: int) -> None:
    source = Whole(seed=1)
    for batches in (
        source.map(failing, on_error="redraw").batch(6),
        prefetch(source.map(failing), 0, batch_size=6, on_error="redraw"),
        prefetch(source.map(failing), 0, batch_sampler=[list(range(6)), list(range(12, 18))], on_error="redraw"),
        source.map(failing, on_error="redraw").batch_by([[4, 5, 17, 1, 2, 3]]),
        source.map(failing, on_error="redraw").shuffle().take(12).batch(6),
    ):
        with batches.prefetch(nb_workers) as front:
            found = numbers(front)
        assert {len(batch) for batch in found} == {6}
        assert not {int(number) for batch in found for number in batch} & DAMAGED


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_if_all_are_damaged(nb_workers: int) -> None:
    class Damaged(Photos):
        damaged = frozenset(range(NUMBER))

    with prefetch(Damaged(seed=1), nb_workers, batch_size=4, on_error="redraw") as batches:
        with pytest.raises(OSError, match="photo 0 is damaged") as raised:
            next(iter(batches))
        assert any("10 other samples" in note for note in raised.value.__notes__)


def test_a_state_goes_on() -> None:
    def made(nb_workers: int) -> Any:
        return prefetch(Photos(seed=3), nb_workers, batch_size=4, shuffle=True, on_error="redraw")

    with made(2) as batches:
        whole = numbers(batches)
    with made(1) as batches:
        loop = iter(batches)
        got = numbers([next(loop) for _ in range(3)])
        state = batches.state_dict()
    with made(0) as batches:
        batches.load_state_dict(state)
        assert got + numbers(batches) == whole


class Stream:
    def __iter__(self) -> Iterator[int]:
        return iter(range(9))


def test_where_it_has_no_meaning() -> None:
    with pytest.raises(TypeError, match='no other sample can be drawn: give on_error="skip"'):
        prefetch(Stream(), 0, batch_size=3, on_error="redraw")
    with prefetch(Photos(seed=1), 1, on_error="redraw") as batches:
        with pytest.raises(OSError, match="damaged") as raised:
            list(batches)
        assert any("give batch_size" in note for note in raised.value.__notes__)
    with pytest.raises(ValueError, match="on_error must be one of"):
        prefetch(Photos(seed=1), 0, on_error="replace")


# -- the number of workers by the environment


@pytest.mark.parametrize(("said", "expected"), [("0", 0), ("1", 1), ("auto", "auto"), ("", 2)])
def test_the_environment_says_how_many(said: str, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS_NB_WORKERS", said)
    with Whole(seed=1).prefetch(2) as batches:
        assert batches.nb_workers == expected
        assert len(list(batches)) == NUMBER
    with Whole(seed=1).prefetch(0) as batches:
        assert batches.nb_workers == 0
    with workers.SequenceMap([1, 2], "auto") as front:
        assert front.nb_workers == ("auto" if expected == 2 else expected)


@pytest.mark.parametrize("said", ["two", "-1", "1.5"])
def test_a_wrong_number_in_the_environment(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKERS_NB_WORKERS", said)
    with pytest.raises(ValueError, match="WORKERS_NB_WORKERS must be"):
        Whole(seed=1).prefetch(2)


def test_only_what_the_batch_sampler_lists() -> None:
    lists = [[3, 4], [5, 6, 7]]
    found = set()
    for seed in range(20):
        with prefetch(Photos(seed=seed), 0, batch_sampler=lists, on_error="redraw") as batches:
            found |= {number for batch in numbers(batches) for number in batch}
    assert found == {3, 6, 7}


def test_behind_a_batch_it_is_refused() -> None:
    for batches in (Photos().batch(4), Photos().batch_by([[1]])):
        with pytest.raises(ValueError, match="these are batches already"):
            batches.prefetch(0, on_error="redraw")
