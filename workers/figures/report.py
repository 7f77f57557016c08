"""What a front-end has to say of how it went: a table, and a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from . import units
from .timeline import Timeline


class Spread(NamedTuple):
    """Many durations, in seconds."""

    count: int = 0  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    total: float = 0.0
    median: float = 0.0
    p99: float = 0.0


class WorkerFigures(NamedTuple):
    """One lane: a worker, and those that came in its place."""

    number: int
    pid: int | None  # None: a thread, or none runs now
    num_jobs: int
    busy: float  # share of the time in jobs, 0 to 1
    restarts: int
    cpu: float | None  # share of one core since it started; None: not known
    nbytes: int | None  # its own memory (USS)


class Slow(NamedTuple):
    """One of the jobs that took longest."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    seconds: float


class EpochStart(NamedTuple):
    """What the start of an epoch has cost."""

    epoch: int
    seconds: float  # before its first batch could be asked for
    wait: float  # seconds, for that batch
    why: str  # e.g. "the sequence had changed: 12 MB were sent to the workers"


@dataclasses.dataclass(frozen=True)
class Report:
    """How the loops over a front-end went, since it was made.

    Attributes:
        seconds: of the loops, from their first batch asked for to the last one had.
        num_batches, nbytes: delivered.
        wait: of the loop for each batch.
        step: of the loop between two batches.
        job: of a job, in its worker.
        stages: {stage: of each job}, see ``timeline.STAGES``.
        depth: finished batches when the loop asked for one, on average.
        bound: how many batches may be ahead of the loop now.
        workers: one for each worker.
        slowest: the jobs that took longest, the slowest first.
        segments_made: pieces of shared memory.
        starts: of the last epochs.
        nb_workers: that the pool has now.
        cores: that this process may use.
        executor: ``"process"``, ``"thread"`` or ``"serial"``.
        choices: what ``nb_workers="auto"`` did, and why.
        verdict: in words, whether the loop waits for data, and what would help.
        timeline: what happened when, lately.
    """

    seconds: float
    num_batches: int
    nbytes: int
    wait: Spread
    step: Spread
    job: Spread
    stages: dict[str, Spread]
    depth: float
    bound: int
    workers: list[WorkerFigures]
    slowest: list[Slow]
    segments_made: int
    starts: list[EpochStart]
    nb_workers: int
    cores: int
    executor: str
    choices: list[str]
    verdict: str
    timeline: Timeline

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        rate = self.num_batches / max(self.seconds, 1e-9)
        yield self.verdict
        yield ""
        yield _row("batches", f"{self.num_batches:,} in {units.seconds(self.seconds)}", f"{rate:,.4g} a second")
        if self.nbytes:
            speed = units.nbytes(self.nbytes / max(self.seconds, 1e-9))
            yield _row("bytes", units.nbytes(self.nbytes), f"{speed} a second")
        yield _row("queue", f"{self.depth:.1f} ready on average", f"at most {self.bound:,} ahead")
        yield _row("workers", f"{self.nb_workers} ({self.executor})", f"{self.cores} cores")
        yield _row("shared memory", f"{units.count(self.segments_made, 'piece')} made")
        yield ""
        yield _row("", "median", "p99", "in all", "share")
        for name, spread in (("wait", self.wait), ("step", self.step)):
            yield self._spread(name, spread, self.wait.total + self.step.total)
        yield self._spread("job", self.job, self.job.total)
        in_stages = sum(spread.total for spread in self.stages.values())
        for name, spread in self.stages.items():
            yield self._spread(f"  {name}", spread, in_stages)
        if self.workers:
            yield ""
            yield _row("worker", "busy", "jobs", "restarts", "CPU", "memory")
        for worker in self.workers:
            cpu = "" if worker.cpu is None else units.share(worker.cpu)
            memory = "" if worker.nbytes is None else units.nbytes(worker.nbytes)
            name = f"{worker.number}" + (f" ({worker.pid})" if worker.pid else "")
            yield _row(name, units.share(worker.busy), f"{worker.num_jobs:,}", str(worker.restarts), cpu, memory)
        yield from self._lists()

    def _spread(self, name: str, spread: Spread, total: float) -> str:
        each = (spread.median, spread.p99, spread.total)
        return _row(name, *map(units.seconds, each), units.share(spread.total / max(total, 1e-9)))

    def _lists(self) -> Iterator[str]:
        if self.slowest:
            some = (f"{slow.epoch}/{slow.index} {units.seconds(slow.seconds)}" for slow in self.slowest)
            yield ""
            yield f"slowest (epoch/index): {', '.join(some)}"
        for start in self.starts[-3:]:
            why = f": {start.why}" if start.why else ""
            cost = f"{units.seconds(start.seconds)}, first batch after {units.seconds(start.wait)}"
            yield f"start of epoch {start.epoch}: {cost}{why}"
        for choice in self.choices:
            yield f"chosen: {choice}"


def _row(name: str, *cells: str) -> str:
    return f"{name:<18}" + "".join(f"{cell:<24}" if len(cells) < 4 else f"{cell:>10}" for cell in cells).rstrip()
