"""What a sequence has and its copies have not: where it stands, what was found in it, who works for it."""

from __future__ import annotations

import weakref
from typing import Any

from workers.errors import StateError
from workers.job.generators import Generators

from .clock import Clock


class Live:
    """It holds the sequence weakly: with the last reference to that, all of this goes too.

    Attributes:
        clock: its epoch, and the pass that counts.
        generators: the random generators that it holds.
        fit: the loop by which ``model.fit`` reads it; None: it has not, or reads it in this process.
        fits_here: it cannot be sent to workers.
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
        return _none, ()  # a copy makes its own

    def report(self) -> Any:
        """Where the time goes in ``model.fit``. Raises a StateError if there was none."""
        if self.fit is None:
            name = type(self._sequence()).__name__
            raise StateError(f"no model.fit has read this {name}: report() is of that, and of loops over .prefetch()")
        return self.fit.report()

    def share_waited(self) -> float | None:
        """What part of the pass its loop has waited for batches, 0 to 1; None: it makes them itself."""
        return None

    def _roots(self) -> list[tuple[str, Any]]:
        plan = self._sequence()._plan()
        return [("source", plan.source), *([("functions", plan.functions)] if plan.functions else [])]


def _none() -> None:
    """What a copy has until it is asked."""
