"""Writes the verdict of a report: whether the loop waits for data, on what, and what would help."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeGuard

from .report import Slow
from .units import count, nbytes, seconds, share

FEW_BATCHES = 8
_WAITS = 0.02  # share of the time that the loop waits; below this, there is nothing to gain
_GOES_ON = 0.1  # later waits above this share of the later time, and of the start-up, are a problem of their own
_IS_SLOW = 10.0  # times the median
_MATTERS = 0.3  # share of the loop's waits
_MOVES = 0.4  # share of a job spent on moving the batch
_LARGE_NBYTES = 1_000_000
_COMPUTES = 0.7  # share of a job's time in which it has or wants a core; below this, it waits for something else
_QUEUES = 0.2  # share of a job's time in which it waits for a core
_SPARE = 0.85  # share of the loop's time in which workers are busy; below this, there are enough workers
_LETS_GO = 0.9  # share of the jobs' time in which the interpreter's lock is free; above this, threads would do
_MUCH_NBYTES = 20_000_000  # of memory; less is not worth mentioning
_WORTH_A_CACHE = 1.2  # times as fast
_MOST_WORKERS = 1000  # more are never recommended


@dataclasses.dataclass(frozen=True)
class CacheAdvice:
    """What ``.cache()`` would do.

    Attributes:
        slowest: the function that takes longest among those whose results are the same in each epoch.
        share: the share of a job that it takes.
        behind: the last one of these functions.
        times: how many times as fast the later epochs would be.
        nbytes: the size of the cache.
    """

    slowest: str
    share: float
    behind: str
    times: float
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a batch takes in all, in seconds, and what it would take if data were free."""

    paid: float
    free: float

    @property
    def share(self) -> float:
        return max(0.0, 1 - self.free / max(self.paid, 1e-9))


@dataclasses.dataclass(frozen=True)
class Facts:
    """The figures of a loop and its workers from which a verdict is made. Times are in seconds."""

    num_batches: int
    wait: float  # total time that the loop waited for batches
    step: float  # total time of the loop between two batches
    first_waits: float  # the part of ``wait`` spent on the first batches of passes
    begins: float  # total time of starting passes, not part of ``wait``
    num_passes: int
    why: str  # why the slowest of these starts was slow; "" if unknown
    job: float  # mean
    median_job: float
    stages: dict[str, float]  # means, e.g. {"get_examples": 0.001, "augmenter": 0.0028}
    slowest: Slow | None
    slow: float  # total of the few slowest jobs
    batch_nbytes: float
    nb_workers: int
    busy: float  # share of the workers' time in jobs, without the waits for first batches
    computes: float | None  # share of the jobs' time in which they had a core; None if unknown
    queues: float  # share of the jobs' time in which they waited for a core
    cores: int
    bound: int
    is_bound_given: bool  # the user has set max_queue_size
    lets_go: float | None = None  # share of the jobs' time in which the interpreter's lock is free; None if unknown
    workers_nbytes: int = 0  # memory of the worker processes
    cache: CacheAdvice | None = None
    cost: Cost | None = None  # None if the loop was not run with free data
    is_free: bool = False  # this loop has free data
    reading: float = 0.0  # the part of ``wait`` in which the loop's process read a source that has only __iter__

    @property
    def later_waits(self) -> float:
        """The part of ``wait``, in seconds, that does not belong to the first batch of a pass over an epoch."""
        return self.wait - self.first_waits


def verdict(facts: Facts) -> str:
    """Return a few sentences on ``facts``: whether the loop waits for data, on what, and what would help."""
    of_free = _of_free(facts.cost)
    if facts.is_free:
        return of_free or "The data are free. Train with the others for as long to see what these cost."
    return _of_waits(facts) + _threads(facts) + (f" {of_free}" if of_free else "")


def _of_free(cost: Cost | None) -> str:
    if cost is None:
        return ""
    return (
        f"The loader costs {share(cost.share)} of an epoch: a batch takes {seconds(cost.paid)}, and would take "
        f"{seconds(cost.free)} if data were free."
    )


