"""Objects of multiprocessing that a dataset holds: as with children of multiprocessing, or an error that helps."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing import resource_tracker
from multiprocessing.managers import SharedMemoryManager, SyncManager
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS
from scripted import have, scripted

from workers import NotPicklableError, prefetch
from workers.process import inheritance

LENGTH = 4


class OwnKey(SyncManager):
    """A manager with a key that is not that of the process."""


class Holds:
    """Sample ``index`` says what is read from what it holds, and where the resource tracker is told."""

    def __init__(self, **held: Any) -> None:
        self.held = held

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        found = {name: self.read(name, value, index) for name, value in self.held.items()}
        tracker: Any = resource_tracker
        return {**found, "tracker": os.fstat(tracker._resource_tracker._fd).st_ino}

    @staticmethod
    def read(name: str, held: Any, index: int) -> Any:
        if name == "name":  # opened in the job
            held = SharedMemory(held)
        if isinstance(held, SharedMemory):
            return int(np.frombuffer(held.buf, np.int64, LENGTH)[index].copy())
        if name == "nested":
            held = held[0]
        held[index + LENGTH] = index
        return held[index]


class Managers:
    """Two managers, and a segment of shared memory."""

    def __init__(self) -> None:
        self.manager, self.other = multiprocessing.Manager(), OwnKey(authkey=b"another")
        self.other.start()
        self.memory = SharedMemory(create=True, size=8 * LENGTH)
        np.frombuffer(self.memory.buf, np.int64)[:] = [10 * index for index in range(LENGTH)]

    def held(self) -> dict[str, Any]:
        tens = {index: 10 * index for index in range(LENGTH)}
        return {
            "memory": self.memory,
            "name": self.memory.name,
            "dict": self.manager.dict(tens),
            "nested": self.manager.list([self.manager.dict(tens)]),
            "of another key": self.other.dict(tens),
        }

    def end(self) -> None:
        self.manager.shutdown()
        self.other.shutdown()
        self.memory.close()
        self.memory.unlink()


@pytest.fixture(scope="module", autouse=True)
def _ends_the_tracker() -> Iterator[None]:
    """Multiprocessing would keep it for the rest of the program: a child that other tests do not expect."""
    yield
    tracker: Any = resource_tracker
    tracker._resource_tracker._stop()


# Of the module, as multiprocessing keeps a tracker and a heap.
@pytest.fixture(scope="module")
def managers() -> Iterator[Managers]:
    made = Managers()
    yield made
    made.end()


INHERITED: dict[str, Any] = {
    "Value": lambda: multiprocessing.Value("i", 0),
    "Array": lambda: multiprocessing.Array("i", LENGTH),
    "RawValue": lambda: multiprocessing.RawValue("i", 0),
    "RawArray": lambda: multiprocessing.RawArray("d", LENGTH),
    "Lock": multiprocessing.Lock,
    "Queue": multiprocessing.Queue,
    "SimpleQueue": multiprocessing.SimpleQueue,
    "Event": multiprocessing.Event,
    "Condition": multiprocessing.Condition,
    "Barrier": lambda: multiprocessing.Barrier(2),
    "Pipe": multiprocessing.Pipe,
}


@pytest.fixture(scope="module")
def inherited() -> dict[str, Any]:
    return {name: make() for name, make in INHERITED.items()}


def test_what_can_be_sent(managers: Managers) -> None:
    """Workers tell the program's tracker: with one of their own, they would remove its memory when they end."""
    held = managers.held()
    mine: Any = resource_tracker
    for nb_workers, executor in WORKERS:
        dataset = Holds(**held)
        with prefetch(dataset, nb_workers=nb_workers, executor=executor) as batches:
            if nb_workers == "auto":
                scripted(batches, lambda look: None)
            for epoch in range(2):
                for index, sample in enumerate(batches):
                    assert sample.pop("tracker") == os.fstat(mine._resource_tracker._fd).st_ino
                    assert sample == dict.fromkeys(dataset.held, 10 * index)
                    if nb_workers == "auto" and epoch == index == 0:
                        have(batches, 1)
                if epoch == 0:
                    dataset.held = dict(held, later=managers.manager.dict(held["dict"]))
        for name in ("dict", "of another key"):  # jobs have written to it
            assert {held[name].pop(index + LENGTH) for index in range(LENGTH)} == set(range(LENGTH))
        held["nested"][0] = managers.manager.dict(held["dict"])


def test_memory_that_is_not_tracked(managers: Managers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inheritance.reduced(managers.memory) is None
    monkeypatch.setattr(managers.memory, "_track", False, raising=False)  # from Python 3.13 on
    make, arguments = inheritance.reduced(managers.memory)
    assert (make.func, make.keywords) == (SharedMemory, {"track": False})
    assert arguments == (managers.memory.name, False, managers.memory.size)


def test_lists_in_shared_memory(managers: Managers) -> None:
    with SharedMemoryManager() as manager:
        numbers: Any = manager.ShareableList([1, 2, 3, 4])
        with prefetch(Reads(numbers), nb_workers=1) as batches:
            assert [int(batch) for batch in batches] == [1, 2, 3, 4]
        numbers.shm.close()


class Reads:
    def __init__(self, held: Any) -> None:
        self.held = held

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return self.held[index]


@pytest.mark.parametrize("name", INHERITED)
def test_what_only_children_inherit(name: str, inherited: dict[str, Any]) -> None:
    at = r"\[0\]" if name == "Pipe" else ""
    text = rf"the sequence\.source\.held{at} cannot be sent.*workers\.share\(.*multiprocessing\.Manager\(\)"
    with pytest.raises(NotPicklableError, match=text):
        next(iter(prefetch(Reads(inherited[name]), nb_workers=1)))
