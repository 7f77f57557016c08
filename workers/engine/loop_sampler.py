"""Measures a running loop and its workers now and then, for the ``chooser`` of ``nb_workers="auto"``."""

from __future__ import annotations

import time
from typing import NamedTuple

from workers.report.loop import Totals
from workers.report.pool import Figures

_ROUNDS = 2  # least number of jobs per worker in a sample with workers; as many of two if there is one
_LEAST_NS = 50_000_000  # least duration of such a sample


class Sample(NamedTuple):
    """The averages per batch over the last ``num_batches`` batches of the loop. Times are in seconds."""

    num_batches: int
    wait: float
    step: float
    job: float  # time of a job in a worker, or in the loop, without the time in which it waited for a core
    cpu: float  # CPU time of this process: of step and job without workers, of the step alone with workers
    job_cpu: float  # share of that time in which the job had a core

    @property
    def interval(self) -> float:
        return self.wait + self.step

    @property
    def seconds(self) -> float:
        return self.interval * self.num_batches


class LoopSampler:
    """A meter of the running loop and its workers. Each :meth:`sample` averages over the time since the last one."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self.begin()

    def begin(self) -> None:
        """Start a new measurement, which ignores everything before this call."""
        pool = self._figures.pool
        self._totals: Totals = self._figures.loop.totals()
        self._before = pool.num_jobs, sum(lane.busy_ns for lane in pool.lanes.values()), pool.cores, pool.cores_of_ns
        self._cpu_ns = time.process_time_ns()

    def sample(self, nb_workers: int) -> Sample | None:
        """Return the averages over the batches since the last sample, and start a new one; None if there are too few.
        The batches were computed by ``nb_workers`` workers, or if it is 0, by the loop itself."""
        pool, since = self._figures.pool, self._figures.loop.totals().since(self._totals)
        number = since.num_batches
        num_jobs, busy_ns, cores, cores_of_ns = self._before
        jobs = pool.num_jobs - num_jobs
        if not number:
            return None
        if nb_workers and (
            min(number, jobs) < _ROUNDS * max(nb_workers, 2) or since.wait_ns + since.step_ns < _LEAST_NS
        ):
            return None
        busy_ns = sum(lane.busy_ns for lane in pool.lanes.values()) - busy_ns
        use, of_ns = pool.cores.since(cores), pool.cores_of_ns - cores_of_ns
        # The use includes the time between jobs, which is most of it if jobs are short: then no wait is subtracted.
        ran_ns = max(of_ns - use.wanted, min(use.had, of_ns), 1)
        wait, step = since.wait_ns / number / 1e9, since.step_ns / number / 1e9
        sample = Sample(
            number,
            wait,
            step,
            (busy_ns / 1e9 / jobs if nb_workers else wait) * (ran_ns / of_ns if of_ns else 1.0),
            (time.process_time_ns() - self._cpu_ns) / number / 1e9,
            use.had / ran_ns if of_ns else 1.0,
        )
        self.begin()
        return sample
