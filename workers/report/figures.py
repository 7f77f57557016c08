"""Names the figures of a loop, with their units, and takes the differences between two readings of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple

from .durations import DurationSum
from .loop import Totals

_NONE: Mapping[str, DurationSum] = {}
_NO_FAILURES: Mapping[str, int] = {}
WHAT_FAILURES = "skipped", "redrawn", "retried"


class Tally(NamedTuple):
    """What a loop has done since it was made, as sums that never shrink; and the present size of its pool."""

    loop: Totals = Totals()
    start_s: float = 0.0  # seconds spent on starting passes
    nbytes: int = 0  # of the batches that worker processes have finished
    jobs: DurationSum = DurationSum()
    stages: Mapping[str, DurationSum] = _NONE  # {stage: its durations in the jobs that were recorded in detail}
    failures: Mapping[str, int] = _NO_FAILURES  # {"skipped": 3}
    restarts: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    nb_workers: int = 0  # now
    bound: int = 0  # now


def figures_between(before: Tally, now: Tally) -> dict[str, float]:
    """Return the figures of what a loop has done between two tallies, by names with units.

    Sums are differences, and averages are those of that time; 0 if there was nothing to average. ``workers`` and
    ``bound`` are those of ``now``.
    """
    loop, jobs = now.loop.since(before.loop), now.jobs.since(before.jobs)
    seconds = (loop.wait_ns + loop.step_ns) / 1e9
    hits, misses = now.cache_hits - before.cache_hits, now.cache_misses - before.cache_misses
    stages = {stage: total.since(before.stages.get(stage, DurationSum())) for stage, total in now.stages.items()}
    return {
        "seconds": seconds,
        "batches": loop.num_batches,
        "batches_per_s": _ratio(loop.num_batches, seconds),
        "bytes": now.nbytes - before.nbytes,
        "wait_s": loop.wait_ns / 1e9,
        "wait_share": _ratio(loop.wait_ns / 1e9, seconds),
        "wait_ms": _ratio(loop.wait_ns / 1e6, loop.num_batches),
        "step_ms": _ratio(loop.step_ns / 1e6, loop.num_batches - loop.num_passes),  # none before a first batch
        "start_s": now.start_s - before.start_s,
        "depth": _ratio(loop.num_ready, loop.num_batches),
        "bound": now.bound,
        "jobs": jobs.number,
        "job_ms": _ratio(jobs.ns / 1e6, jobs.number),
        **{f"stage_{stage}_ms": _ratio(total.ns / 1e6, total.number) for stage, total in stages.items()},
        "workers": now.nb_workers,
        "restarts": now.restarts - before.restarts,
        **{f"failures_{what}": now.failures.get(what, 0) - before.failures.get(what, 0) for what in WHAT_FAILURES},
        "cache_hits": hits,
        "cache_misses": misses,
        "cache_share": _ratio(hits, hits + misses),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


class Meter:
    """Reads the figures of a loop since its last reading. Each reader needs a meter of its own.

    Args:
        before: where the first reading starts; by default when the loop was made.
    """

    def __init__(self, before: Tally = Tally()) -> None:  # noqa: B008  # it cannot be changed
        self._before = before
        self._reading = threading.Lock()  # so that each difference is counted once, and none is negative

    def read(self, tally: Callable[[], Tally]) -> dict[str, float]:
        """Return the figures from the last reading until ``tally()``, which is the start of the next reading."""
        with self._reading:
            now = tally()
            before, self._before = self._before, now
        return figures_between(before, now)
