"""The interfaces by which a loop uses an engine and its passes, with workers, without, or with "auto".

A pass is one run of a loop over an epoch; the consumer is the thread of this loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .handover import Outcome, Outcomes
from .passes import Ahead


class AnyReading(Protocol):
    """The handle by which a loop reads the outcomes (batches or errors) of one pass, numbered as they arrive.
    Used only by the consumer's thread."""

    @property
    def outcomes(self) -> Outcomes:
        """The outcomes that are ready and not yet dropped, as {number: outcome}."""

    @property
    def engine(self) -> AnyEngine: ...

    def peek(self, number: int, timeout_s: float | None = None) -> Outcome:
        """Return outcome ``number`` of this pass, a batch or the error of its job. It stays until :meth:`drop`.

        Blocks until it is ready, for at most ``timeout_s``.

        Raises:
            queue.Empty: ``timeout_s`` is over.
            StalePassError: another pass has begun.
            ClosedError: the engine was closed. If an error has ended it, that one is raised.
        """

    def drop(self, number: int) -> None:
        """Release outcome ``number``, which the consumer has taken."""

    def repeat(self, index: int, runs: int) -> Outcome:
        """Run the job of batch ``index`` again, after ``runs`` failed runs, and return its new outcome.
        Blocks and raises as :meth:`peek` does."""

    def forget(self, index: int) -> None:
        """Release the input of batch ``index``, whose job has failed and will not be retried."""


class OpenReading(AnyReading, Protocol):
    """The handle by which a loop reads a pass whose jobs are added while it is read."""

    def add(self, number: int, index: int, item: Any) -> None:
        """Add job ``number``, which computes batch ``index`` from ``item``, to this pass, unless it was added before.
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
            is_open: its jobs are added while it is read, by :meth:`OpenReading.add`.
            ahead: the pass that will probably come next, to be computed ahead; None for no such pass.
            parcel: the pickled sequence on which jobs run from now on; None to go on with the present one.
            order: the indices of its batches, any sequence that does not change; None for 0 to ``length`` - 1.
        """

    def bound(self) -> int:
        """Return how many jobs may be ahead of the loop in an open pass, to which the loop adds its jobs."""

    def check(self) -> None:
        """Raise the error that has ended the engine, or ClosedError if it was closed."""

    def close(self) -> None:
        """End the workers, and wait until they are gone. May be repeated, in any thread."""
