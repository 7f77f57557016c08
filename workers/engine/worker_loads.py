"""Records, as a part of the schedule, which jobs each worker was sent, and which one the worker was last seen running.

A ticket is a batch's number in the order of delivery. A sending is the number under which a job was sent to a worker.
"""

from __future__ import annotations

from collections.abc import Iterable

#: A worker that starts none of its jobs for this long is suspended, or still starting. Other workers take its jobs.
UNBEGUN_NS = 1_000_000_000
#: A worker that finishes no job is checked when the pool has meanwhile finished this many jobs per worker.
_PASSED_BY = 2


class WorkerLoad:
    """The jobs that one worker was sent and has not finished, and what it was last seen doing."""

    __slots__ = (
        *("finished_at", "is_ready", "is_retired", "is_stuck", "is_wasted", "jobs", "running"),
        *("since_ns", "unbegun_since_ns"),
    )

    def __init__(self) -> None:
        self.jobs: dict[int, int] = {}  # {sending: ticket}, in the order sent, e.g. {17: 4, 18: 5}
        self.is_ready = False
        self.running = 0  # the sending of the job that it was last seen running; 0: none
        self.since_ns = 0
        self.unbegun_since_ns = 0  # since when it was seen to start none of its jobs; 0: it starts them
        self.is_wasted = False  # it may still be in a job that is no longer needed
        self.is_stuck = False  # its waiting jobs were given to others; it gets no more until it finishes one
        self.is_retired = False  # it gets no more jobs, and is dismissed when it has finished those it has
        self.finished_at = 0  # the pool's num_finished when it last finished a job, or had none

    def waiting(self) -> dict[int, int]:
        """Return the jobs that the worker was not seen running, as {number under which a job was sent: its ticket}."""
        return {sending: ticket for sending, ticket in self.jobs.items() if sending != self.running}

    def is_blocked(self, now_ns: int, stuck_ns: int) -> bool:
        """Return True if the worker starts no waiting job: it is suspended, or has been in one job for ``stuck_ns``."""
        is_stuck = self.running and now_ns - self.since_ns >= stuck_ns
        is_stopped = self.unbegun_since_ns and now_ns - self.unbegun_since_ns >= UNBEGUN_NS
        return bool(is_stuck or is_stopped)


