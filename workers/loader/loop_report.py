"""Makes the report on where a loop's time has gone, from the figures that are recorded while the loop runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from workers import limits
from workers.job import context
from workers.job.function_use import FunctionUse, Uses
from workers.job.interpreter_lock import ENOUGH
from workers.report.figures import Tally, figures_between
from workers.report.loop import LoopFigures
from workers.report.pool import Lane, PoolFigures, usage
from workers.report.report import CacheFigures, EpochStart, FunctionFigures, Report, Slow, WorkerFigures
from workers.report.timeline import Incident, Timeline
from workers.report.verdict import FEW_BATCHES, Cost, Facts, verdict
from workers.sequence.base import Sequence
from workers.sequence.derived import parts_of

from .cache_advice import advice_for

if TYPE_CHECKING:
    from .loop import Loop


def report_of(loop: Loop) -> Report:
    """Return the report on where the time of ``loop`` has gone since it was made. Takes a few ms per worker."""
    figures, pool, number = loop.figures.loop.copy(), loop.figures.pool, loop.num_running
    wait, step = figures.spreads
    totals, starts = figures.totals(), figures.starts()
    job = pool.jobs.spread()
    stages = {stage: durations.spread() for stage, durations in pool.stages.copy().items()}
    until_ns = _last_ns(figures, pool)
    workers = [_worker(name, lane, until_ns) for name, lane in sorted(pool.lanes.copy().items())]
    slowest = [Slow(epoch, index, ns / 1e9) for ns, epoch, index in sorted(pool.slowest, reverse=True)]
    nbytes = pool.nbytes
    facts = Facts(
        num_batches=totals.num_batches,
        wait=wait.total,
        step=step.total,
        first_waits=totals.first_wait_ns / 1e9,
        begins=figures.begins,
        num_passes=totals.num_passes,
        why=_why(starts),
        job=job.total / max(job.count, 1),
        median_job=job.median,
        stages={stage: spread.total / max(spread.count, 1) for stage, spread in stages.items()},
        slowest=slowest[0] if slowest else None,
        slow=sum(each.seconds for each in slowest),
        batch_nbytes=nbytes / max(pool.num_jobs, 1),
        nb_workers=number,
        busy=job.total / max(number * (wait.total + step.total - totals.first_wait_ns / 1e9), 1e-9),
        computes=min(1.0, pool.cores.had / pool.cores_of_ns) if pool.cores_of_ns else None,
        queues=min(1.0, pool.cores.wanted / max(pool.cores_of_ns, 1)),
        cores=limits.cores(),
        bound=pool.bound,
        is_bound_given=loop.options.max_queue_size is not None,
        lets_go=pool.lock_free / pool.lock_looks if pool.lock_looks >= ENOUGH else None,
        cache=advice_for(loop, loop.consumer.functions),
        cost=_cost_of(loop.figures.loop),
        is_free=loop.figures.loop.paid is not None,
        reading=figures.reading_ns / 1e9,
        workers_nbytes=sum(worker.nbytes or 0 for worker in workers),
    )
    return Report(
        seconds=wait.total + step.total,
        num_batches=totals.num_batches,
        nbytes=nbytes,
        wait=wait,
        step=step,
        job=job,
        stages=stages,
        depth=totals.num_ready / max(totals.num_batches, 1),
        bound=pool.bound,
        workers=workers,
        slowest=slowest,
        segments_made=pool.segments_made,
        starts=starts,
        nb_workers=number,
        cores=facts.cores,
        executor=(loop.options.executor if loop.pool is None else loop.pool.kind) if number else "serial",
        failures=loop.consumer.failures.all(),
        sources=dict(loop.consumer.sources),
        cache=_cache_of(loop),
        functions=_functions_of(loop.consumer.functions),
        parts=_parts_of(loop.consumer.functions),
        cost=None if facts.cost is None else facts.cost.share,
        choices=loop.figures.choices,
        verdict=verdict(facts),
        figures=figures_between(Tally(), _tally(loop, figures)),
        timeline=Timeline(list(pool.spans), figures.steps(), _incidents(figures, pool), pool.bound),
    )


def tally_of(loop: Loop) -> Tally:
    """Return what ``loop`` has done since it was made. Takes less than a millisecond."""
    return _tally(loop, loop.figures.loop.copy())


def _tally(loop: Loop, figures: LoopFigures) -> Tally:
    pool, consumer = loop.figures.pool, loop.consumer
    return Tally(
        loop=figures.totals(),
        start_s=figures.begins,
        nbytes=pool.nbytes,
        jobs=pool.jobs.sum(),
        stages={stage: durations.sum() for stage, durations in pool.stages.copy().items()},
        failures=consumer.failures.totals(),
        restarts=sum(lane.restarts for lane in pool.lanes.copy().values()),
        cache_hits=consumer.cached.hits,
        cache_misses=consumer.cached.misses,
        nb_workers=loop.num_running,
        bound=pool.bound,
    )


def _incidents(loop: LoopFigures, pool: PoolFigures) -> list[Incident]:
    return sorted([*pool.incidents, *loop.incidents()], key=lambda incident: incident.at_ns)


def _last_ns(loop: LoopFigures, pool: PoolFigures) -> int:
    """Return when the last batch was delivered or the last job ended, whichever is later; now if neither happened yet.

    The result is in monotonic ns. Workers do not count as idle after it, because the loop requested nothing from them.
    """
    span = pool.spans[-1] if pool.spans else None
    last_ns = max(loop.last_ns, span.start_ns + span.job_ns if span else 0)
    return last_ns or time.monotonic_ns()


def _functions_of(uses: Uses) -> dict[str, FunctionFigures]:
    total_ns = max(uses.get("", FunctionUse()).ns, 1)
    return {
        name: FunctionFigures(
            use.ns / use.calls / 1e9,
            min(1.0, use.ns / total_ns),
            use.nbytes / use.calls,
        )
        for name, use in uses.items()
        if name
    }


def _cost_of(figures: LoopFigures) -> Cost | None:
    paid, free = figures.paid or figures, figures if figures.paid is not None else figures.free
    if free is not None:
        paid, free = paid.copy(), free.copy()  # their loops may run in other threads
    if free is None or min(paid.totals().num_batches, free.totals().num_batches) < FEW_BATCHES:
        return None
    return Cost(paid.interval, free.interval)


def _parts_of(uses: Uses) -> dict[str, float]:
    total_ns = max(uses.get("", FunctionUse()).ns, 1)
    found = context.total(each for use in uses.values() for each in use.parts)
    return {part: min(1.0, ns / total_ns) for part, ns in found.items()}


def _cache_of(loop: Loop) -> CacheFigures | None:
    caches = [cache for each in parts_of(loop.sequence) if isinstance(each, Sequence) for cache in each._caches()]
    stores = list({id(each.store): each.store for each in caches if each.store is not None}.values())
    if not caches:
        return None
    use = loop.consumer.cached
    held = sum(each.num_items for each in stores), sum(each.nbytes for each in stores)
    return CacheFigures(*held, use.hits, use.misses, use.miss_ns / max(use.misses, 1) / 1e9)


def _worker(number: int, lane: Lane, until_ns: int) -> WorkerFigures:
    pid = lane.pid
    cpu, nbytes = (None, None) if pid is None else usage(pid)
    busy = min(1.0, lane.busy_ns / max(lane.ready_ns(until_ns), 1))
    return WorkerFigures(number, pid, lane.num_jobs, busy, lane.restarts, cpu, nbytes)


def _why(starts: list[EpochStart]) -> str:
    """Return why the slowest start of an epoch took so long, in words; "" if there is no special reason."""
    return max(starts, key=lambda start: start.seconds + start.wait, default=EpochStart(0, 0.0, 0.0, "")).why
