"""The option ``max_failures``: how many samples may be lost in an epoch before the loop gets an error."""

from __future__ import annotations

from typing import Any

from workers.errors import TooManyFailuresError
from workers.frameworks.keras import is_endless
from workers.report.failures import Failures
from workers.sequence.batched import SequenceOfSize
from workers.sequence.clock import with_clock
from workers.sequence.derived import source_length
from workers.sequence.groups import SequenceGroups

_SHOWN = 5  # failures in the text of the error


def check_share(limit: float | None, sequence: Any) -> None:
    """Raise TypeError if ``limit`` is a share of the samples of ``sequence``, which has no length."""
    if type(limit) is float:
        plan = sequence._plan()
        if plan.is_stream or plan.count() is None:
            raise TypeError(
                f"max_failures={limit} is a share of the samples in an epoch, but how many "
                f"{type(plan.origin).__name__} has is unknown: give a number of samples"
            )


def check_failures(limit: float, lost: int, failures: Failures, epoch: int, sequence: Any) -> None:
    """Raise TooManyFailuresError if ``lost`` samples, those lost so far in ``epoch``, are more than ``limit`` allows.

    A share of an endless epoch is never used up.
    """
    allowed: float = limit
    if type(limit) is float:
        number = _num_samples(sequence)
        allowed = int(limit * number)
    if lost <= allowed:
        return
    found = [each for each in failures.all() if each.epoch == epoch and each.what != "retried"]
    shown = "; ".join(str(each) for each in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise TooManyFailuresError(
        f"{lost} samples of epoch {epoch} have failed, and max_failures={limit} allows {allowed}: {shown}{more}. All "
        "are in report().failures",
        found,
    )


def _num_samples(sequence: Any) -> int:
    """Return the number of samples in the current epoch of ``sequence``, of this rank; of batches, if these are not
    made of samples."""
    plan = sequence._plan()
    made_of_samples = isinstance(plan.source, (SequenceOfSize, SequenceGroups))
    batches: int = with_clock(sequence._clock, plan.count)
    samples: int = with_clock(sequence._clock, source_length, plan.source) if made_of_samples else batches
    if is_endless(samples):
        return samples
    places: int = plan.num_places_of(batches)
    of_ranks: int = samples * places // max(batches, 1)
    return of_ranks // int(plan.world)  # a slice has some of the batches
