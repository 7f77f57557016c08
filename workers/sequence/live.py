"""``Live``, the part of a sequence that is not copied with it: its clock, its generators, and ``model.fit``'s loop."""

from __future__ import annotations

import weakref
from typing import Any

from workers.errors import StateError
from workers.job.generators import Generators
from workers.report.figures import Meter, Tally

from .clock import Clock


class Live:
    """The part of a sequence that is neither copied nor pickled with it. It refers to the sequence only weakly.

    Attributes:
        clock: the epoch of the sequence and its current pass (one run of a loop over an epoch).
        generators: finds and seeds the random generators that the sequence's source and functions hold.
        fit: the loop whose workers compute the batches for ``model.fit``; None if ``model.fit`` has started no workers.
        meter: reads what has happened since the last call of ``figures()``.
        fits_here: True if the sequence cannot be sent to workers, so ``model.fit`` computes batches in this process.
    """

    def __init__(self, sequence: Any, clock: Clock | None = None) -> None:
        self._sequence: Any = weakref.ref(sequence)
        self.clock = clock or Clock()
        if self.clock.owner is None:
            self.clock.owner = self._sequence
        self.generators = Generators(self._roots)
        self.meter = Meter()
        self.fit: Any = None
        self.fits_here = False

    def __reduce__(self) -> Any:
        return _none, ()  # a copy creates its own

    def report(self) -> Any:
        """Return the Report on the sequence's ``model.fit``. Raise StateError if it has started no workers."""
        return self._loop_of_fit().report()

    def tally(self) -> Tally:
        """Return what the sequence's ``model.fit`` has done. Raise StateError if it has started no workers."""
        return self._loop_of_fit().tally()  # type: ignore[no-any-return]

    def _loop_of_fit(self) -> Any:
        if self.fit is None:
            name = type(self._sequence()).__name__
            raise StateError(
                f"no model.fit has read this {name} with workers, and only that and loops over .prefetch() have a "
                f"report and figures: give fit or the loop a .prefetch() of this {name}"
            )
        return self.fit

    def share_waited(self) -> float | None:
        """Return None: only a ``Loop``, which has workers, knows what share of its time it has waited for batches."""
        return None

    def _roots(self) -> list[tuple[str, Any]]:
        plan = self._sequence()._plan()
        return [("source", plan.source), *([("functions", plan.functions)] if plan.functions else [])]


def _none() -> None:
    """Return None, which takes the place of the Live in a copied sequence: the copy creates its own on first use."""
