"""What hooks, or the loop between epochs, write to memory and files that jobs read is seen by all of the next epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import at_random, have, scripted

import workers
from workers import Sequence, prefetch

LENGTH = 30
EPOCHS = 3
LOADERS: dict[str, dict[str, Any]] = {
    "0": {"nb_workers": 0},
    "1": {"nb_workers": 1, "max_queue_size": 8},
    "2": {"nb_workers": 2, "max_queue_size": 8},
    "2, as they come": {"nb_workers": 2, "in_order": False},
    "2 threads": {"nb_workers": 2, "executor": "thread", "max_queue_size": 8},
    "auto": {"nb_workers": "auto", "max_queue_size": 8},
}


class Reads(Sequence[Any]):
    """Each batch says what it has read in each place."""

    def __init__(self, folder: Path) -> None:
        super().__init__(seed=1)
        self.shared = workers.share(np.zeros(1, np.int64))
        self.large = workers.share(np.zeros(100_000, np.int64))
        self.view = workers.share(np.zeros((3, 4), np.int64))[1, ::2]
        self.memmap = np.memmap(folder / "mapped", np.int64, "w+", shape=(100_000,))
        self.path = folder / "value"
        self.write(0)

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.001)
        values = self.shared[0], self.large[-1], self.view[-1], self.memmap[-1], self.path.read_text()
        return index, self.epoch, *map(int, values)

    def write(self, value: int, first: bool | None = None) -> None:
        """Write ``value``; if not None, only to the ``first`` places or to the others."""
        if first is not False:
            self.shared[0] = self.large[-1] = value
        if first:
            return
        self.view[-1] = self.memmap[-1] = value
        with open(self.path.with_suffix(f".{os.getpid()}"), "w") as file:
            file.write(str(value))
        os.replace(file.name, self.path)


class Hooked(Reads):
    def on_epoch_begin(self) -> None:
        self.write(self.epoch, first=True)

    def on_epoch_end(self) -> None:
        self.write(self.epoch + 1, first=False)


def check(batches: Any, write: Any = None) -> None:
    """Each batch of an epoch has read what was written before it, wherever."""
    for epoch in range(EPOCHS):
        got = list(batches)
        assert sorted(each[0] for each in got) == list(range(LENGTH))
        assert {each[1:] for each in got} == {(epoch,) * 6}, epoch
        if write is not None:
            write(epoch + 1)


@pytest.mark.parametrize("loader", LOADERS)
def test_hooks(loader: str, tmp_path: Path) -> None:
    with Hooked(tmp_path).prefetch(**LOADERS[loader]) as batches:
        check(batches)
        assert len(list(zip(range(5), batches, strict=False))) == 5  # the next epoch is left, and begun anew
        batches.epoch = 7
        assert {each[2:4] for each in batches} == {(7, 7)}


@pytest.mark.parametrize("loader", LOADERS)
def test_the_loop_says_changed(loader: str, tmp_path: Path) -> None:
    """But within an epoch a shared array needs no word: it is seen as soon as what was computed ahead is read."""
    reads = Reads(tmp_path)
    with reads.map(as_it_is).prefetch(**LOADERS[loader]) as batches:

        def write(value: int) -> None:
            reads.write(value)
            (reads, batches, batches.source_split)[value % 3].changed()  # type: ignore[attr-defined]

        check(batches, write)
        write(0)
        for number, batch in enumerate(batches):
            for value in batch[2:-1]:
                assert value <= number
                assert value > number - 10 or not batches.in_order
            reads.write(number + 1)


def as_it_is(batch: Any) -> Any:
    return batch


CHAINS: dict[str, Any] = {
    "map": lambda source: source.map(as_it_is, 2),
    "shuffle": lambda source: source.shuffle().prefetch(2),
    "map, shuffle": lambda source: source.prefetch(2).map(as_it_is).shuffle(),
    "shuffle=True": lambda source: prefetch(source, 2, shuffle=True),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_hooks_of_the_source_of_a_chain(chain: str, tmp_path: Path) -> None:
    with CHAINS[chain](Hooked(tmp_path)) as batches:
        check(batches)


def test_hooks_of_samples(tmp_path: Path) -> None:
    with prefetch(Hooked(tmp_path), 2, batch_size=5) as batches:
        for epoch in range(EPOCHS):
            got = list(batches)
            assert len(got) == LENGTH / 5
            assert {tuple(row) for batch in got for row in np.stack(batch[1:], 1).tolist()} == {(epoch,) * 6}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("kind", [Hooked, Reads])
def test_auto_that_goes_over_at_any_batch(kind: type[Reads], seed: int, tmp_path: Path) -> None:
    reads = kind(tmp_path)

    def write(value: int) -> None:
        if kind is Reads:
            reads.write(value)
            reads.changed()
        have(batches, 2)

    with reads.prefetch("auto") as batches:
        scripted(batches, at_random(seed, 0.1))
        check(batches, write)


class Iterates:
    """An iterable with hooks, whose functions run in workers."""

    def __init__(self, reads: Reads) -> None:
        self.reads = reads

    def __iter__(self) -> Iterator[int]:
        return iter(range(LENGTH))

    def on_epoch_end(self) -> None:
        self.reads.write(int(self.reads.shared[0]) + 1)


def test_hooks_of_an_iterable(tmp_path: Path) -> None:
    reads = Reads(tmp_path)
    with prefetch(Iterates(reads), 2).map(lambda index: int(reads.shared[0])) as batches:
        for epoch in range(EPOCHS):
            assert set(batches) == {epoch}


class Counts(Reads):
    """Each batch says how many jobs this object has done in its process."""

    num_jobs: list[int] | None = None  # made by the first job

    def __getitem__(self, index: int) -> Any:
        self.num_jobs = self.num_jobs or [0]
        self.num_jobs[0] += 1
        return self.num_jobs[0], int(self.shared[0])


class CountsHooked(Counts):
    def on_epoch_end(self) -> None:
        self.write(self.epoch + 1)


@pytest.mark.parametrize("kind", [Counts, CountsHooked])
def test_workers_keep_what_they_hold(kind: type[Counts], tmp_path: Path) -> None:
    """What is in shared memory or in files is no reason to send them the sequence again; of other changes they take
    only what has changed. And only where there are no hooks the next epoch begins before this one's end."""
    counts = kind(tmp_path)
    with counts.prefetch(1) as batches:
        for epoch in range(EPOCHS):
            got = list(batches)
            assert len(batches._live.pool.engine.schedule._passes._passes) == 1 + (kind is Counts)  # type: ignore[union-attr]
            assert {value for _, value in got} == {epoch}
            assert got[0][0] > epoch * LENGTH
            if kind is Counts:
                counts.write(epoch + 1)
                counts.changed()
        counts.label = "new"  # type: ignore[attr-defined]  # an attribute
        assert next(iter(batches))[0] > EPOCHS * LENGTH
        counts.num_jobs = [-1]
        assert next(iter(batches))[0] <= 2  # one may have been done ahead


def test_changed_and_an_interrupt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was said before a loop that did not begin holds for the next one."""
    counts = Counts(tmp_path)
    with counts.prefetch(1) as batches:
        list(batches)
        counts.write(5)
        counts.changed()
        with monkeypatch.context() as patch:
            patch.setattr(type(batches._live.pool.engine), "begin", _interrupt)  # type: ignore[union-attr]
            with pytest.raises(KeyboardInterrupt):
                list(batches)
        assert {value for _, value in batches} == {5}


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
