"""The rate at which a plain ``for`` loop gets its batches from ``workers.prefetch`` and from other loaders.

Isolated: the cost of computing a batch in another process and getting it from there. The jobs need no data, and the
consumer only checks which batch it got. A loader that loses, repeats or swaps batches gets no score.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks import command, core, jobs
from benchmarks.core import Numbers, Round, Settings, Target, Way
from benchmarks.peers import LOADERS, Epoch, Loader, serial

ENDLESS = 1_000_000  # batches: more than any loader delivers while it is measured
MANY_WORKERS = 4  # in the job "memory"


def check(job: jobs.Job, batch: Any, index: int) -> None:
    got = job.index_in(batch)
    if got != index:
        raise RuntimeError(f"batch {got} came in the place of batch {index}")


def rate(job: jobs.Job, epoch: Epoch, seconds: float) -> float:
    """Return the batches a second, after a warm-up of memory, caches and processes."""
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
    """Measure the loader, and the plain loop just before and after, because the speed of a shared machine drifts."""
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
    """Return the total rate of plain loops in as many processes, which deliver nothing: the limit of the machine."""
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
    """Return the seconds that the consumer waited for each batch of an epoch, for the first one from ``start`` on."""
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
    """Measure the time from opening a loader to its first batch, and the waits for batches of later epochs."""
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
    """Measure the CPU time of one ``next()`` in the consumer's thread, and in its whole process."""
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
            batch = next(batches)  # this also releases the one before
            costs.append(time.thread_time() - start)
            check(job, batch, 15 + len(costs))
        process = time.process_time() - process_start
    return {"thread_us": 1e6 * statistics.mean(costs), "process_us": 1e6 * process / len(costs)}


def memory(make: Callable[[int], jobs.Job], loader: Loader, settings: Settings) -> Numbers:
    """Measure the memory of the processes once each of ``MANY_WORKERS`` has read its share of a large array."""
    from benchmarks.processes import megabytes_of_processes

    job = make(256)
    with loader.open(job, MANY_WORKERS) as epoch:
        batches = epoch()
        for index in range(200):  # not all, because some loaders end their processes with the epoch
            check(job, next(batches), index)
        return megabytes_of_processes(os.getpid(), jobs.HELD_NBYTES)


CEILING = Loader("separate", "as many separate loops, nothing delivered", serial)
ALL_LOADERS = {**LOADERS, CEILING.key: CEILING}

_OURS = ("process", "thread", "zero")
_PEERS = ("pool", "torch", "torch_tensors", "grain", "keras")
_PROCESSES = ("process", *_PEERS)

Take = Callable[[Callable[[int], jobs.Job], Loader, Settings], Numbers]


def _measure(take: Take, make: Callable[[int], jobs.Job], loader: Loader, settings: Settings) -> Numbers:
    loader.load()
    return take(make, loader, settings)


def _job(label: str, make: Callable[[int], jobs.Job], take: Take, keys: Iterable[str]) -> core.Job:
    ways = {}
    for loader in (ALL_LOADERS[key] for key in keys):
        packages = tuple(name.split(".")[0] for name in loader.packages)
        ways[loader.key] = Way(loader.label, functools.partial(_measure, take, make, loader), packages)
    return core.Job(label, ways)


