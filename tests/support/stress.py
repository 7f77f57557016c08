"""Loads that are held for long: each compares every batch with the serial run, and counts.

Each takes a size and a seed, on which all it does at random depends; when a process gets how much of the processor is
left to chance. None looks at how long anything takes. ``test_stress.py`` runs a short form of each, ``scripts/stress``
the long one.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import hashlib
import json
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
from faulty import servers, wait_for, worker_processes
from shapes import Shapes, exactly

from workers import Sequence, current_job, current_rng, empty
from workers.process import server_handle

MANY = 1_000_000  # retries: what is killed at random must not be given up
SIZES = (3, 500, 9_000, 40_000)  # elements of 8 bytes: some batches are copied out, some leased


@dataclasses.dataclass
class Tally:
    """What a load did. It is counted while it runs, so that somebody may look whether it still does."""

    faults: int = 0  # survived
    delivered: int = 0  # and compared
    lost: int = 0
    note: str = ""

    def check(self, got: Any, wanted: Any, what: Any) -> None:
        self.delivered += 1
        if got != wanted:
            self.lost += 1
            raise AssertionError(f"other bytes than those of the serial run: {what}")


class Batches(Sequence):
    """Random batches of all sizes, in slots made by the engine or by the job; the first item is who made it."""

    def __init__(self, length: int, seed: int, doze_s: float = 0.0) -> None:
        super().__init__(seed=seed)
        self.length, self.doze_s = length, doze_s

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        job, rng = current_job(), current_rng()
        assert job is not None
        size, doze = SIZES[rng.integers(len(SIZES))], rng.random() * self.doze_s
        if rng.random() < 0.5:
            x = empty((size,), np.float64)
            rng.random(out=x)
        else:
            x = rng.random(size)
        if doze and job.worker is not None:
            time.sleep(doze)  # more moments in which it can be killed, while the processor does something else
        return os.getpid(), {"at": (job.epoch, index), "x": x, "global": np.random.random(3), "text": rng.bytes(50)}


class Tiny(Batches):
    def __getitem__(self, index: int) -> Any:
        return np.array([self.epoch, index, current_rng().integers(1 << 40)])


class Even(Batches):
    """All of one size, so that memory can be compared; what is in them needs no serial run."""

    def __getitem__(self, index: int) -> Any:
        return np.full(8192, (self.epoch << 20) + index)


def digest(part: Any) -> bytes:
    """Of all bytes, types and shapes in a batch, but not of who made it."""
    if isinstance(part, tuple):
        _, part = part
    values = part.values() if isinstance(part, dict) else [part]
    found = hashlib.blake2b(digest_size=16)
    for value in values:
        if isinstance(value, np.ndarray):
            found.update(f"{value.dtype.str} {value.shape}".encode())
            found.update(np.ascontiguousarray(value).view(np.uint8).data)
        else:
            found.update(repr(value).encode())
    return found.digest()


def compare(batches: Any, serial: Any, tally: Tally, what: Callable[[Any], Any]) -> Iterator[Any]:
    """A pass over both at once. Yields each batch when it was found to be the same."""
    iterator = iter(batches)
    for index, wanted in enumerate(serial):
        try:
            got = next(iterator)
        except StopIteration:
            tally.lost += len(serial) - index
            raise AssertionError(f"the pass ended before batch {index} of {len(serial)}") from None
        tally.check(what(got), what(wanted), f"batch {index} of epoch {serial.epoch}")
        yield got
    assert next(iterator, None) is None, "a batch more than there are"


@contextlib.contextmanager
def both(sequence: Callable[[], Any], nb_workers: int, **options: Any) -> Iterator[tuple[Any, Any]]:
    """The same by workers and serially. Of two Sequences, because a Sequence knows its epoch."""
    with (
        sequence().prefetch(nb_workers=0) as serial,
        sequence().prefetch(nb_workers, max_retries=MANY, **options) as batches,
    ):
        yield batches, serial


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """No process, thread or descriptor more than before, but for the server that stays for the next pool."""

    def there() -> tuple[int, int, int]:
        gc.collect()
        server_handle.end_idle()
        own = psutil.Process()
        return len(own.children(recursive=True)), threading.active_count(), own.num_fds()

    before = there()
    yield
    wait_for(lambda: all(now <= then for now, then in zip(there(), before, strict=True)))


class Killer:
    """Kills workers at random, but not so that they never get to start: the engine gives that up, and rightly.

    3 deaths per worker before it can take a job, without a start that succeeds in between, are the end. Here it is at
    most 2 until a batch comes of a process that had sent none. At the first of these deaths all workers but one may
    have been ready without having sent any, so there are less than 2 per worker in a row.
    """

    def __init__(self, seed: int, tally: Tally) -> None:
        self._random = random.Random(seed)
        self._tally = tally
        self._seen: set[int] = set()  # process ids that have sent a batch
        self._killed: set[int] = set()
        self._num_early = 0

    def saw(self, batch: Any) -> None:
        if batch[0] not in self._seen:
            self._seen.add(batch[0])
            self._num_early = 0

    def kill_one(self) -> None:
        """Kill a worker, unless there is none that may be."""
        living = [process for process in worker_processes() if process.pid not in self._killed]
        if living:
            self._kill(self._random.choice(living))

    def kill_server(self) -> None:
        for process in servers():
            self._kill(process)

    def _kill(self, process: psutil.Process) -> None:
        if process.pid not in self._seen:
            if self._num_early >= 2:
                return
            self._num_early += 1
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            self._killed.add(process.pid)
            self._tally.faults += 1


# -- the loads


def kills(size: int, seed: int, tally: Tally | None = None, minutes: float = 10.0, nb_workers: int = 3) -> Tally:
    """``size`` kills -9 of random workers at random moments, or as many as there are in ``minutes``."""
    tally = tally or Tally()
    killer = Killer(seed, tally)
    pause, until = random.Random(seed), time.monotonic() + minutes * 60
    is_over = threading.Event()

    def kill_again_and_again() -> None:
        # In a thread, so that it does not happen between two batches only. Mostly short pauses: two kills may meet.
        try:
            while tally.faults < size and time.monotonic() < until and not is_over.wait(pause.expovariate(1 / 0.05)):
                killer.kill_one()
        finally:
            is_over.set()

    thread = threading.Thread(target=kill_again_and_again)
    with both(lambda: Batches(50, seed, doze_s=0.01), nb_workers, max_queue_size=10) as (batches, serial):
        thread.start()
        try:
            while not is_over.is_set():
                for batch in compare(batches, serial, tally, digest):
                    killer.saw(batch)
        finally:
            is_over.set()
            thread.join()
        for _ in compare(batches, serial, tally, digest):  # and one epoch in peace
            pass
    return tally


def new_shapes(
    size: int, seed: int, tally: Tally | None = None, minutes: float = 10.0, nb_workers: int = 3, length: int = 1000
) -> Tally:
    """``size`` batches of ever new shapes, keys and numbers of parts, or as many as come in ``minutes``; workers are
    killed all the time. Memory is flat."""
    tally, held = tally or Tally(), []
    killer, pause, until = Killer(seed, tally), random.Random(seed), time.monotonic() + minutes * 60
    is_over = threading.Event()

    def kill_now_and_then() -> None:
        while not is_over.wait(pause.expovariate(1 / 0.5)):
            killer.kill_one()

    def told(batch: Any) -> bytes:
        return hashlib.blake2b(exactly(batch[1:]).encode(), digest_size=16).digest()

    thread = threading.Thread(target=kill_now_and_then)
    with both(lambda: Shapes(length, seed), nb_workers) as (batches, serial):
        thread.start()
        try:
            while tally.delivered < size and time.monotonic() < until:
                for batch in compare(batches, serial, tally, told):
                    killer.saw(batch)
                held.append(_own())
        finally:
            is_over.set()
            thread.join()
    third = len(held) // 3  # the first one is warming up; one moment says little, with workers that come and go
    if third:
        middle, last = held[third : 2 * third], held[2 * third :]
        grown = {
            name: statistics.median(each[name] for each in last) - statistics.median(each[name] for each in middle)
            for name in held[0]
        }
        tally.note = f"{grown['MB']:+.1f} MB, {grown['descriptors']:+.0f} descriptors"
        assert grown["MB"] <= ALLOWANCE_MB, tally.note
        assert grown["descriptors"] <= nb_workers, tally.note
    return tally


def _own() -> dict[str, float]:
    """What this process holds. What its workers hold goes with them when they are killed."""
    own = psutil.Process()
    return {"MB": own.memory_info().rss / 2**20, "descriptors": own.num_fds()}


#: MB that parent, server and workers together may grow in between. Slots hold 64 KB, there are at most 10 at a time,
#: each mapped twice; what else there is comes from the allocator, which is given more than it was seen to need.
ALLOWANCE_MB = 16.0


def _held() -> dict[str, float]:
    """What all processes together hold."""
    processes = [psutil.Process(), *servers(), *worker_processes()]
    return {
        "MB": sum(process.memory_info().rss for process in processes) / 2**20,
        "descriptors": sum(process.num_fds() for process in processes),
        "threads": sum(process.num_threads() for process in processes),
    }


def epochs(size: int, seed: int, tally: Tally | None = None) -> Tally:
    """``size`` epochs, every fifth left by break: memory is flat, descriptors and threads are constant."""
    tally, length, held = tally or Tally(), 25, []
    chance = random.Random(seed)
    with Even(length, seed).prefetch(2, max_queue_size=8) as batches:
        for epoch in range(size):
            stop = chance.randrange(length) if epoch % 5 == 4 else length - 1
            iterator = iter(batches)
            for index in range(stop + 1):
                batch = next(iterator)
                is_right = batch.min() == batch.max() == (epoch << 20) + index
                tally.check((len(batch), bool(is_right)), (8192, True), f"batch {index} of epoch {epoch}")
            if stop == length - 1:
                assert next(iterator, None) is None, "a batch more than there are"
            # At rest all jobs ahead are done: it is the same moment each time.
            wait_for(lambda: not batches.has_background_jobs())
            held.append(_held())
    half = size // 2  # what is grown in the second half is no warming up
    grown = {name: max(each[name] for each in held[half:]) - held[half][name] for name in held[0]}
    tally.note = f"{grown['MB']:+.1f} MB, {grown['descriptors']:+} descriptors, {grown['threads']:+} threads"
    assert grown["MB"] <= ALLOWANCE_MB, tally.note
    assert (grown["descriptors"], grown["threads"]) == (0, 0), tally.note
    return tally


def keeping(size: int, seed: int, tally: Tally | None = None) -> Tally:
    """``size`` batches of which random ones, or parts, are kept and dropped in random order: none is overwritten."""
    tally, chance = tally or Tally(), random.Random(seed)
    kept: list[tuple[Any, bytes]] = []
    num_kept = 0

    def drop_one() -> None:
        part, before = kept.pop(chance.randrange(len(kept)))
        assert digest(part) == before, "a batch that was kept has been overwritten"

    with both(lambda: Batches(100, seed), 2) as (batches, serial):
        while tally.delivered < size:
            for batch in compare(batches, serial, tally, digest):
                if chance.random() < 0.7:
                    part = _part_of(batch[1]["x"], chance)
                    kept.append((part, digest(part)))
                    num_kept += 1
                for _ in range(chance.randrange(3) if len(kept) < 100 else 50):
                    if kept:
                        drop_one()
    while kept:  # they outlive the workers
        drop_one()
    tally.note = f"{num_kept:,} kept"
    return tally


def _part_of(x: Any, chance: random.Random) -> Any:
    """All of it, or a view of a part, or all of it with bytes of the consumer's own."""
    how = chance.randrange(3)
    if how == 0:
        return x[chance.randrange(len(x)) :: 2]
    if how == 1:
        x[:] = chance.random()
    return x


