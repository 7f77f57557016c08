"""Records the figures of a pool of workers: the work of each worker, the longest jobs, and incidents."""

from __future__ import annotations

import dataclasses
import heapq
import time
from collections import deque
from typing import Literal

from workers.job.context import Stages
from workers.job.cores import CoreUse

from .durations import Durations
from .loop import LoopFigures
from .timeline import LOOP, Incident, Span

_KEPT = 4096  # spans
_KEPT_INCIDENTS = 512
_SLOWEST = 5

State = Literal["starting", "ready", "ended"]


@dataclasses.dataclass
class Lane:
    """The figures of one worker, together with those of its replacements, which share its number."""

    pid: int | None = None
    state: State = "starting"
    num_jobs: int = 0
    busy_ns: int = 0
    is_dismissed: bool = True  # True if it has not died but was ended, or was never started
    restarts: int = 0  # times a dead worker was replaced
    since_ns: int = 0  # when the current worker became ready
    alive_ns: int = 0  # how long earlier workers were ready

    def ready_ns(self, until_ns: int) -> int:
        """Return for how many ns the worker has been ready to run jobs, up to ``until_ns`` on the monotonic clock."""
        return self.alive_ns + (max(0, until_ns - self.since_ns) if self.state == "ready" else 0)


class PoolFigures:
    """The figures of a pool of workers: counts, durations and incidents, for the report.

    Written by the engine's thread, or by the loop's if there is no engine; read by any thread.
    """

    def __init__(self) -> None:
        self.segments_made = 0  # pieces of shared memory for batches
        self.num_jobs = 0
        self.nbytes = 0  # of the batches that workers have finished
        self.lanes: dict[int, Lane] = {}
        self.jobs = Durations()
        self.stages: dict[str, Durations] = {}
        self.spans: deque[Span] = deque(maxlen=_KEPT)
        self.incidents: deque[Incident] = deque(maxlen=_KEPT_INCIDENTS)
        self.slowest: list[tuple[int, int, int]] = []  # a heap of (ns, epoch, index)
        self.cores = CoreUse(0, 0)  # use of the cores by those jobs for which it was measured
        self.cores_of_ns = 0  # total time of these jobs
        self.lock_looks = self.lock_free = 0  # probes of the interpreter's lock in workers; those that found it free
        self.bound = 0

    # -- the workers

    def started(self, number: int, pid: int | None = None) -> None:
        """Record that worker ``number`` was started or restarted, in process ``pid`` if that is known already."""
        lane = self.lanes.setdefault(number, Lane())
        lane.restarts += not lane.is_dismissed
        lane.pid, lane.state, lane.is_dismissed = pid, "starting", False
        self.tell(number, "started")

    def ready(self, number: int) -> None:
        """Record that worker ``number`` has loaded its copy of the sequence, and can run jobs from now on."""
        lane = self.lanes[number]
        lane.state, lane.since_ns = "ready", time.monotonic_ns()
        self.tell(number, "ready")

    def ended(self, number: int, how: str = "") -> None:
        """Record that worker ``number`` has ended. ``how`` says how it died; "" if it was no longer needed."""
        lane = self.lanes[number]
        lane.alive_ns = lane.ready_ns(time.monotonic_ns())
        lane.pid, lane.state = None, "ended"
        lane.is_dismissed = not how
        self.tell(number, "died" if how else "ended", how)

    def tell(self, number: int, kind: str, text: str = "") -> None:
        """Record an incident of worker ``number``: its ``kind``, e.g. "died", and ``text`` with details."""
        self.incidents.append(Incident(time.monotonic_ns(), number, kind, text))

    # -- the jobs

    def finished(self, number: int, times_ns: list[int]) -> None:
        """Record that worker ``number`` has finished jobs, which took ``times_ns`` nanoseconds each."""
        busy_ns = sum(times_ns)
        lane = self.lanes[number]
        lane.num_jobs += len(times_ns)
        lane.busy_ns += busy_ns
        self.num_jobs += len(times_ns)
        self.jobs.note_all(times_ns)
        self.jobs.tidy()

    def finished_here(self, job_ns: int, cores: CoreUse) -> None:
        """Record a job done in the loop's own process: its duration and its core use."""
        self.num_jobs += 1
        self.jobs.note(job_ns)
        self.used(cores, job_ns)

    def looked_at_lock(self, looks: int, free: int) -> None:
        """Record that the interpreter's lock was probed ``looks`` times during jobs, and was free ``free`` times."""
        self.lock_looks += looks
        self.lock_free += free

    def used(self, cores: CoreUse, of_ns: int) -> None:
        """Record the core use of some jobs; ``of_ns`` is the total duration of these jobs in nanoseconds."""
        self.cores = CoreUse(self.cores.had + cores.had, self.cores.wanted + cores.wanted)
        self.cores_of_ns += of_ns

    def span(self, number: int, epoch: int, index: int, start_ns: int, job_ns: int, stages: Stages) -> None:
        """Record a finished job in detail: its batch, when it started, and how long it and each of its stages took."""
        self.spans.append(Span(number, epoch, index, start_ns, job_ns, stages))
        for stage, ns in stages:
            durations = self.stages.get(stage)
            if durations is None:
                durations = self.stages[stage] = Durations()
            durations.note(ns)
            durations.tidy()
        slow = job_ns, epoch, index
        if len(self.slowest) < _SLOWEST:
            heapq.heappush(self.slowest, slow)
        elif slow > self.slowest[0]:
            heapq.heapreplace(self.slowest, slow)
        if number == LOOP:
            self.jobs.tidy()


class Figures:
    """The figures of a front-end (the object that a ``for`` loop reads) over its lifetime, across all its pools."""

    def __init__(self) -> None:
        self.loop = LoopFigures()
        self.pool = PoolFigures()
        self.choices: list[str] = []  # the last decisions of nb_workers="auto", and why


def usage(pid: int) -> tuple[float | None, int | None]:
    """Return (the share of one core that process ``pid`` has used since its start, its own memory (USS) in bytes).

    Both are None if the process is not accessible.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, since_s = process.cpu_times(), time.time() - process.create_time()
        return (times.user + times.system) / max(since_s, 1e-3), process.memory_full_info().uss
    except (psutil.Error, OSError):
        return None, None
