"""Ctrl-C at every place of our code in turn, and at random moments: what was not delivered still comes, once."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workers
from workers import Sequence, SequenceMap, current_job, current_rng
from workers.job import alone
from workers.process import server_handle

# Where it strikes a generator that is closed, Python says so.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

OURS = str(Path(workers.__file__).parent)
LENGTH = 5


class Batches(Sequence):
    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        return [self.epoch, index, int(current_rng().integers(1000))]


class NoDraws(Batches):
    """Batches without random draws, which the loop gets by a shorter way."""

    def __getitem__(self, index: int) -> Any:
        return [self.epoch, index]


class Stream(Batches):
    is_stream = True


class Iterable:
    """Its iterator goes on behind a Ctrl-C, as a generator does not."""

    class Iterator:
        def __init__(self) -> None:
            self.items = iter(range(LENGTH))

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self.items)

    def __iter__(self) -> Any:
        return self.Iterator()


def noisy(item: Any) -> Any:
    return [item, int(current_rng().integers(1000))]


def twice(item: Any) -> Any:
    return [np.array(item), np.array(item) + 1]


def same(item: Any, source: Any) -> Any:
    return item


def in_worker() -> bool:
    job = current_job()
    return job is not None and job.worker is not None


def yields(item: Any) -> Iterator[Any]:
    for number in range(2):
        if item[1] == 1 and in_worker():
            time.sleep(0.009)  # a portion is sent every 8 ms
        yield [item, number, int(current_rng().integers(1000))]


def joined(items: list[Any]) -> Any:
    return items


KINDS: dict[str, Callable[[], Any]] = {
    "loop": lambda: Batches(seed=1),
    "shard": lambda: Batches(seed=1).shard(1, 2),
    "serial": lambda: Batches(seed=1).map(noisy, 0),
    "serial, lists": lambda: Batches(seed=1).map(twice, 0),
    "serial, stream": lambda: Stream(seed=1).map(noisy, 0),
    "serial, iterator": lambda: SequenceMap(Iterable(), 0, noisy, seed=1),
    "serial, no draws": lambda: NoDraws(seed=1).prefetch(0),
    "serial, no draws, shuffled": lambda: NoDraws(seed=1).shuffle().prefetch(0),
    "threads": lambda: Batches(seed=1).prefetch(1, executor="thread", max_queue_size=1),
    "processes": lambda: Batches(seed=1).map(None, 1, collate_fn=same),
    "processes, shard": lambda: Batches(seed=1).shard(1, 2).prefetch(1, max_queue_size=1),
    "processes, stream": lambda: Stream(seed=1).map(twice, 1),
    "processes, iterator": lambda: SequenceMap(Iterable(), 1, noisy, seed=1),
    "serial, portions": lambda: Batches(seed=1).map(yields).batch(2, collate_fn=joined).prefetch(0),
    "threads, portions": lambda: Batches(seed=1).map(yields, 2, executor="thread"),
    "processes, portions": lambda: Batches(seed=1).map(yields).batch(2, collate_fn=joined).prefetch(2),
}


def told(batch: Any) -> Any:
    return batch.tolist() if isinstance(batch, np.ndarray) else batch


@contextlib.contextmanager
def interrupted_at(number: int) -> Iterator[list[str]]:
    """A KeyboardInterrupt where the ``number``-th function of ours is entered: where Python looks for a Ctrl-C."""
    where: list[str] = []
    left = number

    def trace(frame: Any, event: str, _: Any) -> None:
        nonlocal left
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            left -= 1
            if left == 0:
                sys.settrace(None)
                where.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}")
                raise KeyboardInterrupt

    sys.settrace(trace)
    try:
        yield where
    finally:
        sys.settrace(None)


def read_until(number: int, loop: Any, got: list[Any]) -> list[str]:
    """Where it was interrupted; nowhere, when the pass is over before. ``got``: what came until then."""
    with interrupted_at(number) as where, contextlib.suppress(KeyboardInterrupt):
        while (batch := next(loop, None)) is not None:
            got.append(told(batch))
    return where


def read_on(loop: Any) -> list[Any]:
    """The rest of a pass."""
    got = []
    while (batch := next(loop, None)) is not None:
        got.append(told(batch))
    return got


@pytest.mark.parametrize("kind", ["loop", "shard", "serial", "serial, lists", "serial, stream"])
def test_at_every_place_of_its_beginning(kind: str) -> None:
    """A loop that could not begin leaves nothing behind, such as for whom epochs are asked for."""
    with KINDS[kind]() as batches:
        expected = [told(batch) for batch in batches]
        for number in itertools.count(1):
            batches.epoch = 0
            with interrupted_at(number) as where, contextlib.suppress(KeyboardInterrupt):
                iter(batches)
            if not where:
                break
            assert batches.epoch == 0, where
            assert [told(batch) for batch in batches] == expected, where
        assert number > 10


@pytest.mark.parametrize("kind", KINDS)
def test_at_every_place(kind: str) -> None:
    with KINDS[kind]() as batches:
        expected = [told(batch) for batch in batches]
        following = [told(batch) for batch in batches]
        for number in itertools.count(1):
            batches.epoch = 0
            loop = iter(batches)
            got: list[Any] = []
            where = read_until(number, loop, got)
            if not where:
                break
            got += read_on(loop)
            assert got == expected, where
            assert [told(batch) for batch in batches] == following, where
        assert number > 10


@pytest.mark.parametrize("kind", KINDS)
def test_states(kind: str) -> None:
    """Taken after a Ctrl-C: of what was delivered, and nothing else."""
    with KINDS[kind]() as batches, KINDS[kind]() as others:
        expected = [told(batch) for batch in batches]
        for number in itertools.count(3, 7):
            batches.epoch = 0
            loop = iter(batches)
            got: list[Any] = []
            where = read_until(number, loop, got)
            if not where or len(got) == len(expected):
                break
            others.load_state_dict(batches.state_dict())
            assert got + read_on(iter(others)) == expected, where


@pytest.mark.parametrize("kind", KINDS)
def test_at_random_moments(kind: str) -> None:
    """Real signals; those that come between two batches are the program's own."""
    is_over = threading.Event()
    is_within = False

    def handler(*_: Any) -> None:
        if is_within:
            frame: Any = sys._getframe(1)
            while frame is not None and not frame.f_code.co_filename.startswith(OURS):
                frame = frame.f_back
            if frame is not None:
                raise KeyboardInterrupt

    def interrupt() -> None:
        while not is_over.wait(0.0005):
            os.kill(os.getpid(), signal.SIGINT)

    with KINDS[kind]() as batches:
        expected = [told(batch) for _ in range(4) for batch in batches]
        batches.epoch = 0
        before = signal.signal(signal.SIGINT, handler)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            got: list[Any] = []
            loop = None
            num_interrupts = 0
            until = time.monotonic() + 1.0
            while len(got) < len(expected):
                is_within = time.monotonic() < until
                batch = None
                try:
                    loop = iter(batches) if loop is None else loop
                    batch = next(loop)
                except StopIteration:
                    loop = None
                except KeyboardInterrupt:
                    num_interrupts += 1
                is_within = False
                if batch is not None:
                    got.append(told(batch))
        finally:
            is_over.set()
            thread.join()
            signal.signal(signal.SIGINT, before)
        assert got == expected


