"""What the figures mean: whether the loop waits for data, for what, and what would help. In words, with the numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import TypeGuard

from .report import Slow
from .units import count, nbytes, seconds, share

_FEW_BATCHES = 8
_WAITS = 0.02  # share of the time that the loop waits; below, nothing would be gained
_GOES_ON = 0.1  # share that it waits after the first batch, and of what it waited for that; above, it is not over
_IS_SLOW = 10.0  # times the median
_MATTERS = 0.3  # of what the loop waited
_MOVES = 0.4  # share of a job that only moves the batch
_LARGE_NBYTES = 1_000_000
_COMPUTES = 0.7  # share of a job's time in which it has a core, or wants one; below, it waits for something else
_QUEUES = 0.2  # share of a job's time in which others have the cores
_SPARE = 0.85  # share of the loop's time in which workers are busy; below, there are enough
_LETS_GO = 0.9  # share of the jobs' time in which others can have the interpreter's lock; above, threads would do
_MUCH_NBYTES = 20_000_000  # of memory; less is not worth a word
_MOST_WORKERS = 1000  # that anybody would be told to start


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a verdict is made of. Times in seconds."""

    num_batches: int
    wait: float  # of the loop, in all
    step: float  # of the loop between two batches, in all
    first_waits: float  # what of ``wait`` was for the first batches of passes
    begins: float  # what beginning the passes took, which ``wait`` does not hold
    num_passes: int
    why: str  # what took longest in these
    job: float  # on average
    median_job: float
    stages: dict[str, float]  # on average
    slowest: Slow | None
    slow: float  # seconds, of the slowest few together
    batch_nbytes: float
    nb_workers: int
    busy: float  # share of the workers' time in jobs, while the loop had begun and was not over
    computes: float | None  # share of the jobs' time in which they had a core; None: not known
    queues: float  # share in which they wanted one, and others had it
    cores: int
    bound: int
    is_bound_given: bool  # max_queue_size is the user's
    lets_go: float | None = None  # share of the jobs' time in which the interpreter's lock is free; None: not known
    workers_nbytes: int = 0  # memory of the worker processes

    @property
    def later_waits(self) -> float:
        """What of ``wait`` was for other batches than the first ones of passes."""
        return self.wait - self.first_waits


def verdict(facts: Facts) -> str:
    """See the module's text."""
    return _of_waits(facts) + _threads(facts)


def _of_waits(facts: Facts) -> str:
    if facts.num_batches < _FEW_BATCHES:
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
    """What to do where jobs leave the interpreter to others: threads have all that processes have, in one memory."""
    if facts.lets_go is None or facts.lets_go < _LETS_GO or facts.workers_nbytes < _MUCH_NBYTES:
        return ""
    processes = count(facts.nb_workers, "process", "processes")
    return (
        f' Jobs let go of the interpreter\'s lock {share(facts.lets_go)} of the time: executor="thread" would be as '
        f"fast, without the {nbytes(facts.workers_nbytes)} of {processes}, if they draw from current_rng() alone."
    )


def needed(facts: Facts) -> float:
    """How many workers would keep up with the loop."""
    return facts.job / max(facts.step / facts.num_batches, 1e-9)


def _would_do(facts: Facts) -> str:
    if not facts.nb_workers:
        return "it needs no workers"
    # No more than there are, for these do; the mean job may hold what only the first ones took.
    return f"{count(min(facts.nb_workers, max(1, math.ceil(needed(facts)))), 'worker')} would do"


def _start_up(facts: Facts, lost: float, total: float, later: float) -> str:
    is_one = facts.num_passes == 1
    passes = "" if is_one else f"es of {count(facts.num_passes, 'pass', 'passes')}"
    text = f"Start-up: of {seconds(total)} that the loop waited, {seconds(lost)} went by before the first batch{passes}"
    text += f" ({facts.why})" if facts.why else ""
    if _is_single(facts.slowest, facts.median_job) and facts.slowest.seconds > _MATTERS * lost:
        text += f"; {_told(facts.slowest, facts.median_job)}"
    text += f". After that it waited {share(later)} of the time"
    text += f"; {_would_do(facts)}. " if later < _WAITS else ". "
    return text + ("That comes once, however long the loop." if is_one else "Longer passes, or fewer, would help.")


