"""``.reservoir``: items are loaded once and drawn several times, in an order that is a function of (seed, epoch)."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workers
from workers import Sequence, current_job, current_rng, prefetch
from workers.sequence.reservoir import draws_of

WORKERS = [(0, "process"), (2, "process"), (2, "thread"), ("auto", "process")]
NUMBER, SIZE, DRAWS = 20, 5, 4


class Volumes(Sequence[Any]):
    """Each item is large enough to be leased; it knows what was loaded, and its hooks."""

    def __init__(self, folder: Path, seed: int | None = 3) -> None:
        super().__init__(seed=seed)
        self.folder, self.hooks = folder, ""

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        with (self.folder / "loads").open("a") as file:
            file.write(f"{index}\n")
        volume = np.full(10_000, index, np.float64)
        volume[-2:] = self.epoch, current_rng().random()
        return volume

    def loads(self) -> list[int]:
        return [int(line) for line in (self.folder / "loads").read_text().split()]


class Hooked(Volumes):
    def on_epoch_begin(self) -> None:
        self.hooks += "b"

    def on_epoch_end(self) -> None:
        self.hooks += "e"


def crop(volume: Any) -> Any:
    found = int(volume[0]), int(volume[-2]), current_rng().random()
    volume[:] = -1  # into a copy of its own
    return found


@pytest.mark.parametrize(
    ("number", "size", "draws"), [(20, 5, 4), (7, 3, 1), (5, 5, 3), (3, 9, 2), (1, 1, 1), (100, 1, 5), (1000, 64, 8)]
)
def test_draws(number: int, size: int, draws: int) -> None:
    """Each item as often as asked; never more than ``size`` + 1 in the pool; each epoch in an order of its own."""
    held = min(size, number)
    orders = []
    for epoch in range(3):
        found = draws_of(number, held, draws, 7, epoch)
        items = (found.loads - held) % number
        assert set(Counter(items.tolist()).values()) == {draws}
        assert len(items) == number * draws
        first = np.searchsorted(found.until, np.arange(number + held), side="right")  # the draw it precedes
        for draw in range(len(items)):
            pool = np.flatnonzero((first <= draw) & (found.last >= draw))
            assert len(pool) <= held + 1
        orders.append(tuple(items.tolist()))
        assert found.until[-1] <= number + held
    assert len(set(orders)) == 3 or number * draws < 10


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("mapped_by", [0, 2])
def test_the_same_on_any_workers(tmp_path: Path, nb_workers: Any, executor: str, mapped_by: int) -> None:
    """Also from a state, which loads only what is still needed."""

    def made(folder: Path, **options: Any) -> Any:
        folder.mkdir(exist_ok=True)
        return prefetch(Volumes(folder), **options).shuffle().reservoir(SIZE, DRAWS)

    with made(tmp_path / "serial", nb_workers=0) as pool:
        expected = [list(pool.map(crop, nb_workers=0)) for _ in range(1)]
    with made(tmp_path / "a", nb_workers=nb_workers, executor=executor) as pool, pool.map(crop, mapped_by) as batches:
        assert len(pool) == len(batches) == NUMBER * DRAWS
        found = list(batches)
        assert found == expected[0]
        assert set(Counter(number for number, _, _ in found).values()) == {DRAWS}
        assert len({draw for _, _, draw in found}) == NUMBER * DRAWS
        loop = iter(batches)
        second = [next(loop) for _ in range(50)]
        state, rest = batches.state_dict(), list(loop)
        assert {epoch for _, epoch, _ in second + rest} == {1}
        assert [number for number, _, _ in found] != [number for number, _, _ in second + rest]
    with made(tmp_path / "b", nb_workers=0) as pool, pool.map(crop, mapped_by) as batches:
        batches.load_state_dict(state)
        assert list(batches) == rest
        assert len((tmp_path / "b" / "loads").read_text().split()) <= NUMBER + SIZE - 50 // DRAWS + SIZE + 1


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_items_are_loaded_once(tmp_path: Path, nb_workers: int) -> None:
    """Only those that are in the pool both at the beginning and at the end are loaded twice."""
    source = Volumes(tmp_path)
    with source.reservoir(SIZE, DRAWS) as pool:
        list(pool)
    loads = Counter(source.loads())
    assert {item for item, times in loads.items() if times > 1} <= set(range(NUMBER - SIZE, NUMBER))
    assert set(loads) == set(range(NUMBER))
    assert max(loads.values()) == 2


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_batches_of_draws(tmp_path: Path, nb_workers: Any) -> None:
    with Volumes(tmp_path).reservoir(SIZE, DRAWS).map(crop).batch(8).prefetch(nb_workers) as batches:
        assert len(batches) == 10
        loop = iter(batches)
        for _ in range(4):
            next(loop)
        state, rest = batches.state_dict(), [batch[0].tolist() for batch in loop]
    with Volumes(tmp_path).reservoir(SIZE, DRAWS).map(crop).batch(8).prefetch(0) as batches:
        batches.load_state_dict(state)
        assert [batch[0].tolist() for batch in batches] == rest


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_the_loop_may_write_into_what_it_gets(tmp_path: Path, nb_workers: int) -> None:
    with prefetch(Volumes(tmp_path), nb_workers).reservoir(SIZE, DRAWS) as pool:
        for volume in pool:
            assert volume[0] >= 0
            volume[:] = -1


def test_hooks_are_called_once_an_epoch(tmp_path: Path) -> None:
    source = Hooked(tmp_path)
    with source.prefetch(2).reservoir(SIZE, DRAWS) as pool, pool.map(crop, 0) as batches:
        for epoch in range(3):
            assert {seen for _, seen, _ in batches} == {epoch}
        assert source.hooks == "bebebe"


def test_an_item_that_fails(tmp_path: Path) -> None:
    class Broken(Volumes):
        def __getitem__(self, index: int) -> Any:
            if index == 9:
                raise OSError("unreadable")
            return super().__getitem__(index)

    with Broken(tmp_path).reservoir(SIZE, DRAWS) as pool, pytest.raises(OSError, match="unreadable"):
        list(pool)


def test_workers_end_with_it(tmp_path: Path) -> None:
    pool = Volumes(tmp_path).prefetch(2).reservoir(SIZE, DRAWS)
    list(pool)
    pool.close()
    with pytest.raises(workers.ClosedError):
        list(pool)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda of: of.reservoir(0, 4), "size must be an integer >= 1"),
        (lambda of: of.reservoir(4, 0), "draws_per_item must be an integer >= 1"),
        (lambda of: of.shard(0, 2).reservoir(4, 4), "sequence[rank::world].reservoir"),
        (lambda of: of.repeat().reservoir(4, 4), "has no end"),
        (lambda of: of.map(lambda item: [item]).reservoir(4, 4), "as_items=False"),
        (lambda of: of.prefetch(0, on_error="skip").reservoir(4, 4), "leave on_error out"),
        (lambda of: prefetch(iter([1]), 0).reservoir(4, 4), "has no indices"),
        (lambda of: of.reservoir(4, 4).shuffle(), "window"),
        (lambda of: of.reservoir(4, 4).shard(0, 2), "has no indices"),
    ],
)
def test_what_has_no_meaning(tmp_path: Path, wrong: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        wrong(Volumes(tmp_path))
    assert error in str(raised.value)


class Deadly(Volumes):
    """Loading some items ends their worker, the first time."""

    def __getitem__(self, index: int) -> Any:
        job = current_job()
        if index % 6 == 2 and job is not None and job.worker is not None and job.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_workers_that_die_while_they_load(tmp_path: Path) -> None:
    """Each is replaced, and the draws are those of a pool without workers."""
    with prefetch(Volumes(tmp_path), 0, seed=3).shuffle().reservoir(SIZE, DRAWS) as pool:
        expected = [volume.tolist() for _ in range(2) for volume in pool]
    with prefetch(Deadly(tmp_path), 2, seed=3).shuffle().reservoir(SIZE, DRAWS) as pool:
        assert [volume.tolist() for _ in range(2) for volume in pool] == expected
        restarts = sum(worker.restarts for worker in pool.source_split.loads.report().workers)
        assert restarts >= 3
