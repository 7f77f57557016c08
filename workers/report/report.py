"""What a front-end has to say of how it went: a table, and a verdict."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

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
    busy: float  # share of the time in jobs, 0 to 1: from when it was ready until the last batch was finished or had
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
        num_batches: delivered.
        nbytes: of the batches that worker processes have finished, also of those that are ahead of the loop. Batches
            of threads, and those that the loop computes itself, are not moved, and not counted.
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
        from .table import lines

        return "\n".join(lines(self))

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """A picture of the last seconds. ``path``: of a ``.png``, ``.svg`` or ``.pdf``."""
        from .pictures.plot import plot

        return plot(self, path)

    def trace(self, path: str | os.PathLike[str]) -> Path:
        """The timeline for ui.perfetto.dev. ``path``: of a ``.json`` or ``.json.gz``."""
        from .pictures.trace import trace

        return trace(self, path)