def _cause(facts: Facts) -> str:
    if not facts.nb_workers:
        return _slow_job(facts)
    for each in (_small_queue, _slow_index, _moving, _crowded, _waiting):
        text = each(facts)
        if text:
            return text
    return _slow_job(facts)


def _is_single(slowest: Slow | None, median_job: float) -> TypeGuard[Slow]:
    """Whether a job took much longer than the others."""
    return slowest is not None and slowest.seconds >= _IS_SLOW * median_job


def _told(slowest: Slow, median_job: float) -> str:
    took = f"batch {slowest.index} of epoch {slowest.epoch} took {seconds(slowest.seconds)}"
    return f"{took}, the median is {seconds(median_job)}"


def _small_queue(facts: Facts) -> str:
    """Before single slow batches: others are ready when one comes, if they may be computed ahead."""
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
        return ""  # all are too slow
    if facts.later_waits < _MATTERS * slowest.seconds:
        return ""  # it was made ahead, or waited for with the first batch
    told = _told(slowest, facts.median_job)
    return (
        f"{told[0].upper()}{told[1:]}: the loop waits for single slow batches, which more workers would not change. "
        "See report().slowest; in_order=False lets others pass by."
    )


def _moving(facts: Facts) -> str:
    moves = facts.stages.get("transport", 0.0) / max(facts.job, 1e-9)
    if moves < _MOVES or facts.batch_nbytes < _LARGE_NBYTES:
        return ""
    return (
        f"Moving a batch of {nbytes(facts.batch_nbytes)} takes {share(moves)} of a job: memory is what limits it. A "
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
    return f"{text} Other programs may have them. A job takes {_job(facts)}."


def _waiting(facts: Facts) -> str:
    if facts.computes is None or facts.computes + facts.queues > _COMPUTES:
        return ""
    return (
        f"A job takes {_job(facts)}, and computes for {share(facts.computes)} of it: it waits, as for files or the "
        f"network, so more workers than cores help. {_keep_up(facts)}."
    )


def _slow_job(facts: Facts) -> str:
    text = (
        f"A job takes {_job(facts)}" if facts.nb_workers else f"It computes its batches itself, each in {_job(facts)}"
    )
    text += f". {_keep_up(facts)}; this machine has {count(facts.cores, 'core')}."
    if math.ceil(needed(facts)) > max(facts.cores, facts.nb_workers):
        slow = _longest(facts)[0] if len(facts.stages) > 1 else "job"
        text += f" A faster {slow} is what helps, or more cores."
    return text


def _job(facts: Facts) -> str:
    """How long one takes, as in: 21 ms on average (augmenter: 70 % of it)."""
    stage, longest = _longest(facts)
    of = f" ({stage}: {share(longest / max(facts.job, 1e-9))} of it)" if len(facts.stages) > 1 and longest else ""
    return f"{seconds(facts.job)} on average{of}"


def _longest(facts: Facts) -> tuple[str, float]:
    return max(facts.stages.items(), key=lambda each: each[1], default=("", 0.0))


def _keep_up(facts: Facts) -> str:
    workers = math.ceil(needed(facts))
    own = f"The loop's own work takes {seconds(facts.step / facts.num_batches)} a batch"
    if workers > _MOST_WORKERS:
        return f"{own}, with which no number of workers would keep up"
    if workers <= facts.nb_workers:
        return f"{own}, with which {count(facts.nb_workers, 'worker')} should just keep up"
    return f"{own}, with which {count(workers, 'worker')} would keep up"