class InterruptedLock:
    """A lock whose acquire() is followed by a Ctrl-C before its result is there."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock

    def acquire(self, *args: Any, **options: Any) -> bool:
        self.lock.acquire(*args, **options)
        raise KeyboardInterrupt

    def release(self) -> None:
        self.lock.release()


def is_free(lock: Any) -> bool:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: lock.acquire(blocking=False) and lock.release() is None).result()


@pytest.mark.parametrize("kind", ["loop", "serial", "serial, stream", "serial, iterator", "serial, no draws"])
def test_behind_the_lock_of_the_global_generators(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock left locked would make each job in another thread wait, such as those of Keras."""
    lock = alone._globals_lock
    with KINDS[kind]() as batches:
        expected = [told(batch) for batch in batches]
        batches.epoch = 0
        loop = iter(batches)
        monkeypatch.setattr(alone, "_globals_lock", InterruptedLock(lock))
        with pytest.raises(KeyboardInterrupt):
            next(loop)
        assert is_free(lock)
        monkeypatch.undo()
        assert read_on(loop) == expected


def test_behind_the_lock_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = server_handle._lock
    monkeypatch.setattr(server_handle, "_lock", InterruptedLock(lock))
    with pytest.raises(KeyboardInterrupt):
        server_handle._tidy()
    assert is_free(lock)


@pytest.mark.parametrize(
    ("module", "name", "use"),
    [(alone, "_globals_lock", lambda: list(KINDS["serial"]())), (server_handle, "_lock", server_handle._tidy)],
    ids=["of the global generators", "of the servers"],
)
def test_a_lock_that_another_thread_has(
    module: Any, name: str, use: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays with that thread."""
    monkeypatch.setattr(alone, "_MAX_WAIT_S", 0.01)
    lock = getattr(module, name)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.acquire, timeout=1).result()
        use()
        assert not is_free(lock)
        pid = os.fork()
        if pid == 0:  # in a fork, that thread is not there
            os._exit(0 if getattr(module, name).acquire(blocking=False) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        pool.submit(lock.release).result()
