"""The rate at which a plain ``for`` loop gets batches of 4 KB to 64 MB from us and from other loaders.

Isolated: the way of a batch from a worker to the loop. A job fills an array with its index, a fresh one or one of
``workers.empty``; the queue has its default length.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import command, core, jobs
from benchmarks.core import Numbers, Record, Round, Settings, Target, Way
from benchmarks.loaders import ENDLESS, check, throughput
from benchmarks.peers import LOADERS, Loader

SIZES = {f"{4 * 4**step} KB" if step < 4 else f"{4 ** (step - 4)} MB": 4096 * 4**step for step in range(8)}
_NUMPY_PEERS = ("pool", "torch", "grain")
_PEERS = ("pool", "torch", "torch_tensors", "grain")
_STEADY = 1000  # batches during which segments are counted


def _measure(nbytes: int, is_empty: bool, loader: Loader, settings: Settings) -> Numbers:
    loader.load()
    make = functools.partial(jobs.Sized, nbytes=nbytes, is_empty=is_empty)
    numbers = throughput(make, loader, settings)
    if loader.key == "process":
        numbers["segments_made"] = _segments(make(ENDLESS), settings)
    return numbers


def _segments(job: jobs.Job, settings: Settings) -> int:
    """Return how many shared memory segments ``_STEADY`` batches create, after a loop of ``settings.seconds``."""
    import workers

    with workers.prefetch(job, settings.num_workers) as batches:
        assert batches._live.pool is not None
        counts: Any = batches._live.pool.engine.figures
        loop, steady_at = iter(batches), time.perf_counter() + settings.seconds
        last, before = ENDLESS, 0
        for index in range(ENDLESS):
            check(job, next(loop), index)
            if last == ENDLESS and time.perf_counter() > steady_at:
                last, before = index + _STEADY, counts.segments_made
            if index == last:
                break
        return int(counts.segments_made) - before


def _job(label: str, nbytes: int) -> core.Job:
    rows = {"serial": ("serial", False), "fresh": ("process", False), "empty": ("process", True)}
    rows |= {"thread": ("thread", False), **{key: (key, False) for key in _PEERS}}
    named = {"fresh": "workers.prefetch, fresh array", "empty": "workers.prefetch, workers.empty"}
    ways = {}
    for key, (of, is_empty) in rows.items():
        loader = LOADERS[of]
        packages = tuple(name.split(".")[0] for name in loader.packages)
        ways[key] = Way(named.get(key, loader.label), functools.partial(_measure, nbytes, is_empty, loader), packages)
    return core.Job(label, ways)


JOBS = {label.replace(" ", ""): _job(label, nbytes) for label, nbytes in SIZES.items()}
NAMES = {"batches_per_s": "batches/s", "times_serial": "x serial", "segments_made": "segments made for 1,000"}


def _of_best(job: str) -> Callable[[Round], float]:
    return lambda r: r(job, "fresh", "times_serial") / r.best(job, _NUMPY_PEERS, "times_serial")


def _empty(job: str) -> Callable[[Round], float]:
    return lambda r: r(job, "empty", "batches_per_s") / r(job, "fresh", "batches_per_s")


def _made(job: str) -> Callable[[Round], float]:
    return lambda r: max(r(job, "fresh", "segments_made"), r(job, "empty", "segments_made"))


_BOUNDS = {"64KB": 6.0, "256KB": 16.0, "1MB": 14.0, "4MB": 10.0}
TARGETS = (
    *[Target(f"{job}, x the best peer with numpy", _of_best(job), ">=", bound) for job, bound in _BOUNDS.items()],
    *[
        Target(f"{job}, workers.empty, x fresh", _empty(job), ">=", 1.0 if job.endswith("KB") else 1.3)
        for job in list(JOBS)[2:]
    ],
    *[Target(f"{job}, segments made for 1,000 batches", _made(job), "<=", 0) for job in list(JOBS)[1:]],
)


def draw(facts: dict[str, Any], records: list[Record], to: Path) -> None:
    """Draw the batches a second over the size, both logarithmic, a line for each way."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 6), layout="constrained")
    ours = {"fresh": "#c44e52", "empty": "#8c1c1c", "thread": "#e0a0a0"}
    for way in dict.fromkeys(record.way for record in records):
        points: dict[str, list[float]] = {}
        for record in records:
            if record.way == way and record.numbers:
                points.setdefault(record.job, []).append(record.numbers["batches_per_s"])
        if points:
            sizes = [SIZES[JOBS[job].label] for job in points]
            label = JOBS[next(iter(points))].ways[way].label
            style = {"color": ours[way], "linewidth": 2.5} if way in ours else {"linestyle": "--", "linewidth": 1.2}
            axis.loglog(sizes, [statistics.median(rates) for rates in points.values()], "o-", label=label, **style)
    axis.set_xticks(list(SIZES.values()), list(SIZES))
    axis.minorticks_off()
    axis.set_xlabel("size of a batch")
    axis.set_ylabel("batches a second")
    axis.set_title(f"{facts['cores']} cores, {facts['workers']} workers")
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(to, dpi=110)


SUITE = core.Suite(__file__, JOBS, NAMES, TARGETS, "batches_per_s", draw=draw)

if __name__ == "__main__":
    command.main(SUITE, command.parser_of(SUITE, __doc__, seconds=2.0, deadline_s=120.0))
