"""``.shuffle(window=n)``: what has only ``__iter__`` is shuffled as it is read, by (seed, epoch) alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from workers import Sequence, SequenceArray, prefetch

NUMBER, WINDOW = 50, 12
WORKERS = [(0, "process"), (1, "process"), (3, "process"), (2, "thread"), ("auto", "process")]


class Lines:
    """Its reader may raise, and reuses its memory."""

    def __init__(self, fails_at: int | None = None, number: int = NUMBER) -> None:
        self.fails_at, self.number = fails_at, number
        self.line = np.zeros(2)

    def __iter__(self) -> Iterator[Any]:
        for number in range(self.number):
            if number == self.fails_at:
                raise OSError("the file is damaged")
            self.line[:] = number
            yield self.line


def made(nb_workers: Any, source: Any = None, window: int = WINDOW, **options: Any) -> Any:
    return prefetch(Lines() if source is None else source, nb_workers, seed=7, **options).shuffle(window)


def numbers(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in np.atleast_2d(batch)[:, 0]]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_each_window_has_its_items(nb_workers: Any, executor: str) -> None:
    """All come once, each in its window, in another order in each epoch and window; the same on any workers."""
    with made(0) as batches:
        expected = [numbers(batches) for _ in range(3)]
    with made(nb_workers, executor=executor) as batches:
        assert [numbers(batches) for _ in range(3)] == expected
    for epoch in expected:
        for start in range(0, NUMBER, WINDOW):
            assert sorted(epoch[start : start + WINDOW]) == list(range(start, min(NUMBER, start + WINDOW)))
    assert len({tuple(epoch) for epoch in expected}) == 3
    first = expected[0]
    assert [number - 12 for number in first[12:24]] != first[:12]


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_before_and_behind_other_words(nb_workers: int) -> None:
    with made(nb_workers).map(lambda line: line + 100).batch(8) as batches:
        found = numbers(batches)
        assert sorted(found) == list(range(100, 100 + NUMBER))
        assert found != sorted(found)
    with prefetch(Lines(), nb_workers, seed=7).batch(5).shuffle(4) as batches:
        groups = [batch[:, 0].astype(int).tolist() for batch in batches]
        assert sorted(groups) == [list(range(start, start + 5)) for start in range(0, NUMBER, 5)]
        assert groups != sorted(groups)
    with made(nb_workers).filter(lambda line: line[0] % 2) as batches:
        assert sorted(numbers(batches)) == list(range(1, NUMBER, 2))
    with made(nb_workers, window=1) as batches:
        assert numbers(batches) == list(range(NUMBER))
    with made(nb_workers, Lines(number=0)) as batches:
        assert numbers(batches) == []


@pytest.mark.parametrize("stop", [1, 12, 30])
def test_a_state_goes_on(stop: int) -> None:
    with made(2) as batches:
        whole = [numbers([batch])[0] for batch in batches]
    with made(1) as batches:
        loop = iter(batches)
        got = [numbers([next(loop)])[0] for _ in range(stop)]
        state = batches.state_dict()
    with made(0) as batches:
        batches.load_state_dict(state)
        assert got + numbers(batches) == whole


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_an_error_comes_after_what_was_read(nb_workers: int) -> None:
    with made(nb_workers, Lines(fails_at=17)) as batches:
        loop = iter(batches)
        found = [int(next(loop)[0]) for _ in range(17)]
        with pytest.raises(OSError, match="damaged"):
            next(loop)
    assert sorted(found) == list(range(17))


@pytest.mark.needs("torch")
def test_an_iterable_dataset_of_torch() -> None:
    from torch.utils.data import IterableDataset

    class Stream(IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Iterator[int]:
            return iter(range(20))

    with prefetch(Stream(), 2, seed=1).shuffle(window=20).batch(4) as batches:
        assert sorted(np.concatenate(list(batches)).tolist()) == list(range(20))


class Indexed(Sequence[int]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index


def test_what_has_indices_is_shuffled_as_a_whole() -> None:
    for source in (Indexed(), SequenceArray({"x": [1, 2]}), Indexed().batch(2)):
        with pytest.raises(TypeError, match=r"write .shuffle\(\) without a window"):
            source.shuffle(window=2)
    with pytest.raises(ValueError, match="window must be an integer >= 1"):
        prefetch(iter([1]), 0).shuffle(window=0)
    with pytest.raises(TypeError, match="window=4096"):
        prefetch(iter([1]), 0).shuffle()


def test_lengths() -> None:
    """Of a source that has one; also after other words."""

    class Counted:
        def __len__(self) -> int:
            return 10

        def __iter__(self) -> Any:
            return iter(range(10))

    shuffled = prefetch(Counted(), 0, seed=1).shuffle(window=3)
    assert [len(shuffled), len(shuffled.batch(4)), len(shuffled.map(str).batch(4, True))] == [10, 3, 2]
    with pytest.raises(TypeError, match="has no length"):
        len(prefetch(iter([1]), 0).shuffle(window=3).batch(2))


def test_a_stream_that_is_slow_to_read_gives_its_first_batches_soon() -> None:
    """Not only when all items are read that may be ahead of the loop."""
    read = 0

    class Slow:
        def __iter__(self) -> Any:
            nonlocal read
            for number in range(60):
                time.sleep(0.02)
                read += 1
                yield number

    with prefetch(Slow(), 2, max_queue_size=100).map(str) as batches:
        before_first = []
        for _ in range(3):
            read = 0
            for at, _ in enumerate(batches):
                before_first += [read] * (at == 0)
        assert min(before_first) < 30
