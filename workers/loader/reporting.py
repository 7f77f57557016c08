"""The report of a front-end: its figures, put together when somebody asks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from workers import limits
from workers.figures.figures import Figures
from workers.figures.loop import LoopFigures
from workers.figures.pool import Lane, PoolFigures
from workers.figures.report import EpochStart, Report, Slow, WorkerFigures
from workers.figures.timeline import Timeline
from workers.figures.usage import usage
from workers.figures.verdict import Facts, verdict

if TYPE_CHECKING:
    from .sequence_map import SequenceMap


class Reports:
    """What a front-end can say of how it goes."""

    _figures: Figures
    _pool: Any
    _num_workers: Any
    executor: Any

    def report(self) -> Report:
        """Where the time has gone since it was made: see :class:`workers.Report`. May be asked for at any time, also
        after :meth:`close`. Takes a few milliseconds for each worker."""
        return _report(self)  # type: ignore[arg-type]

    @property
    def _pool_kind(self) -> str:
        """Of its workers."""
        return str(self.executor if self._pool is None else self._pool.kind)

    @property
    def _num_running(self) -> int:
        """Workers that its jobs are run by now, or will be."""
        return int(self._num_workers() if self._pool is None else self._pool.nb_workers)


def _report(of: SequenceMap) -> Report:
    loop, pool = of._figures.loop.copy(), of._figures.pool
    wait, step = loop.spreads
    totals, starts = loop.totals(), loop.starts()
    job = pool.jobs.spread()
    stages = {stage: durations.spread() for stage, durations in pool.stages.copy().items()}
    until_ns = _last_ns(loop, pool)
    workers = [_worker(number, lane, until_ns) for number, lane in sorted(pool.lanes.copy().items())]
    running = of._num_running
    slowest = [Slow(epoch, index, ns / 1e9) for ns, epoch, index in sorted(pool.slowest, reverse=True)]
    nbytes = pool.nbytes
    facts = Facts(
        num_batches=totals.num_batches,
        wait=wait.total,
        step=step.total,
        first_waits=totals.first_wait_ns / 1e9,
        begins=loop.begins,
        num_passes=totals.num_passes,
        why=_why(starts),
        job=job.total / max(job.count, 1),
        median_job=job.median,
        stages={stage: spread.total / max(spread.count, 1) for stage, spread in stages.items()},
        slowest=slowest[0] if slowest else None,
        slow=sum(each.seconds for each in slowest),
        batch_nbytes=nbytes / max(pool.num_jobs, 1),
        nb_workers=running,
        busy=job.total / max(running * (wait.total + step.total - totals.first_wait_ns / 1e9), 1e-9),
        computes=min(1.0, pool.cores.had / pool.cores_of_ns) if pool.cores_of_ns else None,
        queues=min(1.0, pool.cores.wanted / max(pool.cores_of_ns, 1)),
        cores=limits.cores(),
        bound=pool.bound,
        is_bound_given=of.max_queue_size is not None,
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
        nb_workers=running,
        cores=facts.cores,
        executor=of._pool_kind if running else "serial",
        choices=of._figures.choices,
        verdict=verdict(facts),
        timeline=Timeline(list(pool.spans), loop.steps(), list(pool.incidents), pool.bound),
    )


def _last_ns(loop: LoopFigures, pool: PoolFigures) -> int:
    """When anything has happened last: how long nobody has asked for batches tells nothing of the workers."""
    span = pool.spans[-1] if pool.spans else None
    last_ns = max(loop.last_ns, span.start_ns + span.job_ns if span else 0)
    return last_ns or time.monotonic_ns()


def _worker(number: int, lane: Lane, until_ns: int) -> WorkerFigures:
    pid = lane.pid
    cpu, nbytes = (None, None) if pid is None else usage(pid)
    busy = min(1.0, lane.busy_ns / max(lane.ready_ns(until_ns), 1))
    return WorkerFigures(number, pid, lane.num_jobs, busy, lane.restarts, cpu, nbytes)


def _why(starts: list[EpochStart]) -> str:
    """What the slowest start has taken its time for."""
    return max(starts, key=lambda start: start.seconds + start.wait, default=EpochStart(0, 0.0, 0.0, "")).why
