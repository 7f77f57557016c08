"""What a loop asks of an engine, and of what it reads a pass with: whether it has workers, none, or as many as pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from .handover import Outcome, Outcomes
from .passes import Ahead


class AnyReading(Protocol):
    """The outcomes of a pass, numbered as they come. Used by: the consumer's thread."""

    @property
    def outcomes(self) -> Outcomes:
        """{number: outcome}, as far as they are there and not dropped."""

    @property
    def engine(self) -> AnyEngine: ...

    def peek(self, number: int, timeout_s: float | None = None) -> Outcome:
        """Outcome ``number``, which stays there until :meth:`drop`.

        Blocks: until it is there; at most ``timeout_s``.

        Raises:
            queue.Empty: ``timeout_s`` is over. StalePassError: another pass has begun. ClosedError, or what ended the
                engine.
        """

    def drop(self, number: int) -> None:
        """The consumer has outcome ``number``."""

    def repeat(self, index: int, runs: int) -> Outcome:
        """Batch ``index``, whose job has failed in ``runs`` runs, once more. Blocks and raises: as :meth:`peek`."""

    def forget(self, index: int) -> None:
        """Batch ``index``, which has failed, will not be repeated."""


class OpenReading(AnyReading, Protocol):
    """Of a pass whose jobs are handed in while it is read."""

    def add(self, number: int, index: int, item: Any) -> None:
        """Job ``number``, for batch ``index``, unless it is there. :meth:`added` must follow."""

    def added(self) -> None:
        """Tell the engine of what was added."""


class AnyEngine(Protocol):
    """Computes the jobs of passes, one pass after the other."""

    @property
    def has_ended(self) -> bool:
        """There will be no more outcomes."""

    @property
    def has_background_jobs(self) -> bool:
        """Whether a worker has something to do."""

    def begin(
        self,
        epoch: int,
        length: int,
        is_open: bool,
        ahead: Ahead | None,
        parcel: Any,
        order: Sequence[int] | None = None,
    ) -> AnyReading:
        """The consumer starts to read a pass, which ends the one before.

        Args:
            epoch: the pass is this epoch.
            length: in batches; 0 with ``is_open``.
            is_open: its jobs are handed in by :meth:`OpenReading.add`.
            ahead: the pass that will most likely come next, to be worked on early.
            parcel: the replica that the jobs are to be done on from now on; None: as before.
            order: the indices of its batches, any sequence that does not change; None: 0 to ``length`` - 1.
        """

    def bound(self) -> int:
        """How many jobs an open pass may have ahead of the consumer."""

    def check(self) -> None:
        """Raise what has ended the engine, if it has ended."""

    def close(self) -> None:
        """End the workers. Blocks: until they are gone. May be repeated, and called from anywhere."""
