"""One measurement of one loader on one job, in a process of its own: name in, numbers out.

Each looks at every batch it receives, so that a loader which loses, repeats or swaps batches fails and has no score.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks import jobs
from benchmarks.memory import megabytes_of_processes
from benchmarks.peers import LOADERS, Epoch, Loader, serial

Numbers = dict[str, float]
ENDLESS = 1_000_000  # batches: more than any loader delivers while it is measured
MANY_WORKERS = 4  # in the job "memory"


@dataclass(frozen=True)
class Settings:
    num_workers: int
    seconds: float  # of one timed loop


def check(job: jobs.Job, batch: Any, index: int) -> None:
    got = job.index_in(batch)
    if got != index:
        raise RuntimeError(f"batch {got} came in the place of batch {index}")


def rate(job: jobs.Job, epoch: Epoch, seconds: float) -> float:
    """Batches a second, after those that meet cold memory, caches and processes."""
    batches = epoch()
    index, warm_at = 0, time.perf_counter() + 0.15 * seconds
    while index < 16 or time.perf_counter() < warm_at:
        check(job, next(batches), index)
        index += 1
    first, start = index, time.perf_counter()
    now = start
    while now < start + seconds:
        check(job, next(batches), index)
        index += 1
        now = time.perf_counter()
    return (index - first) / (now - start)


def throughput(make: Callable[[int], jobs.Job], loader: Loader, settings: Settings) -> Numbers:
    """Beside the loader the plain loop, just before and just after: the speed of a shared machine drifts."""
    job = make(ENDLESS)

    def plain() -> float:
        with serial(job, 0) as epoch:
            return rate(job, epoch, settings.seconds / 2)

    before = plain()
    if loader.key == "separate":
        fed = separate(job, settings)
    else:
        with loader.open(job, settings.num_workers) as epoch:
            fed = rate(job, epoch, settings.seconds)
    after = plain()
    return {"batches_per_s": fed, "times_serial": fed / statistics.mean((before, after))}


def _serial_rate(job: jobs.Job, seconds: float, barrier: Any, rates: Any) -> None:
    barrier.wait()
    with serial(job, 0) as epoch:
        rates.put(rate(job, epoch, seconds))


def separate(job: jobs.Job, settings: Settings) -> float:
    """Plain loops in as many processes, that deliver nothing to anybody: what the machine could give at most."""
    barrier = multiprocessing.Barrier(settings.num_workers)
    rates: Any = multiprocessing.SimpleQueue()
    loops = [
        multiprocessing.Process(target=_serial_rate, args=(job, settings.seconds, barrier, rates))
        for _ in range(settings.num_workers)
    ]
    for loop in loops:
        loop.start()
    total: float = sum(rates.get() for _ in loops)
    for loop in loops:
        loop.join()
    return total


def waits(job: jobs.Job, batches: Iterator[Any], start: float) -> list[float]:
    """Seconds that the consumer waited for each batch of a whole epoch, the first since ``start``."""
    seconds = []
    for batch in batches:
        seconds.append(time.perf_counter() - start)
        check(job, batch, len(seconds) - 1)
        del batch
        start = time.perf_counter()
    if len(seconds) != len(job):
        raise RuntimeError(f"an epoch of {len(job)} batches had {len(seconds)}")
    return seconds


def first_batch(make: Callable[[int], jobs.Job], loader: Loader, settings: Settings) -> Numbers:
    """From asking for a loader until its first batch; and whether a later epoch begins with a longer wait."""
    job = make(40)
    start = time.perf_counter()
    with loader.open(job, settings.num_workers) as epoch:
        first = waits(job, epoch(), start)[0]
        later = []
        for _ in range(5):
            start = time.perf_counter()
            later.append(waits(job, epoch(), start))
    return {
        "first_s": first,
        "later_first_ms": 1e3 * max(epoch_waits[0] for epoch_waits in later),
        "other_median_ms": 1e3 * statistics.median(s for epoch_waits in later for s in epoch_waits[1:]),
        "other_longest_ms": 1e3 * max(s for epoch_waits in later for s in epoch_waits[1:]),
    }


def consumer_cost(make: Callable[[int], jobs.Job], loader: Loader, settings: Settings) -> Numbers:
    """CPU time that one ``next()`` takes from the consumer's thread, and from its whole process."""
    job = make(ENDLESS)
    with loader.open(job, settings.num_workers) as epoch:
        batches = epoch()
        for index in range(16):
            batch = next(batches)
            check(job, batch, index)
        costs: list[float] = []
        process_start, stop_at = time.process_time(), time.perf_counter() + settings.seconds
        while time.perf_counter() < stop_at or len(costs) < 8:
            start = time.thread_time()
            batch = next(batches)  # and the one before is let go
            costs.append(time.thread_time() - start)
            check(job, batch, 15 + len(costs))
        process = time.process_time() - process_start
    return {"thread_us": 1e6 * statistics.mean(costs), "process_us": 1e6 * process / len(costs)}


def memory(make: Callable[[int], jobs.Job], loader: Loader, settings: Settings) -> Numbers:
    """What the processes hold once each of ``MANY_WORKERS`` has read its share of a large array."""
    job = make(256)
    with loader.open(job, MANY_WORKERS) as epoch:
        batches = epoch()
        for index in range(200):  # not all, for some loaders end their processes with the epoch
            check(job, next(batches), index)
        return megabytes_of_processes(os.getpid(), jobs.HELD_NBYTES)


@dataclass(frozen=True)
class Measurement:
    """One job as the tables show it."""

    key: str
    label: str
    make: Callable[[int], jobs.Job]
    take: Callable[[Callable[[int], jobs.Job], Loader, Settings], Numbers]
    loaders: tuple[str, ...]


CEILING = Loader("separate", "as many separate loops, nothing delivered", serial)
ALL_LOADERS = {**LOADERS, CEILING.key: CEILING}

_OURS = ("process", "thread", "zero")
_PEERS = ("pool", "torch", "torch_tensors", "grain", "keras")
_PROCESSES = ("process", *_PEERS)

MEASUREMENTS = {
    one.key: one
    for one in (
        Measurement(
            "cpu_heavy", "CPU-heavy, 0.4 MB", jobs.CpuHeavy, throughput, ("serial", *_OURS, *_PEERS, "separate")
        ),
        Measurement("large", "38.5 MB, fresh array", jobs.Large, throughput, ("serial", *_OURS, *_PEERS, "separate")),
        Measurement("large_empty", "38.5 MB, workers.empty", jobs.LargeEmpty, throughput, ("serial", *_OURS)),
        Measurement("tiny", "4 KB", jobs.Tiny, throughput, ("serial", *_OURS, *_PEERS[:1], "pool_chunks", *_PEERS[1:])),
        Measurement("first_batch", "CPU-heavy, from a standing start", jobs.CpuHeavy, first_batch, (*_OURS, *_PEERS)),
        Measurement("first_batch_tiny", "4 KB, from a standing start", jobs.Tiny, first_batch, (*_OURS, *_PEERS)),
        Measurement("consumer_cost", "38.5 MB", jobs.Large, consumer_cost, _PROCESSES),
        Measurement("consumer_cost_quarter", "9.6 MB", jobs.Quarter, consumer_cost, _PROCESSES),
        Measurement("memory", f"400 MB held, {MANY_WORKERS} workers", jobs.Holding, memory, _PROCESSES),
    )
}


def measure(measurement_key: str, loader_key: str, settings: Settings) -> Numbers:
    loader, measurement = ALL_LOADERS[loader_key], MEASUREMENTS[measurement_key]
    loader.load()
    return measurement.take(measurement.make, loader, settings)
