"""Chooses how many workers pay off, by a model of the loop that is corrected by what the loop is measured to do.

For each batch, the loop waits ``wait`` seconds until the batch arrives, and spends ``step`` seconds on its own work.
Without workers, a batch comes every ``step + job`` seconds. With ``n`` workers, it should come every

    max(step + _OVERHEAD_S, job / n, (cpu + _OVERHEAD_S) / cores)

seconds, where ``cpu`` is the CPU time of step and job together, and ``job`` is without the time that a job waits for a
core. How far a number of workers falls short of that is its *efficiency*, which is measured while that many run, and
forgotten slowly. So two numbers are compared for one job and one step, those of now, even if they were measured at
different times.

A number whose efficiency is unknown is believed to do what the formula says, and is tried if this would be better. If
the formula does not say what holds the present number up, twice as many are tried. Each trial ends with a measurement.
What was no better is tried again after a while, which is longer each time, and longer if a trial costs more; and at
once if the job, the step, the cores or the speed of the loop have changed by more than a quarter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from workers.report import units

from .loop_sampler import Sample

_OVERHEAD_S = 30e-6  # what a batch from a worker costs the loop and the engine: measured with batches of 4 KB
_MEMORY_S = 0.5  # how long a measurement counts; a change is known after about twice as long
_MORE = 0.04  # share by which a number must be faster to be better; less is noise
_CHANGED = 1.25  # times as long: the job or the step is another one
_RETRY_S = 2.0  # until what was no better is tried again for the first time; a trial takes a quarter of that
_START_S = 0.3  # that workers must save in all to be started, as their start takes as long
_PATIENCE_S = 6.0  # for which fewer workers must have been enough before they are tried: it saves no time
_FOR_EACH_CORE = 4  # most workers per core; jobs that wait for files or the network need more workers than cores


class Choice(NamedTuple):
    """A chosen number of workers and the reason for it, e.g. Choice(6, "a job takes 21 ms, ...")."""

    nb_workers: int
    why: str


class _Batch(NamedTuple):
    """What a batch takes, in seconds."""

    job: float  # as long as it takes without workers
    step: float
    cpu: float  # CPU time of both
    job_cpu: float  # share of the job's time in which it has or wants a core

    def differs(self, other: _Batch) -> bool:
        """Return True if job or step is more than a quarter longer in one of both, unless it hardly matters."""
        least = (_CHANGED - 1) * max(self.job + self.step, other.job + other.step)
        pairs = (self.job, other.job), (self.step, other.step)
        is_other = any(max(pair) > max(least, _CHANGED * min(pair)) for pair in pairs)
        return is_other or abs(self.job_cpu - other.job_cpu) > _CHANGED - 1

    def mixed(self, other: _Batch, weight: float) -> _Batch:
        return _Batch(*(one + weight * (another - one) for one, another in zip(self, other, strict=True)))


class _Level:
    """What is known of a number of workers.

    Attributes:
        speed: its efficiency: the interval by the formula, divided by the measured one.
        job_ratio, step_ratio: how many times as long job and step take as without workers, which leave them more cores.
        until: the time of the loop up to which this is believed.
        retry_s: for how long it is believed if it was no better than what ran before.
    """

    def __init__(self) -> None:
        self.speed = self.job_ratio = self.step_ratio = 1.0
        self.until = -math.inf
        self.retry_s = _RETRY_S


class Chooser:
    """The policy that chooses the number of workers of a loop with ``nb_workers="auto"``: see the module's docstring.

    Args:
        cores: how many cores this process may use.
        least: the minimum number of workers; with 0, the loop may go on without workers.
        fits: a function that returns how many of a given number of workers fit into memory. A call is slow.
    """

    def __init__(self, cores: int, least: int, fits: Callable[[int], int] = int) -> None:
        self._least, self._fits = least, fits
        self.choice = Choice(0, "")  # the latest
        self._cores = self._most = 0
        self._now = 0.0  # seconds of the loop so far
        self._since = 0.0  # since when the present number of workers is measured
        self._is_new = True  # the next sample does not count: jobs open files and import modules, workers start
        self._is_first = True  # the sample after that is the first one of this number
        self._is_in_doubt = False  # the first one was worse than expected
        self._has_started = least > 0
        self._levels: dict[int, _Level] = {}
        self._most_that_fit = 0  # into memory, when that was last asked
        self._fit_until, self._ask_again_s = -math.inf, _RETRY_S  # until when this is believed, and for how long
        self._batch: _Batch | None = None  # now, on average
        self._unlike: _Batch | None = None  # the latest one, if it differs from the average
        self._reference: tuple[_Batch, float] | None = None  # (a batch, the speed) since when all levels are believed
        self._from: int | None = None  # the number of workers before a trial
        self._enough_since = 0.0  # since when fewer workers would have been enough
        self.have(cores)

    @property
    def nb_workers(self) -> int:
        """The number of workers that was chosen last."""
        return self.choice.nb_workers

    def have(self, cores: int, most: int | None = None) -> None:
        """Set the number of cores, and limit the workers to ``most``; None stands for a multiple of the cores."""
        most = max(self._least, _FOR_EACH_CORE * cores if most is None else most)
        if (cores, most) != (self._cores, self._most):
            self._cores, self._most = cores, most
            self._forget()

    def add(self, sample: Sample, left: float) -> Choice | None:
        """Add a sample of the loop with the number of workers that was chosen. Return the next choice; None for no
        change. The more batches are ``left`` in this pass, the more time workers can save, and so make up for their
        start."""
        self._now += sample.seconds
        if self._is_new:
            self._is_new, self._is_first, self._since = False, True, self._now
            return None
        self._learn(sample)
        now = self.nb_workers
        best = self._best()
        if best >= now:
            self._enough_since = self._now
        if self._from is not None:
            return self._end_trial(sample, best)
        if best == now or self._unlike is not None or not self._is_sure(sample, best, left):
            return None
        return self._changed(sample, best)

    # -- what is known

    def _learn(self, sample: Sample) -> None:
        now = self.nb_workers
        level = self._levels.setdefault(now, _Level())
        weight = 1 - math.exp(-sample.seconds / _MEMORY_S)
        known = self._batch
        if self._is_first and now and known is not None:
            # If the workers never wait, what has changed with their number is due to it; what changes later is not.
            never_wait = now * sample.interval < (1 + _MORE) * sample.job
            level.job_ratio = _ratio(sample.job, known.job, now) if never_wait else 1.0
            level.step_ratio = _ratio(sample.step, known.step, now) if never_wait else 1.0
        job, step = sample.job / level.job_ratio, sample.step / level.step_ratio
        batch = _Batch(job, step, sample.cpu + (job * sample.job_cpu if now else 0.0), sample.job_cpu)
        self._unlike, before = None, self._unlike
        if known is None:
            known = batch
        elif not batch.differs(known):
            known = known.mixed(batch, weight)
        elif before is not None and not before.differs(batch):
            known = before.mixed(batch, 0.5)  # twice the same: it has changed
        else:
            self._unlike = batch
        self._batch = known
        speed = self._ideal(now, batch) / max(sample.interval, 1e-9)
        level.speed += (1.0 if self._is_first else weight) * (speed - level.speed)
        level.until = math.inf
        if self._reference is None:
            self._reference = known, level.speed
        elif self._is_first:
            self._reference = self._reference[0], level.speed
        of_batch, of_speed = self._reference
        if known.differs(of_batch) or max(of_speed, level.speed) > _CHANGED * min(of_speed, level.speed):
            self._forget()
        self._is_first = False

    def _is_known(self, nb_workers: int) -> bool:
        level = self._levels.get(nb_workers)
        return level is not None and self._now < level.until

    def _forget(self) -> None:
        """Forget all that is known of other numbers of workers than the present one, as the conditions are new."""
        self._reference = None
        for number, level in self._levels.items():
            if number != self.nb_workers:
                level.until, level.retry_s = -math.inf, _RETRY_S

    def _ideal(self, nb_workers: int, batch: _Batch | None = None) -> float:
        """Return how often, in seconds, a batch should come."""
        batch = batch or self._batch
        assert batch is not None
        if not nb_workers:
            return batch.step + batch.job
        return max(batch.step + _OVERHEAD_S, batch.job / nb_workers, (batch.cpu + _OVERHEAD_S) / self._cores)

    def _expected(self, nb_workers: int) -> float:
        """Return how often a batch comes, in seconds, as far as is known. An unknown number is expected to be good."""
        ideal = self._ideal(nb_workers)
        if self._is_known(nb_workers):
            return ideal / max(self._levels[nb_workers].speed, 1e-9)
        if not nb_workers:
            return ideal
        now = self.nb_workers
        known = [each for each in self._levels if self._is_known(each) and each != now]
        if not now:  # workers are not good for this loop
            speeds = [self._levels[each].speed for each in known]
            return ideal / max(min(speeds, default=1.0), 1e-9)
        of_now = self._expected(now) if self._is_known(now) else 0.0
        # A number is no better than those between it and the present one.
        least = [self._expected(each) for each in known if min(now, nb_workers) < each < max(now, nb_workers)]
        if nb_workers < now:
            return max(ideal, of_now, *least)  # fewer may do as much, but not more
        # More are no better if others have shown that the number does not matter.
        others = (self._expected(each) for each in known if not now < each < nb_workers)
        if any(interval <= (1 + _MORE) * of_now for interval in others):
            least.append(of_now)
        return max([ideal, *least])

    # -- what to do

    def _candidates(self) -> Iterable[int]:
        assert self._batch is not None
        most = self._most_that_fit if self._now < self._fit_until else self._most
        most = min(most, math.ceil(self._cores / min(max(self._batch.job_cpu, 1 / _FOR_EACH_CORE), 0.5)))
        return range(self._least, max(1, self._least, most, self.nb_workers) + 1)

    def _best(self) -> int:
        """Return the fewest workers that should be about as fast as any other number."""
        expected = {each: self._expected(each) for each in self._candidates()}
        least = min(expected.values())
        now = expected.get(self.nb_workers, math.inf)
        if self.nb_workers and now <= (1 + _MORE) * least:  # no number is better, but fewer may do
            least = now
        return next(each for each, interval in expected.items() if interval <= (1 + _MORE / 2) * least)

    def _is_sure(self, sample: Sample, best: int, left: float) -> bool:
        """Return True if the present number was measured for long enough to go over to ``best``."""
        now = self.nb_workers
        looked = self._now - self._since
        gain = 1 - self._expected(best) / self._expected(now)
        if best < now and gain < _MORE:  # it saves workers, not time
            return self._now - self._enough_since >= _PATIENCE_S
        if not now and not self._has_started:
            coming = max(left * sample.interval, self._now)  # a loop that has run for long will probably go on for long
            if gain * coming < _START_S:
                return False
        return gain >= _MORE and looked >= 0.1 * _START_S / gain  # the less it saves, the surer it must be

    def _changed(self, sample: Sample, best: int) -> Choice | None:
        """Begin the trial of the ``best`` number, or of as many workers as fit into memory."""
        now = self.nb_workers
        if now < best < 2 * now and self._ideal(best) > (1 - _MORE) * self._ideal(now):
            # What holds it up is not in the formula, e.g. that some jobs take longer. One more would hardly show.
            best = min(2 * now, max(self._candidates()))
        best = self._that_fit(best)
        if best == now:
            return None
        self._from = now
        self._levels[now].until = self._now + self._levels[now].retry_s
        return self._choose(
            best,
            f"a job takes {units.seconds(sample.job)}, and the loop needs {units.seconds(sample.step)} between two "
            f"batches: with {units.count(best, 'worker') if best else 'no workers'} a batch should arrive every "
            f"{units.seconds(self._expected(best))}",
        )

    def _end_trial(self, sample: Sample, best: int) -> Choice | None:
        """End the trial of the present number: stay, or go on to the ``best`` one, which may be the one before."""
        now, level, before = self.nb_workers, self._levels[self.nb_workers], self._from or 0
        loss = 1 - self._expected(before) / self._expected(now)
        if best == now > before > 0 and loss > -_MORE:  # it may be better by noise alone
            best = before
        if best == now:
            level.retry_s, self._from = _RETRY_S, None
            return None
        if not self._is_in_doubt:  # new workers import modules and open files: measure once more
            self._is_in_doubt = self._is_first = True
            return None
        self._from = None
        self._reject(level, max(0.0, loss))
        best = self._that_fit(best)
        if best == now:
            return None
        delivered = f"{units.count(now, 'worker')} delivered" if now else "the loop alone computed"
        others = units.count(best, "worker") if best else "the loop alone"
        return self._choose(
            best,
            f"{delivered} a batch every {units.seconds(sample.interval)}, and {others} should do so every "
            f"{units.seconds(self._expected(best))}",
        )

    def _that_fit(self, nb_workers: int) -> int:
        """Return ``nb_workers``, or as many as fit into memory if these are fewer, but no fewer than run now."""
        if nb_workers <= self.nb_workers:
            return nb_workers
        fit = max(self._fits(nb_workers), self.nb_workers, 1)
        if fit < nb_workers:
            self._most_that_fit = fit
            self._ask_again_s = _RETRY_S if fit > self.nb_workers else 2 * self._ask_again_s
            self._fit_until = self._now + self._ask_again_s
        return fit

    def _reject(self, level: _Level, loss: float) -> None:
        """Believe what is known of a number for a while, the longer the more a trial costs: the share ``loss`` of the
        time. The while grows each time."""
        level.until = self._now + (1 + 10 * loss) * level.retry_s
        level.retry_s *= 2 if loss > _MORE else _CHANGED

    def _choose(self, nb_workers: int, why: str) -> Choice:
        self._has_started |= nb_workers > 0
        self._is_new, self._is_in_doubt = True, False
        self.choice = Choice(nb_workers, why)
        return self.choice


def _ratio(there: float, here: float, nb_workers: int) -> float:
    """Return how many times as long something takes with workers. So many workers share what one can have alone."""
    return min(max(there / max(here, 1e-9), 1.0), 1.0 + nb_workers)
