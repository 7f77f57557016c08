"""Chooses how many workers pay off, from measurements of the running loop.

For each batch, the loop waits ``wait`` seconds until the batch arrives, and spends ``step`` seconds on its own work.
Without workers, ``wait`` is the time of the job that computes the batch. With ``n`` workers, a batch can come every

    max(step + _OVERHEAD_S, job / n, (cpu + _OVERHEAD_S) / cores)

seconds, where ``cpu`` is the CPU time of step and job together. This formula predicts whether workers pay off, and how
many. The prediction is then checked by measurements. If additional workers do not make the loop faster, they are
dismissed; if the loop was faster without workers, all are dismissed.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from workers.report import units
from workers.report.loop import Totals
from workers.report.pool import Figures

_OVERHEAD_S = 30e-6  # what a batch from a worker costs the loop and the engine
_WORTH_IT = 0.05  # share of the loop's time that workers must save to be started
_CERTAIN = 0.25  # a gain so large that it is no accident, even if measured only for a moment
_KEPT = 15  # samples without workers that are kept; their median counts, as other programs disturb some of them
_FEWEST = 3  # samples needed for a choice, unless they took _LONG_S in all
_LONG_S = 0.3
_REFUSED = 40  # samples to wait before more workers are tried again, after there was no memory for them
_MORE = 0.03  # share by which more workers must make the loop faster
_START_S = 0.3  # seconds that workers must save in all to be started, as their start takes as long
_LOOK_S = 0.03  # how long the loop is measured before workers are started
_WAITS = 0.02  # share of its time that the loop may wait for batches
_MUCH_LESS = 1.25  # batches come much too slowly from this multiple of the expected interval on
_NEARLY = 0.05  # fraction of a worker that is not worth another worker
_FOR_EACH_CORE = 4  # most workers per core; jobs that wait for files or the network need more workers than cores
_SPARE = 1.2  # a pool shrinks to no less than this multiple of the workers needed


class Sample(NamedTuple):
    """The averages per batch over the last ``num_batches`` batches of the loop. Times are in seconds."""

    num_batches: int
    wait: float
    step: float
    job: float  # time of a job in a worker, or in the loop; 0: none has ended
    cpu: float  # CPU time of this process: of step and job without workers, of the step alone with workers
    job_cpu: float  # share of the job's time in which the job had or wanted a core
    nbytes: float  # size of the batch; 0: unknown

    @property
    def interval(self) -> float:
        return self.wait + self.step


class Choice(NamedTuple):
    """A chosen number of workers and the reason for it, e.g. Choice(6, "a job takes 21 ms, ...")."""

    nb_workers: int
    why: str


class Chooser:
    """The policy that chooses the number of workers of a loop with ``nb_workers="auto"``: see the module's docstring.

    Args:
        cores: how many cores this process may use.
        least: the minimum number of workers; with 0, the loop may go on without workers.
        fits: a function that returns how many of a given number of workers fit into memory. A call is slow.
    """

    def __init__(self, cores: int, least: int, fits: Callable[[int], int] = int) -> None:
        self._cores = self._most = 0
        self._least = least
        self._fits = fits
        self._refused = 0  # samples to wait before more workers are tried
        self.choice = Choice(0, "")  # the latest
        self._is_warm = False
        self._elapsed = 0.0  # seconds of the loop without workers
        self._samples: deque[Sample] = deque(maxlen=_KEPT)  # the latest samples without workers
        self._alone: Sample | None = None  # the median of these samples
        self._is_new = False  # the number of workers has just changed
        self._job_then = 0.0  # job time of the first sample with workers that counts; 0: none yet
        self._before: tuple[int, float] | None = None  # (workers, interval) before a change that may be undone
        self._has_tried_fewer = False
        self._enough = math.inf  # more workers than this did not help
        self.have(cores)
        self._slower_at = 0.0  # time of jobs that were faster in the loop than in workers; 0: none were
        self._is_steady = 0  # consecutive samples that ask for fewer workers

    @property
    def nb_workers(self) -> int:
        """The number of workers that was chosen last."""
        return self.choice.nb_workers

    def have(self, cores: int, most: int | None = None) -> None:
        """Set the number of cores, and limit the workers to ``most``; None stands for a multiple of the cores."""
        most = max(self._least, _FOR_EACH_CORE * cores if most is None else most)
        if (cores, most) != (self._cores, self._most):
            self._cores, self._most, self._enough = cores, most, math.inf

    def without_workers(self, sample: Sample, left: float) -> Choice | None:
        """Add a sample of the loop without workers. Return the choice to start workers if they pay off, else None.
        The more batches are ``left`` in this pass, the more time workers can save, and so make up for their start."""
        self._elapsed += sample.interval * sample.num_batches
        if not self._is_warm:  # the first jobs open files and import modules
            self._is_warm = True
            return None
        self._samples.append(sample)
        sample = self._alone = sorted(self._samples, key=lambda each: each.interval)[(len(self._samples) - 1) // 2]
        looked = sum(each.interval * each.num_batches for each in self._samples)
        if looked < _LOOK_S or (len(self._samples) < _FEWEST and looked < _LONG_S):
            return None
        if sample.job < 1.5 * self._slower_at:
            return None
        workers, interval = self._best(sample)
        gain = 1 - interval / sample.interval
        coming = max(left * sample.interval, self._elapsed)  # a loop that has run for long will probably go on for long
        if gain < _WORTH_IT or gain * coming < _START_S or (gain < _CERTAIN and len(self._samples) < _KEPT):
            return None
        workers, needed = self._fits(workers), workers
        interval = max(interval, sample.job / workers) if workers < needed else interval
        return self._change(
            workers,
            f"a job takes {units.seconds(sample.job)}, and the loop needs {units.seconds(sample.step)} between two "
            f"batches: with {units.count(workers, 'worker')} a batch should arrive every {units.seconds(interval)}",
        )

    def with_workers(self, sample: Sample) -> Choice | None:
        """Add a sample of the loop with workers. Return the choice of more, fewer or no workers; None for no change."""
        if self._is_new:  # the first sample does not count: new workers open files and import modules
            self._is_new = False
            return None
        self._job_then = self._job_then or sample.job
        return (
            self._back(sample)
            or self._alone_again(sample)
            or self._fewer(sample)
            or self._grown(sample)
            or self._shrunk(sample)
        )

    def _back(self, sample: Sample) -> Choice | None:
        """Return the choice to undo the last change if more workers did not help, or fewer were too slow; else None."""
        before, self._before = self._before, None
        if before is None:
            return None
        workers, interval = before
        are_more = workers < self.nb_workers
        if sample.interval < (1 - _MORE if are_more else 1 + _MORE) * interval:
            if not are_more:
                self._enough = self.nb_workers
            return None
        if are_more:
            self._enough = workers
        text = f"{self.nb_workers} delivered a batch every {units.seconds(sample.interval)}, and {workers} one every "
        return self._change(workers, text + units.seconds(interval))

    def _alone_again(self, sample: Sample) -> Choice | None:
        if self._least or self._alone is None:
            return None
        longer = sample.job / self._job_then if self._job_then else 1.0  # jobs may take longer now than at the start
        alone = longer * self._alone.job + sample.step
        if sample.interval < alone or sample.wait < _WAITS * sample.interval:
            return None
        self._slower_at, self._job_then = max(self._alone.job, 1e-9), 0.0
        self._samples.clear()
        return self._change(
            0,
            f"the workers deliver a batch every {units.seconds(sample.interval)}, and the loop alone would compute one "
            f"every {units.seconds(alone)}",
        )

    def _fewer(self, sample: Sample) -> Choice | None:
        """Return the choice of fewer workers if the present ones deliver much less than expected, else None.
        Something else, such as the speed of memory, is then the limit, so fewer workers should deliver as much."""
        alone = self._alone
        if self._has_tried_fewer or alone is None or sample.wait < _WAITS * sample.interval:
            return None
        should = max(sample.step + _OVERHEAD_S, alone.job / self.nb_workers)
        workers = max(1, self._least, math.ceil(1.1 * alone.job / sample.interval))
        if sample.interval < _MUCH_LESS * should or workers >= self.nb_workers:
            return None
        self._has_tried_fewer = True
        before = self.nb_workers, sample.interval
        choice = self._change(
            workers,
            f"{self.nb_workers} deliver a batch every {units.seconds(sample.interval)}, and {workers} should as well",
        )
        self._before = before
        return choice

    def _grown(self, sample: Sample) -> Choice | None:
        if sample.wait < _WAITS * sample.interval:
            return None
        most = int(min(self._enough, self.most_useful(sample.job_cpu)))
        workers = min(most, math.ceil(self._needed(sample) - _NEARLY))
        if workers <= self.nb_workers:
            return None
        self._refused = max(0, self._refused - 1)
        workers = self.nb_workers if self._refused else self._fits(workers)
        if workers <= self.nb_workers:
            self._refused = self._refused or _REFUSED
            return None
        before = self.nb_workers, sample.interval
        waits = units.share(sample.wait / sample.interval)
        choice = self._change(
            workers,
            f"the loop waited {waits} of its time: a job takes {units.seconds(sample.job)}, and the loop "
            f"needs {units.seconds(sample.step)} between two batches",
        )
        self._before = before
        return choice

    def _shrunk(self, sample: Sample) -> Choice | None:
        needed = math.ceil(_SPARE * self._needed(sample) - _NEARLY)
        if sample.wait > _WAITS * sample.interval or needed >= self.nb_workers:
            self._is_steady = 0
            return None
        self._is_steady += 1
        if self._is_steady < 3:
            return None
        workers = max(1, self._least, needed)
        if workers == self.nb_workers:
            return None
        waits = units.share(sample.wait / sample.interval)
        return self._change(workers, f"the loop waited {waits} of its time: {workers} will do")

    def _change(self, nb_workers: int, why: str) -> Choice:
        self._is_new, self._is_steady = True, 0
        self.choice = Choice(nb_workers, why)
        return self.choice

    def _needed(self, sample: Sample) -> float:
        """Return how many workers, not rounded, are needed to deliver batches as fast as the loop can take them."""
        return sample.job / (sample.step + _OVERHEAD_S)

    def _best(self, alone: Sample) -> tuple[int, float]:
        """Return (number of workers to start, expected seconds per batch), from ``alone``, a sample without workers.
        The number is the smallest that should deliver batches nearly as fast as any larger number."""
        least = max(alone.step + _OVERHEAD_S, (alone.cpu + _OVERHEAD_S) / self._cores)
        most = self.most_useful(alone.job_cpu)
        for workers in range(max(1, self._least), most + 1):
            interval = max(least, alone.job / workers)
            if interval <= (1 + _MORE) * max(least, alone.job / most):
                return workers, interval
        return most, max(least, alone.job / most)

    def most_useful(self, job_cpu: float) -> int:
        """Return the largest number of workers for which there are enough cores.
        A job needs a core for the share ``job_cpu`` of its time. If this share is low, workers may outnumber cores."""
        waiting = math.ceil(self._cores / max(job_cpu, 0.1)) if job_cpu < 0.7 else self._cores
        return max(1, min(self._most, waiting))


_FEWEST_BATCHES = 4  # least number of batches in a sample with workers
_ROUNDS = 2  # least number of jobs per worker in such a sample
_LEAST_NS = 50_000_000  # least duration of such a sample


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
        self._before_nbytes, self._cpu_ns = pool.nbytes, time.process_time_ns()

    def sample(self, nb_workers: int) -> Sample | None:
        """Return the averages over the batches since the last sample, and start a new one; None if there are too few.
        The batches were computed by ``nb_workers`` workers, or if it is 0, by the loop itself."""
        pool, since = self._figures.pool, self._figures.loop.totals().since(self._totals)
        number = since.num_batches
        num_jobs, busy_ns, cores, cores_of_ns = self._before
        if not number:
            return None
        if nb_workers and (
            number < _FEWEST_BATCHES
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