def _of_waits(facts: Facts) -> str:
    if facts.num_batches < FEW_BATCHES:
        return f"Too early to say: the loop has had {count(facts.num_batches, 'batch', 'batches')}."
    lost, total = facts.first_waits + facts.begins, facts.wait + facts.begins
    waited = total / max(total + facts.step, 1e-9)
    if waited < _WAITS:
        return f"Not input-bound: the loop waited {share(waited)} of the time; {_would_do(facts)}."
    if lost <= 0.5 * total:
        return f"Input-bound: the loop waited {share(waited)} of the time. {_cause(facts)}"
    later = facts.later_waits / max(facts.later_waits + facts.step, 1e-9)
    if later < _GOES_ON or facts.later_waits < _GOES_ON * lost:
        return _start_up(facts, lost, total, later)
    before = "before the first batch" if facts.num_passes == 1 else "before the first batches of passes"
    return f"Input-bound: besides {seconds(lost)} {before}, the loop waited {share(later)} of the time. {_cause(facts)}"


def _threads(facts: Facts) -> str:
    """Return a sentence that recommends threads, to save memory, if jobs release the interpreter's lock; else ""."""
    if facts.lets_go is None or facts.lets_go < _LETS_GO or facts.workers_nbytes < _MUCH_NBYTES:
        return ""
    processes = count(facts.nb_workers, "process", "processes")
    return (
        f' Jobs release the interpreter\'s lock {share(facts.lets_go)} of the time: executor="thread" would be as '
        f"fast, without the {nbytes(facts.workers_nbytes)} of {processes}, if they draw from current_rng() only."
    )


def needed(facts: Facts) -> float:
    """Return the number of workers, as a fraction such as 2.4, that would keep up with the loop."""
    return facts.job / max(facts.step / facts.num_batches, 1e-9)


def _would_do(facts: Facts) -> str:
    if not facts.nb_workers:
        return "it needs no workers"
    # At most the present number, which suffices: the mean job may include the slow first ones.
    return f"{count(min(facts.nb_workers, max(1, math.ceil(needed(facts)))), 'worker')} would do"


def _start_up(facts: Facts, lost: float, total: float, later: float) -> str:
    is_one = facts.num_passes == 1
    passes = "" if is_one else f"es of {count(facts.num_passes, 'pass', 'passes')}"
    text = f"Start-up: the loop waited {seconds(total)}, {seconds(lost)} of it before the first batch{passes}"
    text += f" ({facts.why})" if facts.why else ""
    if _is_single(facts.slowest, facts.median_job) and facts.slowest.seconds > _MATTERS * lost:
        text += f"; {_told(facts.slowest, facts.median_job)}"
    text += f". After that it waited {share(later)} of the time"
    text += f"; {_would_do(facts)}. " if later < _WAITS else ". "
    return text + ("Start-up comes once, however long the loop." if is_one else "Longer passes, or fewer, would help.")


def _cause(facts: Facts) -> str:
    """Return sentences on what the loop waits for, and what would help."""
    return _main_cause(facts) + _cache(facts)


def _cache(facts: Facts) -> str:
    """Return a sentence that recommends ``.cache()``, if it would make the loop faster; else ""."""
    advice = facts.cache
    if advice is None or advice.times < _WORTH_A_CACHE:
        return ""
    return (
        f" {share(advice.share)} of a job is {advice.slowest}, the same in each epoch: .cache() after "
        f".map({advice.behind}) would make later epochs up to {advice.times:.1f} times as fast, and take "
        f"{nbytes(advice.nbytes)}."
    )


def _main_cause(facts: Facts) -> str:
    if facts.reading > _MATTERS * facts.wait:
        return (
            f"Reading the source takes {share(facts.reading / max(facts.wait, 1e-9))} of that, in this process, where "
            "workers cannot help: have it yield what is cheap to read, such as paths, and load that in .map(), or give "
            "it __len__ and __getitem__."
        )
    if not facts.nb_workers:
        return _slow_job(facts)
    for each in (_small_queue, _slow_index, _moving, _crowded, _waiting):
        text = each(facts)
        if text:
            return text
    return _slow_job(facts)


def _is_single(slowest: Slow | None, median_job: float) -> TypeGuard[Slow]:
    """Return True if the slowest job is an exception: it took at least ten times as long as the median job."""
    return slowest is not None and slowest.seconds >= _IS_SLOW * median_job


