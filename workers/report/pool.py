"""How the workers fare: what each has done, which jobs took long, and what has befallen them."""

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
    """A worker, and those that came in its place."""

    pid: int | None = None
    state: State = "starting"
    num_jobs: int = 0
    busy_ns: int = 0
    starts: int = 0
    rests: int = 0  # starts after it was ended for want of work
    since_ns: int = 0  # when its worker was ready
    alive_ns: int = 0  # of those before, from when they were ready

    @property
    def restarts(self) -> int:
        """How often one came in the place of one that died."""
        return max(0, self.starts - 1 - self.rests)

    def ready_ns(self, until_ns: int) -> int:
        """For how long it could have been in jobs."""
        return self.alive_ns + (max(0, until_ns - self.since_ns) if self.state == "ready" else 0)


class PoolFigures:
    """Written by the engine's thread, or by the loop where there is none; read by any."""

    def __init__(self) -> None:
        self.segments_made = 0  # pieces of shared memory for batches
        self.segments_given_up = 0
        self.num_jobs = 0
        self.nbytes = 0  # of batches that workers have finished
        self.last_nbytes = 0  # of one that was finished here
        self.lanes: dict[int, Lane] = {}
        self.jobs = Durations()
        self.stages: dict[str, Durations] = {}
        self.spans: deque[Span] = deque(maxlen=_KEPT)
        self.incidents: deque[Incident] = deque(maxlen=_KEPT_INCIDENTS)
        self.slowest: list[tuple[int, int, int]] = []  # a heap of (ns, epoch, index)
        self.cores = CoreUse(0, 0)  # what jobs have had
        self.cores_of_ns = 0  # in this time of theirs
        self.lock_looks = self.lock_free = 0  # of the interpreter, while jobs ran in workers
        self.bound = 0

    # -- the workers

    def started(self, number: int, pid: int | None = None) -> None:
        """Worker ``number`` is started, or started again."""
        lane = self.lanes.setdefault(number, Lane())
        lane.pid, lane.state, lane.starts = pid, "starting", lane.starts + 1
        self.tell(number, "started")

    def ready(self, number: int) -> None:
        """It has loaded what it works on."""
        lane = self.lanes[number]
        lane.state, lane.since_ns = "ready", time.monotonic_ns()
        self.tell(number, "ready")

    def ended(self, number: int, how: str = "") -> None:
        """It is no more. ``how``: it has died; "": it was not needed."""
        lane = self.lanes[number]
        lane.alive_ns = lane.ready_ns(time.monotonic_ns())
        lane.pid, lane.state = None, "ended"
        lane.rests += not how
        self.tell(number, "died" if how else "ended", how)

    def tell(self, number: int, kind: str, text: str = "") -> None:
        """Something that is no job has happened."""
        self.incidents.append(Incident(time.monotonic_ns(), number, kind, text))

    # -- the jobs

    def finished(self, number: int, times_ns: list[int]) -> None:
        """Worker ``number`` has finished jobs, which took these times."""
        busy_ns = sum(times_ns)
        lane = self.lanes[number]
        lane.num_jobs += len(times_ns)
        lane.busy_ns += busy_ns
        self.num_jobs += len(times_ns)
        self.jobs.note_all(times_ns)
        self.jobs.tidy()

    def finished_here(self, job_ns: int, cores: CoreUse, nbytes: int) -> None:
        """The loop's own process has finished a job, whose batch has ``nbytes``."""
        self.num_jobs += 1
        self.last_nbytes = nbytes
        self.jobs.note(job_ns)
        self.used(cores, job_ns)

    def looked_at_lock(self, looks: int, free: int) -> None:
        """So often the interpreter's lock was looked at while a job ran, and was free."""
        self.lock_looks += looks
        self.lock_free += free

    def used(self, cores: CoreUse, of_ns: int) -> None:
        """What jobs have had of the cores in ``of_ns`` of theirs."""
        self.cores = CoreUse(self.cores.had + cores.had, self.cores.wanted + cores.wanted)
        self.cores_of_ns += of_ns

    def span(self, number: int, epoch: int, index: int, start_ns: int, job_ns: int, stages: Stages) -> None:
        """One of these jobs, in detail."""
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
    """For as long as the front-end lives, whatever pools it has."""

    def __init__(self) -> None:
        self.loop = LoopFigures()
        self.pool = PoolFigures()
        self.choices: list[str] = []  # what nb_workers="auto" did, and why; the last ones


def usage(pid: int) -> tuple[float | None, int | None]:
    """(its share of one core since it was started, its own memory (USS) in bytes); None: it cannot be looked at."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, since_s = process.cpu_times(), time.time() - process.create_time()
        return (times.user + times.system) / max(since_s, 1e-3), process.memory_full_info().uss
    except (psutil.Error, OSError):
        return None, None
