"""``Live``, the part of a sequence that is not copied with it: its clock, its generators, and ``model.fit``'s loop."""

from __future__ import annotations

import weakref
from typing import Any

from workers.errors import StateError
from workers.job.generators import Generators

from .clock import Clock


class Live:
    """The part of a sequence that is not copied or pickled with it. It holds the sequence weakly.

    Attributes:
        clock: the epoch of the sequence and its current pass (one run of a loop over an epoch).
        generators: the random generators that the sequence holds.
        fit: the loop that computes its batches for ``model.fit``, in workers; None if there is none.
        fits_here: True if it cannot be sent to workers, so that ``model.fit`` computes its batches in this process.
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
        """Return the Report on ``model.fit`` of the sequence. Raises StateError if no ``model.fit`` has read it."""
        if self.fit is None:
            name = type(self._sequence()).__name__
            raise StateError(
                f"no model.fit has read this {name}, and only model.fit and loops over .prefetch() have a report"
            )
        return self.fit.report()

    def share_waited(self) -> float | None:
        """Return what share of its time (0 to 1) the loop has waited for workers; None here, as it has none."""
        return None

    def _roots(self) -> list[tuple[str, Any]]:
        plan = self._sequence()._plan()
        return [("source", plan.source), *([("functions", plan.functions)] if plan.functions else [])]


def _none() -> None:
    """Return None, which replaces the Live in a copy of a sequence; the copy creates its own when it first needs it."""
