"""Handles errors of single samples of a batch: raises, skips or replaces the sample, or lets the consumer decide."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from workers.batch.tree import own
from workers.errors import CacheError, add_note
from workers.job.context import current_job
from workers.job.notes import failure_of, note_failure
from workers.job.seeding import RunAgain
from workers.job.task import LEFT, SAMPLE, left_of

logger = logging.getLogger("workers")


_MOST_REDRAWS = 10  # samples that are tried in place of one that raises
#: A part of the note on an error for which there were redraws.
OTHERS_HAVE_RAISED = f"{_MOST_REDRAWS} other samples that were drawn in place of sample"


class SampleErrors:
    """The handler of the errors of single samples in one job (the computation of one batch).

    Args:
        on_error: ``"raise"`` the error; ``"skip"`` the sample and log the error; ``"redraw"`` another sample in its
            place; or ``"ask"`` the user's function later, in the consumer's process, and collect the error until then.
        index_of: returns the index of a sample among all samples, given its number; None if it is unknown.
        redraw: returns the items of another sample, given the number of the one that raised, and the attempt (from 0).
    """

    def __init__(
        self,
        on_error: str,
        index_of: Callable[[int], int | None],
        redraw: Callable[[int, int], list[Any]] | None = None,
    ) -> None:
        self._on_error = on_error
        self._index_of = index_of
        self._redraw = redraw
        self._errors: list[Exception] = []

    def items(self, number: int, function: Callable[[], list[Any]]) -> list[Any]:
        """Return the items of sample ``number``, which ``function()`` makes.

        If it raises, ``on_error`` decides what to do: raise the error, return [], or return another sample's items.
        """
        try:
            return function()
        except (CacheError, RunAgain):
            raise
        except Exception as error:
            if self._on_error == "redraw":
                return self._items_of_another(number, error)
            if self._on_error == "raise":
                raise
            if self._on_error == "skip":
                return skipped(error, "sample", self._index_of(number))
            error.__dict__[SAMPLE] = self._index_of(number)
            self._errors.append(error)
            return []

    def _items_of_another(self, number: int, error: Exception) -> list[Any]:
        assert self._redraw is not None
        for attempt in range(_MOST_REDRAWS):
            try:
                items = self._redraw(number, attempt)
            except Exception:
                continue
            index = self._index_of(number)
            logger.error("sample %s has raised; another one is taken in its place", index, exc_info=error)
            note_failure(failure_of(error, "redrawn", index))
            return items
        add_note(error, f"{OTHERS_HAVE_RAISED} {number} have raised too")
        raise error

    def end(self, items: list[Any]) -> list[Any]:
        """Return all ``items`` of the job. If errors were collected, raise the first one instead.
        The other errors and ``items`` are attached to it: see :func:`others` and :func:`left`."""
        if not self._errors:
            return items
        job, (error, *others) = current_job(), self._errors
        error.__dict__[LEFT] = None if job is None else (job.epoch, job.index), own(items), others
        self._errors = []  # no reference cycle with this frame
        try:
            raise error
        finally:
            del error, others


def skipped(error: Exception, what: str, index: int | None) -> list[Any]:
    """Log and record the error of an item that is skipped, and return its items: []. ``what`` is the item's name."""
    logger.error("%s is skipped", what if index is None else f"{what} {index}", exc_info=error)
    note_failure(failure_of(error, "skipped", index))
    return []


def others(error: BaseException) -> list[BaseException]:
    """Return the errors of the job's other samples, which :meth:`SampleErrors.end` attached to ``error``, or []."""
    left = getattr(error, "__dict__", {}).get(LEFT)
    return [] if left is None else list(left[2])


def left(error: BaseException, epoch: int, index: int) -> list[Any]:
    """Detach from ``error``, and return, the items of those samples of job ``index`` that did not raise; [] if none."""
    left = left_of(error)
    return left[1] if left is not None and left[0] == (epoch, index) else []
