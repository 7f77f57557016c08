"""Defines the interfaces through which a loop uses an engine and reads its passes, whatever ``nb_workers`` is.

A pass is one run of a loop over an epoch; the consumer is the thread of this loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .handover import Outcome, Outcomes
from .passes import Ahead


class AnyReading(Protocol):
    """The handle by which a loop reads the outcomes (items or errors) of one pass, numbered in order of delivery.
    Only the consumer's thread uses the handle."""

    @property
    def outcomes(self) -> Outcomes:
        """The outcomes that are ready and not yet dropped, as {number: outcome}."""

    @property
    def engine(self) -> AnyEngine: ...

    @property
    def has_computed(self) -> bool:
        """True if the outcome that was peeked at last was computed in this thread, and need not be dropped."""

    def peek(self, number: int, timeout_s: float | None = None, after: int | None = 0) -> Outcome:
        """Return what follows the first ``after`` items of outcome ``number`` of this pass; None for all of it.

        Wait until it is ready, but at most for ``timeout_s``. It is kept until :meth:`drop`, or until items behind it
        are asked for. Its value is a Portion if more of the outcome follows.

        Raises:
            queue.Empty: the outcome was not ready within ``timeout_s``.
            StalePassError: another pass has begun.
            ClosedError: the engine was closed. If an error has ended the engine, this error is raised instead.
        """

    def drop(self, number: int) -> None:
        """Release outcome ``number``, which the consumer has taken."""

    def repeat(self, index: int, runs: int) -> Outcome:
        """Run the job of batch ``index`` again, after ``runs`` failed runs, and return its new outcome.
        Wait for the outcome, and raise errors, as :meth:`peek` does."""

    def forget(self, index: int) -> None:
        """Release the input of batch ``index``, whose job has failed and will not be retried."""


class OpenReading(AnyReading, Protocol):
    """The handle by which a loop reads an open pass, to which the loop adds jobs while it reads."""

    def add(self, number: int, index: int, item: Any) -> None:
        """Add job ``number`` to this pass, unless it was added before. It computes batch ``index`` from ``item``.
        A call of :meth:`added` must follow."""

    def added(self) -> None:
        """Wake the engine, so that it sends the added jobs to workers."""


class AnyEngine(Protocol):
    """An engine, which computes the batches of one pass after another."""

    @property
    def has_ended(self) -> bool:
        """True if no more batches will come, because the engine was closed or has failed."""

    @property
    def has_background_jobs(self) -> bool:
        """True if workers still have jobs to finish."""

    def begin(
        self,
        epoch: int,
        length: int,
        is_open: bool,
        ahead: Ahead | None,
        parcel: Any,
        order: Sequence[int] | None = None,
    ) -> AnyReading:
        """Begin a pass, which ends the previous one, and return the handle that reads it.

        Args:
            epoch: the epoch of its batches.
            length: its number of batches; 0 with ``is_open``.
            is_open: True if its jobs are added while it is read, by :meth:`OpenReading.add`.
            ahead: the pass that will probably come next, to be computed ahead; None to compute nothing ahead.
            parcel: the pickled sequence on which jobs run from now on; None to go on with the present one.
            order: the indices of its batches, any sequence that does not change; None for 0 to ``length`` - 1.
        """

    def bound(self) -> int:
        """Return how many jobs the loop may add to an open pass before it takes the outcome of the first of them."""

    def check(self) -> None:
        """Raise the error that has ended the engine, or ClosedError if it was closed."""

    def close(self) -> None:
        """End the workers, and wait until they are gone. May be called again, and in any thread."""
