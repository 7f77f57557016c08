"""The interfaces of an engine and of its passes, as a loop uses them, with workers, without, or with "auto"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .handover import Outcome, Outcomes
from .passes import Ahead


class AnyReading(Protocol):
    """The outcomes of a pass, numbered as they arrive. Used by: the consumer's thread."""

    @property
    def outcomes(self) -> Outcomes:
        """The outcomes that are ready and not dropped: {number: outcome}."""

    @property
    def engine(self) -> AnyEngine: ...

    def peek(self, number: int, timeout_s: float | None = None) -> Outcome:
        """Return outcome ``number``, which stays until :meth:`drop`.

        Blocks: until it is ready, at most ``timeout_s``.

        Raises:
            queue.Empty: ``timeout_s`` is over. StalePassError: another pass has begun. ClosedError, or the error that
                ended the engine.
        """

    def drop(self, number: int) -> None:
        """Release outcome ``number``, which the consumer has."""

    def repeat(self, index: int, runs: int) -> Outcome:
        """Retry batch ``index``, whose job failed in ``runs`` runs. Blocks and raises: as :meth:`peek`."""

    def forget(self, index: int) -> None:
        """Release batch ``index``, which has failed and will not be retried."""


class OpenReading(AnyReading, Protocol):
    """The outcomes of a pass whose jobs are added while it is read."""

    def add(self, number: int, index: int, item: Any) -> None:
        """Add job ``number``, for batch ``index``, unless it was added before. :meth:`added` must follow."""

    def added(self) -> None:
        """Tell the engine about the added jobs."""


class AnyEngine(Protocol):
    """An engine, which computes the jobs of one pass after the other."""

    @property
    def has_ended(self) -> bool:
        """True if there will be no more outcomes."""

    @property
    def has_background_jobs(self) -> bool:
        """True if a worker has something to do."""

    def begin(
        self,
        epoch: int,
        length: int,
        is_open: bool,
        ahead: Ahead | None,
        parcel: Any,
        order: Sequence[int] | None = None,
    ) -> AnyReading:
        """Begin a pass for the consumer to read, which ends the previous one.

        Args:
            epoch: the epoch of its batches.
            length: in batches; 0 with ``is_open``.
            is_open: its jobs are added by :meth:`OpenReading.add`.
            ahead: the pass that will probably come next, to be computed ahead.
            parcel: the sequence on which jobs run from now on; None: as before.
            order: the indices of its batches, any sequence that does not change; None: 0 to ``length`` - 1.
        """

    def bound(self) -> int:
        """Return how many jobs an open pass may have ahead of the consumer."""

    def check(self) -> None:
        """Raise the error that has ended the engine, if it has ended."""

    def close(self) -> None:
        """End the workers. Blocks: until they are gone. May be repeated, and called from anywhere."""
