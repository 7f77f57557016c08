"""Defines the report on a front-end (the object that a ``for`` loop reads): figures, and a verdict in words."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from .timeline import Timeline


class Spread(NamedTuple):
    """The distribution of many durations: how many there are, and their sum, median and 99th percentile in seconds."""

    count: int = 0  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    total: float = 0.0
    median: float = 0.0
    p99: float = 0.0


class WorkerFigures(NamedTuple):
    """The figures of one worker in a report, together with those of its replacements."""

    number: int
    pid: int | None  # None if it is a thread or is not running now
    num_jobs: int
    busy: float  # share of time in jobs, 0 to 1, from when it was ready until the last batch was finished or taken
    restarts: int
    cpu: float | None  # share of one core since it started; None if unknown
    nbytes: int | None  # its own memory (USS); None if unknown


class Slow(NamedTuple):
    """One of the slowest jobs in a report: the batch that it computed, and how long it took."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    seconds: float


class FailedSample(NamedTuple):
    """A sample, or a whole batch, that raised an error and was skipped, replaced by another one or tried again.

    Attributes:
        epoch, batch: the batch that it belongs to.
        sample: its index in the sequence that was batched; None if the error is of the whole batch, or of a stream.
        what: ``"skipped"``, ``"redrawn"`` (replaced) or ``"retried"``.
        error: the type and text of the error.
        times: how often this error came.
    """

    epoch: int
    batch: int
    sample: int | None
    what: str
    error: str
    times: int = 0

    def __str__(self) -> str:
        of = f"batch {self.batch}" if self.sample is None else f"sample {self.sample} (batch {self.batch})"
        return f"{of}: {self.error}"


class EpochStart(NamedTuple):
    """The cost of starting one pass of the loop over an epoch."""

    epoch: int
    seconds: float  # until its first batch could be requested
    wait: float  # seconds that the loop then waited for that batch
    why: str  # e.g. "2 workers had to be started"; "" for no special reason


@dataclasses.dataclass(frozen=True)
class FunctionFigures:
    """A function of the chain, in the calls that were measured.

    Attributes:
        seconds: the mean time of a call.
        share: the share of a job that its calls take, 0 to 1.
        nbytes: the mean size of a result.
    """

    seconds: float
    share: float
    nbytes: float


@dataclasses.dataclass(frozen=True)
class CacheFigures:
    """What the caches of a loop hold, and how often the delivered batches used them.

    Attributes:
        num_items: how many items they hold.
        nbytes: the memory, or space on disk, that these take.
        hits: how often an item was found.
        misses: how often an item was not found, and was made.
        miss: the mean time of making such an item, in seconds.
    """

    num_items: int
    nbytes: int
    hits: int
    misses: int
    miss: float


@dataclasses.dataclass(frozen=True)
class Report:
    """A report on all loops over a front-end (the object that a ``for`` loop reads) since the front-end was made.

    Attributes:
        seconds: total duration of the passes, each from its first request for a batch to the delivery of its last one.
        num_batches: number of batches delivered.
        nbytes: bytes of the batches that worker processes have finished, including those still ahead of the loop.
            Batches of threads, and those that the loop computes itself, are not moved and not counted.
        wait: how long the loop waited for each batch.
        step: how long the loop took between two batches.
        job: how long each job (the computation of a batch) took in its worker.
        stages: {stage: how long it took in each job}, see ``timeline.STAGES``.
        depth: mean number of finished batches that waited for the loop when it requested one.
        bound: present maximum number of batches ahead of the loop.
        workers: one entry for each worker.
        slowest: the slowest jobs, the slowest first.
        segments_made: number of pieces of shared memory made for batches.
        starts: the cost of starting each of the last passes over an epoch.
        nb_workers: number of workers that the pool has now.
        cores: number of cores that this process may use.
        executor: ``"process"``, ``"thread"``, ``"ray"`` or, without workers, ``"serial"``.
        failures: samples and batches that raised errors and were skipped, replaced or tried again; the first 1,000.
        sources: {name: how many samples came from this source of a ``workers.mix`` or ``concat``}, if sources have
            names; batches, if sources are batched.
        cache: what the caches of ``.cache()`` hold, and how often they were used; None if there is none.
        functions: {name: how long a call takes}, of the functions of the chain, measured now and then.
        parts: {part: its share of a job, 0 to 1}, such as "read", "decode", "crop" or "resize" of
            ``sampler.load_image``, "stack", and those of :class:`workers.timed`; measured now and then.
        cost: the share of an epoch that the loader costs, 0 to 1; None if no loop over the front-end of
            :meth:`SequenceMap.free` has shown it.
        choices: the last decisions of ``nb_workers="auto"``, and why.
        verdict: whether the loop waits for data, and what would help, in words.
        figures: see :meth:`as_dict`.
        timeline: the most recent jobs, steps and incidents.
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
    failures: list[FailedSample] = dataclasses.field(default_factory=list)
    sources: dict[str, int] = dataclasses.field(default_factory=dict)
    cache: CacheFigures | None = None
    functions: dict[str, FunctionFigures] = dataclasses.field(default_factory=dict)
    parts: dict[str, float] = dataclasses.field(default_factory=dict)
    cost: float | None = None
    figures: dict[str, float] = dataclasses.field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        from .table import lines

        return "\n".join(lines(self))

    def as_dict(self) -> dict[str, float]:
        """Return the figures of the whole loop as numbers by flat names with units, for JSON and for loggers.

        For instance ``{"batches": 300, "wait_share": 0.04, "job_ms": 21.5, "workers": 4, ...}``. The names are those of
        ``batches.figures()``, which has the figures since its last call; ``workers/report/README.rst`` lists them.
        """
        return dict(self.figures)

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draw the last seconds of the loop and its workers into the ``.png``, ``.svg`` or ``.pdf`` file ``path``.

        Returns:
            ``path``.

        Raises:
            TypeError, ValueError, OSError: ``path`` is not a path, has another suffix, or cannot be written.
            ImportError: matplotlib is not installed.
        """
        from .pictures.plot import plot

        return plot(self, path)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one web page: the verdict, all tables, and a timeline that zooms and shows each job.

        The page needs no other file, no network and no server, so it can be sent or kept as it is. Saving it again
        replaces it. It stays below about 1 MB, as only recent jobs and steps are held.

        Args:
            path: the file to write: ``.html``.

        Returns:
            ``path``.

        Raises:
            TypeError, ValueError, OSError: ``path`` is not a path, has another suffix, or cannot be written.

        Example:
            >>> import tempfile
            >>> from workers import SequenceArray
            >>> with SequenceArray({"x": [1, 2, 3]}).prefetch(nb_workers=0) as batches:
            ...     for batch in batches:
            ...         pass
            >>> batches.report().save(f"{tempfile.gettempdir()}/report.html").name
            'report.html'
        """
        from .pictures.web_page import save

        return save(self, path)

    def trace(self, path: str | os.PathLike[str]) -> Path:
        """Write the recent jobs, steps of the loop and incidents into a file for https://ui.perfetto.dev.

        Args:
            path: the file to write: ``.json`` or ``.json.gz``.

        Returns:
            ``path``.

        Raises:
            TypeError, ValueError, OSError: ``path`` is not a path, has another suffix, or cannot be written.
        """
        from .pictures.trace import trace

        return trace(self, path)
