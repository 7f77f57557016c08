"""What becomes of single samples of a batch that raise: they are left out, or the consumer decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from workers.batch.tree import own
from workers.job.context import current_job
from workers.job.task import LEFT, left_of

logger = logging.getLogger("workers")


class SampleErrors:
    """The samples of one job, each of which may raise.

    Args:
        on_error: ``"raise"``, ``"skip"``, or ``"ask"``: a function decides where the batches are read.
    """

    def __init__(self, on_error: str) -> None:
        self._on_error = on_error
        self._errors: list[Exception] = []

    def items(self, number: int, function: Callable[[], list[Any]]) -> list[Any]:
        """What ``function()`` returns for sample ``number``; none, if it raises and that is no error of the job."""
        try:
            return function()
        except Exception as error:
            if self._on_error == "raise":
                raise
            if self._on_error == "skip":
                logger.error("sample %d is skipped", number, exc_info=error)
            else:
                self._errors.append(error)
            return []

    def end(self, items: list[Any]) -> list[Any]:
        """``items``, the job's. If samples have raised, the first error, with ``items`` for who skips them."""
        if not self._errors:
            return items
        job, (error, *others) = current_job(), self._errors
        error.__dict__[LEFT] = None if job is None else (job.epoch, job.index), own(items), others
        self._errors = []  # no cycle with this frame
        try:
            raise error
        finally:
            del error, others


def others(error: BaseException) -> list[BaseException]:
    """The errors of other samples in the job of ``error``."""
    left = getattr(error, "__dict__", {}).get(LEFT)
    return [] if left is None else list(left[2])


def left(error: BaseException, epoch: int, index: int) -> list[Any]:
    """What is left of job ``index`` without the samples that have raised; none, if it was all of it."""
    left = left_of(error)
    return left[1] if left is not None and left[0] == (epoch, index) else []
