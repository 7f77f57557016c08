"""Errors of single samples of a batch: they are raised, the samples are skipped, or the consumer decides."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from workers.batch.tree import own
from workers.job.context import current_job
from workers.job.task import LEFT, left_of

logger = logging.getLogger("workers")


class SampleErrors:
    """The collector of the errors of single samples in one job (the computation of one batch).

    Args:
        on_error: ``"raise"``; ``"skip"`` the sample and log the error; or ``"ask"``: collect it, so that a function of
            the user decides in the consumer's process.
    """

    def __init__(self, on_error: str) -> None:
        self._on_error = on_error
        self._errors: list[Exception] = []

    def items(self, number: int, function: Callable[[], list[Any]]) -> list[Any]:
        """Return ``function()``, the items of sample ``number``; [] if it raises an error that ``on_error`` allows."""
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
        """Return ``items``, those of the job. If errors were collected, raise the first, which carries ``items``."""
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
    """Return the errors of other samples of the same job, which ``error`` carries; [] if there are none."""
    left = getattr(error, "__dict__", {}).get(LEFT)
    return [] if left is None else list(left[2])


def left(error: BaseException, epoch: int, index: int) -> list[Any]:
    """Remove from ``error``, and return, the items of job ``index`` whose samples did not raise; [] if it has none."""
    left = left_of(error)
    return left[1] if left is not None and left[0] == (epoch, index) else []