def many_workers(size: int, seed: int, tally: Tally | None = None, num_batches: int = 150) -> Tally:
    """``size`` workers, two epochs: in order, and nothing is left of them."""
    tally = tally or Tally()
    with nothing_left(), both(lambda: Batches(num_batches, seed), size) as (batches, serial):
        for _ in range(2):
            for _ in compare(batches, serial, tally, digest):
                pass
        assert len(wait_for(lambda: len(worker_processes()) == size and worker_processes())) == size
    return tally


def tiny(size: int, seed: int, tally: Tally | None = None) -> Tally:
    """``size`` batches of 24 bytes."""
    tally = tally or Tally()
    length = min(size, 10_000)
    with both(lambda: Tiny(length, seed), 2) as (batches, serial):
        while tally.delivered < size:
            for _ in compare(batches, serial, tally, lambda batch: batch.tobytes()):
                pass
    return tally


def walk(size: int, seed: int, tally: Tally | None = None) -> Tally:
    """``size`` random steps: next, break, close, state_dict, load_state_dict, a kill."""
    walker = Walker(seed, tally or Tally())
    try:
        for number in range(size):
            walker.step(number)
    except Exception as error:
        raise AssertionError(f"after the steps {list(walker.trace)}: {error!r}") from error
    finally:
        walker.close()
    return walker.tally


