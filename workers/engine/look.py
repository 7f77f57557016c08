"""What a loop is measured to do between two looks at it, for the ``chooser``."""

from __future__ import annotations

import time

from workers.figures.loop import Totals
from workers.figures.pool import Figures

from .chooser import Sample

_FEWEST = 4  # batches between two looks at workers
_ROUNDS = 2  # jobs of each worker
_LEAST_NS = 50_000_000


class Look:
    """What the loop has done since it was looked at last."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self.begin()

    def begin(self) -> None:
        """Look from here on."""
        pool = self._figures.pool
        self._totals: Totals = self._figures.loop.totals()
        self._before = pool.num_jobs, sum(lane.busy_ns for lane in pool.lanes.values()), pool.cores, pool.cores_of_ns
        self._before_nbytes, self._cpu_ns = pool.nbytes, time.process_time_ns()

    def sample(self, nb_workers: int) -> Sample | None:
        """What has come since, by so many workers. None: not enough yet."""
        pool, since = self._figures.pool, self._figures.loop.totals().since(self._totals)
        number = since.num_batches
        num_jobs, busy_ns, cores, cores_of_ns = self._before
        if not number:
            return None
        if nb_workers and (
            number < _FEWEST
            or pool.num_jobs - num_jobs < _ROUNDS * nb_workers
            or since.wait_ns + since.step_ns < _LEAST_NS
        ):
            return None
        jobs, nbytes = pool.num_jobs - num_jobs, pool.nbytes - self._before_nbytes
        busy_ns = sum(lane.busy_ns for lane in pool.lanes.values()) - busy_ns
        of_ns = pool.cores_of_ns - cores_of_ns
        wait, step = since.wait_ns / number / 1e9, since.step_ns / number / 1e9
        sample = Sample(
            number,
            wait,
            step,
            (busy_ns / 1e9 / jobs if jobs else 0.0) if nb_workers else wait,
            (time.process_time_ns() - self._cpu_ns) / number / 1e9,
            sum(pool.cores.since(cores)) / of_ns if of_ns else 1.0,
            nbytes / jobs if jobs and nb_workers else pool.last_nbytes,
        )
        self.begin()
        return sample
