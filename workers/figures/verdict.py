"""What the figures mean: whether the loop waits for data, for what, and what would help. In words, with the numbers."""

from __future__ import annotations

import dataclasses
import math

from .report import Slow
from .units import count, nbytes, seconds, share

_FEW_BATCHES = 8
_WAITS = 0.02  # share of the time that the loop waits; below, nothing would be gained
_IS_SLOW = 10.0  # times the median
_MATTERS = 0.3  # of what the loop waited
_MOVES = 0.4  # share of a job that only moves the batch
_LARGE_NBYTES = 1_000_000
_COMPUTES = 0.7  # share of a job's time in which it has a core, or wants one; below, it waits for something else
_QUEUES = 0.2  # share of a job's time in which others have the cores
_SPARE = 0.85  # share of their time in which workers are busy; below, there are enough


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a verdict is made of. Times in seconds."""

    num_batches: int
    wait: float  # of the loop, in all
    step: float  # of the loop between two batches, in all
    first_waits: float  # what of ``wait`` was for the first batches of passes
    begins: float  # what beginning the passes took besides
    num_passes: int
    why: str  # what took longest in these
    job: float  # on average
    median_job: float
    stages: dict[str, float]  # on average
    slowest: Slow | None
    slow: float  # seconds, of the slowest few together
    batch_nbytes: float
    nb_workers: int
    busy: float  # share of the workers' time in jobs
    computes: float | None  # share of the jobs' time in which they had a core; None: not known
    queues: float  # share in which they wanted one, and others had it
    cores: int
    bound: int
    is_bound_given: bool  # max_queue_size is the user's
    executor: str = "process"


def verdict(facts: Facts) -> str:
    """See the module's text."""
    if facts.num_batches < _FEW_BATCHES:
        return f"Too early to say: the loop has had {count(facts.num_batches, 'batch', 'batches')}."
    waited = facts.wait / max(facts.wait + facts.step, 1e-9)
    if waited < _WAITS:
        return f"Not input-bound: the loop waited {share(waited)} of the time; {_would_do(facts)}."
    lost, total = facts.first_waits + facts.begins, facts.wait + facts.begins
    steady = (facts.wait - facts.first_waits) / max(facts.wait - facts.first_waits + facts.step, 1e-9)
    if lost > 0.5 * total:
        return _start_up(facts, lost, total, steady)
    return f"Input-bound: the loop waited {share(waited)} of the time. {_cause(facts)}"


def needed(facts: Facts) -> float:
    """How many workers would keep up with the loop."""
    return facts.job / max(facts.step / facts.num_batches, 1e-9)


def _would_do(facts: Facts) -> str:
    if not facts.nb_workers:
        return "it needs no workers"
    return f"{count(max(1, math.ceil(needed(facts))), 'worker')} would do"


def _start_up(facts: Facts, lost: float, total: float, steady: float) -> str:
    text = (
        f"Start-up: of {seconds(total)} that the loop waited, {seconds(lost)} went by before the first batch of "
        f"{count(facts.num_passes, 'pass', 'passes')}"
    )
    text += f" ({facts.why})" if facts.why else ""
    return f"{text}; after that it waited {share(steady)} of the time. Longer passes, or fewer, would help."


def _cause(facts: Facts) -> str:
    for each in (_slow_index, _small_queue, _moving, _crowded, _waiting):
        text = each(facts)
        if text:
            return text
    return _slow_job(facts)


def _slow_index(facts: Facts) -> str:
    slowest, step = facts.slowest, facts.step / facts.num_batches
    if slowest is None or not facts.nb_workers or slowest.seconds < _IS_SLOW * facts.median_job:
        return ""
    if facts.slow < _MATTERS * facts.wait or facts.median_job > facts.nb_workers * step:
        return ""  # all are too slow
    return (
        f"Batch {slowest.index} of epoch {slowest.epoch} took {seconds(slowest.seconds)}, the median is "
        f"{seconds(facts.median_job)}: the loop waits for single slow batches, which more workers would not change. "
        "See report().slowest; in_order=False lets others pass by."
    )


def _small_queue(facts: Facts) -> str:
    if not (facts.is_bound_given and facts.busy < _SPARE and facts.bound <= 2 * facts.nb_workers and facts.nb_workers):
        return ""
    return (
        f"The workers are busy {share(facts.busy)} of the time: max_queue_size={facts.bound} does not let them work "
        f"ahead. Leave it out, or give {2 * facts.nb_workers + 2} or more."
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
    return f"{text} Other programs may have them."


def _waiting(facts: Facts) -> str:
    if facts.computes is None or facts.computes + facts.queues > _COMPUTES or not facts.nb_workers:
        return ""
    return (
        f"A job takes {seconds(facts.job)}, and computes for {share(facts.computes)} of it: it waits, as for files or "
        f"the network. More workers than cores help: {_keep_up(facts)}."
    )


def _slow_job(facts: Facts) -> str:
    step, workers = facts.step / facts.num_batches, math.ceil(needed(facts))
    what = "" if facts.nb_workers else "It computes its batches itself: "
    stage, longest = max(facts.stages.items(), key=lambda each: each[1], default=("", 0.0))
    of = f" ({stage}: {share(longest / max(facts.job, 1e-9))} of it)" if len(facts.stages) > 1 and longest else ""
    text = f"{what}{'a' if what else 'A'} job takes {seconds(facts.job)}{of}, the loop asks for a batch every "
    text += f"{seconds(step)}: {_keep_up(facts)}; this machine has {count(facts.cores, 'core')}."
    if workers > max(facts.cores, facts.nb_workers):
        text += f" A faster {stage or 'job'} is what helps, or more cores."
    return text


def _keep_up(facts: Facts) -> str:
    workers = math.ceil(needed(facts))
    if workers > 1000:
        return "no number of workers would keep up with a loop that does so little"
    if workers <= facts.nb_workers:
        return f"{count(facts.nb_workers, 'worker')} should just keep up"
    return f"{count(workers, 'worker')} would keep up"