class Walker:
    """Does something to a front-end, and knows which batch must come next: (epoch, index)."""

    LENGTH = 12

    def __init__(self, seed: int, tally: Tally) -> None:
        self.tally = tally
        self.trace: collections.deque[str] = collections.deque(maxlen=40)
        self._seed = seed
        self._random = random.Random(seed)
        self._killer = Killer(seed, tally)  # with random numbers of its own: whom it finds is chance
        self._serial = Batches(self.LENGTH, seed).prefetch(nb_workers=0)
        self._wanted: dict[int, list[bytes]] = {}  # {epoch: what its batches are}
        self._saved: list[tuple[str, int, int]] = []  # (state, epoch, index)
        self._sequence = Batches(self.LENGTH, seed, doze_s=0.002)
        self._epoch = self._index = 0
        self._is_begun = self._is_in_pass = False  # something of the epoch was read; next() needs no iter() before
        self._open()

    def step(self, number: int) -> None:
        ways = [self._next, self._break, self._close, self._save, self._load, self._kill]
        way = self._random.choices(ways, [12, 2, 1, 3, 2, 3])[0]
        self.trace.append(f"{number}: {way.__name__.strip('_')} at {self._epoch}, {self._index}")
        way()

    def close(self) -> None:
        self._serial.close()
        self._batches.close()

    def _open(self) -> None:
        nb_workers, bound = self._random.choice((0, 1, 2, 3)), self._random.choice((None, 1, 2, 7, 30))
        self.trace.append(f"{nb_workers} workers, max_queue_size {bound}")
        self._batches = self._sequence.prefetch(nb_workers, max_queue_size=bound, max_retries=MANY)
        self._killer = Killer(self._random.randrange(1 << 32), self.tally)  # it counts for these workers
        self._is_in_pass = False

    def _wanted_at(self, epoch: int, index: int) -> bytes:
        if epoch not in self._wanted:
            self._serial.epoch = epoch
            self._wanted[epoch] = list(map(digest, self._serial))
        return self._wanted[epoch][index]

    def _next(self) -> None:
        for _ in range(self._random.randint(1, self.LENGTH)):
            self._next_one()

    def _next_one(self) -> None:
        if not self._is_in_pass:
            self._break()
        if self._index == self.LENGTH:
            assert next(self._batches, None) is None, "a batch more than there are"
            self._epoch, self._index, self._is_begun, self._is_in_pass = self._epoch + 1, 0, False, False
            return
        batch = next(self._batches, None)
        assert batch is not None, "the pass ended too early"
        self.tally.check(digest(batch), self._wanted_at(self._epoch, self._index), (self._epoch, self._index))
        self._killer.saw(batch)
        self._index += 1
        self._is_begun = True

    def _break(self) -> None:
        iter(self._batches)
        if self._is_begun:
            self._epoch, self._index, self._is_begun = self._epoch + 1, 0, False
        self._is_in_pass = True

    def _state(self) -> tuple[str, int, int]:
        state = json.dumps(self._batches.state_dict())
        return (state, self._epoch + 1, 0) if self._index == self.LENGTH else (state, self._epoch, self._index)

    def _save(self) -> None:
        self._saved = [*self._saved[-7:], self._state()]

    def _load(self) -> None:
        if self._saved:
            self._load_one(self._random.choice(self._saved))

    def _load_one(self, saved: tuple[str, int, int]) -> None:
        state, self._epoch, self._index = saved
        self._batches.load_state_dict(json.loads(state))
        # What comes next is of the state, with an iter() or without.
        self._is_begun, self._is_in_pass = False, True

    def _close(self) -> None:
        """And go on: with a new front-end of the same Sequence, which begins where that stands, or with the state."""
        state = self._state()
        self._batches.close()
        how = self._random.random()
        if how < 0.5:
            self._sequence = Batches(self.LENGTH, self._seed, doze_s=0.002)
        self._open()
        if how < 0.8:
            self._load_one(state)
        else:
            self._epoch, self._index, self._is_begun = 0, 0, False

    def _kill(self) -> None:
        if self._random.random() < 0.1:
            self._killer.kill_server()
        else:
            for _ in range(self._random.randint(1, 2)):
                self._killer.kill_one()


def model(size: int, seed: int, tally: Tally | None = None) -> Tally:
    """``size`` pipelines drawn at random, and steps of their loops, compared with the model."""
    from machine import SHARES, hold

    tally = tally or Tally()
    for machine, share in SHARES.items():
        for number in range(0, round(size * share), 250):  # some at a time, so that it is seen to go on
            machine.tally = tally
            hold(machine, min(250, round(size * share) - number), seed + number)
    return tally
