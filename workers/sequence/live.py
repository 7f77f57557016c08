"""The live part of a sequence, which copies do not get: its clock, generators, and the loop of ``model.fit``."""

from __future__ import annotations

import weakref
from typing import Any

from workers.errors import StateError
from workers.job.generators import Generators

from .clock import Clock


class Live:
    """The live part of a sequence. It holds the sequence weakly, and is released with it.

    Attributes:
        clock: its epoch and its current pass.
        generators: the random generators that the sequence holds.
        fit: the loop by which ``model.fit`` reads it. None: ``model.fit`` has not read it, or reads it in this process.
        fits_here: True if it cannot be sent to workers, so that ``model.fit`` reads it in this process.
    """

    def __init__(self, sequence: Any, clock: Clock | None = None) -> None:
        self._sequence: Any = weakref.ref(sequence)
        self.clock = clock or Clock()
        if self.clock.owner is None:
            self.clock.owner = self._sequence
        self.generators = Generators(self._roots)
        self.fit: Any = None
        self.fits_here = False

    def __reduce__(self) -> Any:
        return _none, ()  # a copy creates its own

    def report(self) -> Any:
        """Return the report on ``model.fit``. Raises StateError if no ``model.fit`` has read the sequence."""
        if self.fit is None:
            name = type(self._sequence()).__name__
            raise StateError(
                f"no model.fit has read this {name}, and only model.fit and loops over .prefetch() have a report"
            )
        return self.fit.report()

    def share_waited(self) -> float | None:
        """Return the share of the pass that its loop has waited, 0 to 1. None: it computes its own batches."""
        return None

    def _roots(self) -> list[tuple[str, Any]]:
        plan = self._sequence()._plan()
        return [("source", plan.source), *([("functions", plan.functions)] if plan.functions else [])]


def _none() -> None:
    """Return the placeholder that a copy has until first use."""
