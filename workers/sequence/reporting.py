"""The methods of a sequence that tell where the time of its loop, or of ``model.fit``, goes: a report, and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.report.report import Report

    from .base import Sequence


def report(self: Sequence[Any]) -> Report:
    """Return a :class:`workers.Report` on where the time of the loop, or of ``model.fit``, has gone since it was made.

    May be called at any time, even after ``close()``. Takes a few milliseconds per worker.

    Raises:
        StateError: this is not a front-end, and no ``model.fit`` has read it with workers. For a loop, call
            ``report()`` of its ``sequence.prefetch()``.
    """
    return self._live.report()  # type: ignore[no-any-return]


def figures(self: Sequence[Any]) -> dict[str, float]:
    """Return what has happened since the last call, or since this was made: numbers by flat names with units.

    For instance ``{"batches": 50, "wait_share": 0.04, "job_ms": 21.5, "workers": 4, "restarts": 0, ...}``. Sums are
    differences, averages are those of this time (0 if there was nothing to average), and ``workers`` and ``bound`` are
    the present ones. ``workers/report/README.rst`` lists the names; ``report().as_dict()`` has them for the whole loop.

    May be called at any time, even after ``close()``. Takes less than a millisecond.

    Raises:
        StateError: as for :meth:`report`.
    """
    live = self._live
    return live.meter.read(live.tally)  # type: ignore[no-any-return]
