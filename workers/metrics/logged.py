"""What ``LogLoading`` logs: a few figures of a loop, since they were logged last."""

from __future__ import annotations

from typing import Any

from workers.report.figures import Meter

NAMES = "wait_share", "batches_per_s", "job_ms", "workers", "restarts", "cache_hits"


class LoggedFigures:
    """The figures of the loop over ``sequence``, or of ``model.fit`` of it, from now on. The sequence is held weakly.

    Raises:
        StateError: ``sequence`` has no figures, because no worker computes its batches.
    """

    def __init__(self, sequence: Any) -> None:
        self._live = sequence._live
        self._meter = Meter(self._live.tally())
        self._job_ms = 0.0

    def is_of(self, sequence: Any) -> bool:
        """Return True if these are the figures of ``sequence``."""
        return self._live is sequence._live

    def read(self) -> dict[str, float]:
        """Return the figures since the last call, by their names in logs, e.g. {"data/wait_share": 0.04, ...}.

        If no job has ended since then, ``data/job_ms`` stays as it was, so that a curve of it does not drop to 0.
        """
        figures = self._meter.read(self._live.tally)
        self._job_ms = figures["job_ms"] = figures["job_ms"] if figures["jobs"] else self._job_ms
        return {f"data/{name}": figures[name] for name in NAMES}