class WorkerLoads:
    """The jobs that were sent to the workers of a pool and are not finished.

    A worker that has been in one job for ``stuck_ns`` counts as stuck, because its other jobs wait for this one.
    """

    def __init__(self, stuck_ns: int) -> None:
        self._stuck_ns = stuck_ns
        self.by_worker: dict[int, WorkerLoad] = {}  # {worker: its load}; the id of a worker is never used again
        self.num_out = 0  # tickets that are with a worker
        self.num_finished = 0  # jobs, by all workers
        #: {worker: sending}: the worker may skip its jobs up to this sending. The engine clears this dict.
        self.cancelled: dict[int, int] = {}
        self._sending = 0  # the last number used
        self._helpers: list[int] = []  # workers that may take the waiting jobs of stuck ones

    def send(self, load: WorkerLoad, ticket: int) -> int:
        """Record that the job with this ``ticket`` goes to a worker. Return the number under which it is sent."""
        self._sending += 1
        self.num_out += 1
        if not load.jobs:
            load.finished_at = self.num_finished
        load.jobs[self._sending] = ticket
        return self._sending

    def take_back(self, worker: int, sending: int) -> int | None:
        """Record that a worker has finished or skipped the job sent under the number ``sending``.
        Return the job's ticket; None if the job was revoked, or moved to another worker."""
        load = self.by_worker[worker]
        load.is_wasted = load.is_stuck = False
        load.unbegun_since_ns = 0
        self.num_finished += 1
        load.finished_at = self.num_finished
        ticket = load.jobs.pop(sending, None)
        self.num_out -= ticket is not None
        return ticket

    def lose(self, worker: int) -> dict[int, int]:
        """Remove a worker that has ended. Return its jobs, as {number under which a job was sent: its ticket}."""
        jobs = self.by_worker.pop(worker).jobs
        self.num_out -= len(jobs)
        return jobs

    def ticket(self, worker: int, sending: int) -> int | None:
        """Return the ticket of the job sent to a worker under the number ``sending``; None if it has no such job."""
        return self.by_worker[worker].jobs.get(sending)

    def revoke(self) -> None:
        """Cancel all jobs that are with workers."""
        for worker, load in self.by_worker.items():
            if load.jobs:
                load.is_wasted = True
                self.cancelled[worker] = max(load.jobs)
            load.jobs.clear()
        self.num_out = 0

    def saw(self, worker: int, running: int, since_ns: int, now_ns: int = 0) -> None:
        """Record that a worker was seen in the job sent as ``running``, begun at ``since_ns``; both are 0 if none."""
        load = self.by_worker[worker]
        load.running, load.since_ns = running, since_ns
        if running in load.jobs or (running and load.is_wasted):  # otherwise it is in no job, or in one just reported
            load.unbegun_since_ns = 0
        elif load.jobs and not load.unbegun_since_ns:
            load.unbegun_since_ns = now_ns

    def unbegun_ns(self, worker: int, now_ns: int) -> int:
        """Return for how many ns a worker has started none of its jobs; 0 if it starts them, or is not ready yet."""
        load = self.by_worker[worker]
        return now_ns - load.unbegun_since_ns if load.unbegun_since_ns and load.is_ready else 0

    def by_load(self) -> list[tuple[int, WorkerLoad]]:
        """Return the workers that may get jobs, as [(worker, its load)], those with the fewest jobs first."""
        staying = [each for each in self.by_worker.items() if not each[1].is_retired]
        return sorted(staying, key=lambda each: (each[1].is_wasted, len(each[1].jobs)))

    def any_idle(self) -> bool:
        return any(not (load.jobs or load.is_retired) for load in self.by_worker.values())

    def any_ready(self) -> bool:
        return any(load.is_ready and not load.is_retired for load in self.by_worker.values())

    def retire(self, workers: Iterable[int]) -> None:
        """Give no more jobs to these ``workers``. All others may get jobs, even if they were retired before."""
        chosen = set(workers)
        for worker, load in self.by_worker.items():
            load.is_retired = worker in chosen

    def retire_also(self, worker: int) -> None:
        """Give no more jobs to ``worker`` either; do nothing if it is gone."""
        if worker in self.by_worker:
            self.by_worker[worker].is_retired = True

    def may_go(self) -> list[int]:
        """Return the retired workers that have finished all their jobs, even the jobs that are no longer needed."""
        idle = [worker for worker, load in self.by_worker.items() if not (load.jobs or load.is_wasted)]
        return [worker for worker in idle if self.by_worker[worker].is_retired]

    def ready_workers(self) -> list[int]:
        """Return the ids of the workers that have loaded their replica (their copy of the sequence)."""
        return [worker for worker, load in self.by_worker.items() if load.is_ready]

    def may_relieve(self) -> bool:
        """Return True if the workers should be checked soon, because one of them may be stuck.
        Either a worker is idle while jobs wait with another, or one finished no job while the others finished many."""
        loads = self.by_worker.values()
        others = self.num_finished - _PASSED_BY * len(loads)
        if any(len(each.jobs) > 1 and each.finished_at < others for each in loads):
            return True
        return any(not each.jobs and each.is_ready and not each.is_retired for each in loads) and any(
            len(each.jobs) > (0 if each.is_wasted else 1) or (each.jobs and each.unbegun_since_ns) for each in loads
        )

    def to_relieve(self, now_ns: int, bundle: int) -> dict[int, int]:
        """Return blocked workers that others can help, as {worker: number under which its last waiting job was sent}.

        Args:
            bundle: a worker with at most this many jobs may help a blocked one.
        """
        loads = self.by_worker
        blocked = [worker for worker, load in loads.items() if load.is_blocked(now_ns, self._stuck_ns)]
        self._helpers = [
            worker
            for worker, load in self.by_load()
            if load.is_ready and len(load.jobs) <= bundle and not (load.is_stuck or worker in blocked)
        ]
        found = {worker: max(waiting) for worker in blocked if (waiting := loads[worker].waiting())}
        return dict(list(found.items())[: len(self._helpers)])

    def relieve(self, blocked: Iterable[int]) -> list[tuple[int, list[int]]]:
        """Take the waiting jobs from ``blocked`` workers, and choose the workers that are to run them instead.

        Returns:
            [(worker that takes jobs, the tickets of these jobs)].
        """
        relieved: list[tuple[int, list[int]]] = []
        for worker, helper in zip(blocked, self._helpers, strict=False):
            load = self.by_worker[worker]
            waiting = load.waiting()
            for sending in waiting:
                del load.jobs[sending]
            self.num_out -= len(waiting)
            load.is_stuck = bool(load.running)  # a suspended worker has no job to finish first
            if waiting:
                relieved.append((helper, list(waiting.values())))
        return relieved
