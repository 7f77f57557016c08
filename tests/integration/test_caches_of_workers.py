"""What jobs keep in the object of a worker stays there when something else of it changes between epochs."""

from __future__ import annotations

import functools
import os
import signal
from typing import Any

import numpy as np
import pytest

from workers import Sequence, prefetch

LENGTH = 6
EPOCHS = 4


class Store:
    """An object of the user's that the dataset holds."""

    def __init__(self) -> None:
        self.level = 0
        self.opened: Any = None  # by the first job


class WithSetState(Store):
    """Nobody but its class knows what its state means: replaced as a whole."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class WithSlots:
    __slots__ = ("level", "opened")

    def __init__(self) -> None:
        self.level, self.opened = 0, None


class WithSlotsOfItsBase(WithSlots):
    """It has a ``__dict__`` too, which is empty."""


class Dataset:
    """A batch is (what the job sees, [jobs that each cache has seen])."""

    def __init__(self, store: type = Store) -> None:
        self.epoch = 0
        self.store = store()
        self.cache: dict[str, int] = {}
        self.weights = np.zeros(50_000)  # large, and written to in place
        self.names = [str(number) for number in range(3000)]
        self.old = True
        self.me = self.seen  # leads back to the object

    def __len__(self) -> int:
        return LENGTH

    def seen(self) -> list[Any]:
        return [self.epoch, self.store.level, float(self.weights[7]), self.names[-1], hasattr(self, "old")]

    @functools.cached_property
    def opened(self) -> list[int]:
        return [0]

    def __getitem__(self, index: int) -> Any:
        self.cache["jobs"] = self.cache.get("jobs", 0) + 1
        self.opened[0] += 1
        self.store.opened = (self.store.opened or 0) + 1
        assert self.me() == self.seen()
        return [index, *self.seen()], [self.cache["jobs"], self.opened[0], self.store.opened]

    def change(self) -> None:
        self.epoch += 1
        self.store.level -= 1
        self.weights[7] += 0.5
        self.names[-1] += "x"
        self.__dict__.pop("old", None)


class Hooked(Dataset):
    def on_epoch_end(self) -> None:
        self.change()


class OfOurs(Dataset, Sequence[Any]):
    epoch = 0  # type: ignore[assignment]

    def on_epoch_end(self) -> None:
        self.change()


def epochs_of(dataset: Any, nb_workers: int, end_one: bool = False, **options: Any) -> list[list[Any]]:
    found = []
    with prefetch(dataset, nb_workers, seed=1, **options) as batches:
        for epoch in range(EPOCHS):
            if end_one and epoch == 2:
                (worker,) = (each.pid for each in batches._live.pool.engine.executor._workers.values())  # type: ignore[union-attr]
                os.kill(worker, signal.SIGKILL)
            found.append(list(batches))
            if type(dataset) is Dataset:
                dataset.change()
                dataset.changed = None  # an attribute that is new
    return found


@pytest.mark.parametrize("kind", [Dataset, Hooked, OfOurs])
@pytest.mark.parametrize("nb_workers", [1, 2])
def test_caches_stay(kind: Any, nb_workers: int) -> None:
    serial = epochs_of(kind(), 0)
    got = epochs_of(kind(), nb_workers)
    assert [[seen for seen, _ in epoch] for epoch in got] == [[seen for seen, _ in epoch] for epoch in serial]
    most = [max(jobs) for epoch in got for _, jobs in epoch]
    for number in range(3):
        counts = [jobs[number] for epoch in got for _, jobs in epoch]
        if nb_workers == 1 and kind is not Dataset:  # no job is done ahead in vain
            assert counts == list(range(1, EPOCHS * LENGTH + 1))
    assert max(most) > LENGTH


@pytest.mark.parametrize("store", [WithSetState, WithSlots, WithSlotsOfItsBase])
def test_what_is_no_plain_object_is_replaced_as_a_whole(store: type) -> None:
    got = epochs_of(Hooked(store), 1)
    assert [[seen for seen, _ in epoch] for epoch in got] == [
        [seen for seen, _ in epoch] for epoch in epochs_of(Hooked(store), 0)
    ]
    assert [jobs for epoch in got for _, jobs in epoch] == [
        [LENGTH * epoch + at, LENGTH * epoch + at, at] for epoch in range(EPOCHS) for at in range(1, LENGTH + 1)
    ]


def test_another_object_has_no_caches_of_the_one_before() -> None:
    class Replacing(Hooked):
        def change(self) -> None:
            super().change()
            self.store = Store()

    got = epochs_of(Replacing(), 1)
    assert [jobs[2] for epoch in got for _, jobs in epoch] == [*range(1, LENGTH + 1)] * EPOCHS
    assert [jobs[0] for epoch in got for _, jobs in epoch] == [*range(1, LENGTH * EPOCHS + 1)]


def test_a_worker_that_comes_later_has_all_that_has_changed() -> None:
    got = epochs_of(Hooked(), 1, end_one=True)
    assert [[seen for seen, _ in epoch] for epoch in got] == [
        [seen for seen, _ in epoch] for epoch in epochs_of(Hooked(), 0)
    ]
    assert got[2][-1][1][0] <= LENGTH < got[3][-1][1][0]


def test_caches_stay_below_what_is_made_of_it() -> None:
    got = epochs_of(Hooked(), 1, batch_size=2, shuffle=True, collate_fn=list)
    assert max(jobs[0] for epoch in got for batch in epoch for _, jobs in batch) == EPOCHS * LENGTH


class Emptied(Sequence[Any]):
    """A cache of what depends on ``level``. It is emptied in one of several ways when that changes."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        self._level = 0
        self.cache: dict[int, Any] = {}
        self.kept: dict[int, int] = {}
        self.inner = Inner()

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        self.kept.setdefault(0, self.epoch)
        for cache in (self.cache, self.inner.cache):
            cache.setdefault(index, self._level)
        return self.cache[index], self.inner.cache[index], self.kept[0]

    @property
    def level(self) -> int:
        return self._level

    @level.setter
    def level(self, level: int) -> None:
        self._level = level
        self._empty()

    def _empty(self) -> None:
        self.cache.clear()
        self.inner.forget()


class Inner:
    def __init__(self) -> None:
        self.cache: dict[int, int] = {}

    def forget(self) -> None:
        self.cache.clear()


class EmptiedByHook(Emptied):
    def on_epoch_end(self) -> None:
        self._level += 1
        self.cache = {}
        self.inner.cache.clear()


class EmptiedByMethod(Emptied):
    def on_epoch_begin(self) -> None:
        self._level = self.epoch
        self._empty()


class EmptiedBySetter(Emptied):
    def on_epoch_end(self) -> None:
        self.level += 1


@pytest.mark.parametrize("cls", [EmptiedByHook, EmptiedByMethod, EmptiedBySetter, Emptied])
def test_a_cache_that_is_emptied_is_empty_in_the_workers(cls: Any) -> None:
    """By hooks, by what they call, or by the loop through a setter; others are kept."""

    def epochs(nb_workers: int) -> list[Any]:
        sequence = cls()
        found = []
        with sequence.prefetch(nb_workers) as batches:
            for epoch in range(3):
                if cls is Emptied and epoch:
                    sequence.level += 1
                found.append([batch[:2] for batch in batches])
                last = batch_of(batches)
        assert last[2] == 0  # the other cache
        return found

    def batch_of(batches: Any) -> Any:
        return next(iter(batches))

    assert epochs(0) == epochs(1)