def _told(slowest: Slow, median_job: float) -> str:
    took = f"batch {slowest.index} of epoch {slowest.epoch} took {seconds(slowest.seconds)}"
    return f"{took} (the median is {seconds(median_job)})"


def _small_queue(facts: Facts) -> str:
    """Return a sentence saying that ``max_queue_size`` is too small; "" if it is not.

    This is checked before :func:`_slow_index`, because a larger queue would hide single slow batches.
    """
    if not facts.is_bound_given or facts.busy > _SPARE or facts.bound > 2 * facts.nb_workers:
        return ""
    return (
        f"The workers are busy {share(facts.busy)} of the time: max_queue_size={facts.bound} does not let them work "
        f"ahead. Leave it out, or give {2 * facts.nb_workers + 2} or more."
    )


def _slow_index(facts: Facts) -> str:
    slowest, step = facts.slowest, facts.step / facts.num_batches
    if not _is_single(slowest, facts.median_job) or facts.slow < _MATTERS * facts.later_waits:
        return ""
    if facts.median_job > facts.nb_workers * step:
        return ""  # all jobs are too slow
    if facts.later_waits < _MATTERS * slowest.seconds:
        return ""  # the slow batch was computed ahead, or while the loop waited for a first batch
    told = _told(slowest, facts.median_job)
    return (
        f"{told[0].upper()}{told[1:]}: the loop waits for single slow batches, and more workers would not help. "
        "See report().slowest; in_order=False lets other batches overtake them."
    )


def _moving(facts: Facts) -> str:
    moves = facts.stages.get("transport", 0.0) / max(facts.job, 1e-9)
    if moves < _MOVES or facts.batch_nbytes < _LARGE_NBYTES:
        return ""
    return (
        f"Moving a batch of {nbytes(facts.batch_nbytes)} takes {share(moves)} of a job: memory is the limit. A "
        "smaller dtype (uint8 for images) moves less; arrays from workers.empty() are not moved."
    )


def _crowded(facts: Facts) -> str:
    if facts.queues < _QUEUES:
        return ""
    text = (
        f"The cores are taken: {count(facts.nb_workers, 'worker')} and the loop share {count(facts.cores, 'core')}, "
        f"and jobs waited for one {share(facts.queues)} of their time."
    )
    if facts.nb_workers > facts.cores:
        return f"{text} {count(facts.cores, 'worker')} would do as much."
    return f"{text} Other programs may be using them. A job takes {_job(facts)}."


def _waiting(facts: Facts) -> str:
    if facts.computes is None or facts.computes + facts.queues > _COMPUTES:
        return ""
    return (
        f"A job takes {_job(facts)}, and computes for {share(facts.computes)} of it; the rest is waiting, perhaps for "
        f"files or the network, so more workers than cores help. {_keep_up(facts)}."
    )


def _slow_job(facts: Facts) -> str:
    text = (
        f"A job takes {_job(facts)}" if facts.nb_workers else f"It computes its batches itself, each in {_job(facts)}"
    )
    text += f". {_keep_up(facts)}; this machine has {count(facts.cores, 'core')}."
    if math.ceil(needed(facts)) > max(facts.cores, facts.nb_workers):
        slow = _longest(facts)[0] if len(facts.stages) > 1 else "job"
        text += f" A faster {slow}, or more cores, would help."
    return text


def _job(facts: Facts) -> str:
    """Return the mean duration of a job and its longest stage: ``21 ms on average (augmenter: 70 % of it)``."""
    stage, longest = _longest(facts)
    of = f" ({stage}: {share(longest / max(facts.job, 1e-9))} of it)" if len(facts.stages) > 1 and longest else ""
    return f"{seconds(facts.job)} on average{of}"


def _longest(facts: Facts) -> tuple[str, float]:
    return max(facts.stages.items(), key=lambda each: each[1], default=("", 0.0))


def _keep_up(facts: Facts) -> str:
    workers = math.ceil(needed(facts))
    own = f"The loop's own work takes {seconds(facts.step / facts.num_batches)} a batch"
    if workers > _MOST_WORKERS:
        return f"{own}: no number of workers would keep up"
    if workers <= facts.nb_workers:
        return f"{own}: {count(facts.nb_workers, 'worker')} should just keep up"
    return f"{own}: {count(workers, 'worker')} would keep up"