BUSY_MS = 0.2, 1.0, 5.0, 20.0, 100.0
_BUSY_WAYS = "serial", "process", "pool", "torch", "separate"
JOBS = {
    "cpu_heavy": _job("CPU-heavy, 0.4 MB", jobs.CpuHeavy, throughput, ("serial", *_OURS, *_PEERS, "separate")),
    "large": _job("38.5 MB, fresh array", jobs.Large, throughput, ("serial", *_OURS, *_PEERS, "separate")),
    "large_empty": _job("38.5 MB, workers.empty", jobs.LargeEmpty, throughput, ("serial", *_OURS)),
    "tiny": _job("4 KB", jobs.Tiny, throughput, ("serial", *_OURS, "pool", "pool_chunks", *_PEERS[1:])),
    **{
        f"busy_{ms:g}": _job(f"{ms:g} ms of Python", functools.partial(jobs.Busy, ms=ms), throughput, _BUSY_WAYS)
        for ms in BUSY_MS
    },
    "first_batch": _job("CPU-heavy, from a standing start", jobs.CpuHeavy, first_batch, (*_OURS, *_PEERS)),
    "first_batch_tiny": _job("4 KB, from a standing start", jobs.Tiny, first_batch, (*_OURS, *_PEERS)),
    "consumer_cost": _job("38.5 MB", jobs.Large, consumer_cost, _PROCESSES),
    "consumer_cost_quarter": _job("9.6 MB", jobs.Quarter, consumer_cost, _PROCESSES),
    "memory": _job(f"400 MB held, {MANY_WORKERS} workers", jobs.Holding, memory, _PROCESSES),
}

NAMES = {
    "batches_per_s": "batches/s",
    "times_serial": "x serial",
    "first_s": "first batch, s",
    "later_first_ms": "first of a later epoch, ms",
    "other_median_ms": "others: median, ms",
    "other_longest_ms": "others: longest, ms",
    "thread_us": "consumer's thread, us a batch",
    "process_us": "consumer's process, us a batch",
    "processes": "processes",
    "workers_uss_mb": "private to them, MB",
    "all_mb": "all, with the consumer, MB",
    "arrays_in_shared_memory": "in shared memory, times",
}


def _times(job: str, way: str = "process") -> Callable[[Round], float]:
    return lambda r: r(job, way, "times_serial")


def _of_separate(job: str) -> Callable[[Round], float]:
    return lambda r: _times(job)(r) / _times(job, "separate")(r)


TARGETS = (
    Target("CPU-heavy, of workers x serial", lambda r: _times("cpu_heavy")(r) / r.num_workers, ">=", 0.95),
    Target(
        "CPU-heavy, of as many separate loops",
        _of_separate("cpu_heavy"),
        ">=",
        0.96,
    ),
    *[
        Target(f"{ms:g} ms, of as many separate loops", _of_separate(f"busy_{ms:g}"), ">=", 0.96)
        for ms in BUSY_MS
        if ms >= 1
    ],
    Target("38.5 MB, fresh array, x serial", _times("large"), ">=", 1.5),
    Target(
        "38.5 MB, fresh array, x the best process-based peer",
        lambda r: _times("large")(r) / r.best("large", _PEERS, "times_serial"),
        ">=",
        3,
    ),
    Target("38.5 MB, workers.empty, x serial", _times("large_empty"), ">=", 4),
    Target("4 KB, x Pool.imap", lambda r: _times("tiny")(r) / _times("tiny", "pool")(r), ">=", 4),
    Target("first batch of 4 KB, s", lambda r: r("first_batch_tiny", "process", "first_s"), "<=", 0.3),
    Target(
        "CPU-heavy, first batch of a later epoch, of the longest other wait",
        lambda r: r("first_batch", "process", "later_first_ms") / r("first_batch", "process", "other_longest_ms"),
        "<=",
        1,
    ),
    Target("consumer's thread for 38.5 MB, us", lambda r: r("consumer_cost", "process", "thread_us"), "<=", 100),
    Target(
        "consumer's thread for 38.5 MB, of that for 9.6 MB",
        lambda r: r("consumer_cost", "process", "thread_us") / r("consumer_cost_quarter", "process", "thread_us"),
        "<=",
        1.5,
    ),
    Target(
        "private memory of all workers, 400 MB held, MB", lambda r: r("memory", "process", "workers_uss_mb"), "<=", 160
    ),
    Target(
        "the 400 MB in shared memory, times",
        lambda r: r("memory", "process", "arrays_in_shared_memory"),
        "<=",
        1.2,
    ),
)

SUITE = core.Suite(__file__, JOBS, NAMES, TARGETS, "times_serial", lambda way: way in _OURS)

if __name__ == "__main__":
    command.main(SUITE, command.parser_of(SUITE, __doc__, seconds=2.0, deadline_s=60.0))
