"""Publishes the state of an active pool twice a second, for ``workers.top``, which shows running pools."""

from __future__ import annotations

import os
import sys
import time

from workers.report.pool import Figures
from workers.report.snapshot_page import LaneSnapshot, Snapshot, SnapshotPage

from .executor import Executor
from .handover import Handover
from .schedule import Schedule

_EVERY_S = 0.5


class Publisher:
    """The writer of a pool's statistics to a page of shared memory, for ``workers.top``. Used by the engine's thread.

    Args:
        name: a short description of what the pool computes.
        kind: the executor: ``"process"``, ``"thread"`` or ``"ray"``.

    Attributes:
        longest_ns: the longest time that the loop recently worked between two batches, as of the last publication.
    """

    def __init__(
        self, executor: Executor, schedule: Schedule, handover: Handover, figures: Figures, name: str, kind: str
    ) -> None:
        self._executor = executor
        self._schedule = schedule
        self._handover = handover
        self._figures = figures
        self._name = name
        self._kind = kind
        self._program = os.path.basename(sys.argv[0] if sys.argv else "") or "python"
        self._since_s = time.time()
        self._due_s = 0.0
        self._length: int | None = None
        self._page = SnapshotPage()
        self.longest_ns = 0.0

    def begin(self, length: int, is_open: bool) -> None:
        """Record that a pass begins. It has ``length`` batches, or an unknown number of batches if it ``is_open``."""
        self._length = None if is_open else length
        self._due_s = 0.0

    def look(self) -> None:
        """Publish the state of the pool, unless it was published less than half a second ago."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + _EVERY_S
            self._page.publish(self._snapshot())

    def close(self) -> None:
        self._page.close()

    def _snapshot(self) -> Snapshot:
        loop, pool, handover = self._figures.loop.copy(), self._figures.pool, self._handover
        self.longest_ns = loop.longest_ns
        totals, now_ns = loop.totals(), time.monotonic_ns()
        since_ns = handover.waits_since_ns
        waits_ns = now_ns - since_ns if since_ns else 0
        lanes = self._lanes()
        return {
            "pid": os.getpid(),
            "program": self._program,
            "name": self._name,
            "since": self._since_s,
            "at_ns": now_ns,
            "epoch": max(0, self._schedule.epoch()),
            "batch": handover.num_taken,
            "length": self._length,
            "executor": self._kind,
            "nb_workers": sum(lane["state"] != "ended" for lane in lanes),
            "bound": self._schedule.bound(),
            "ready": handover.num_untaken,
            "batches": totals.num_batches,
            "nbytes": pool.nbytes,
            "wait_ns": totals.wait_ns + waits_ns,
            "workers": lanes,
            "choice": self._figures.choices[-1] if self._figures.choices else "",
        }

    def _lanes(self) -> list[LaneSnapshot]:
        executor, schedule = self._executor, self._schedule
        jobs: dict[int, tuple[int, int, int]] = {}  # {worker number: (epoch, index, since_ns)}
        for worker in schedule.workers():
            sending, since_ns = executor.look(worker)
            ticket = schedule.ticket(worker, sending)
            if ticket is not None:
                jobs[executor.number(worker)] = (*schedule.place_of(ticket), since_ns)
        found: list[LaneSnapshot] = []
        for number, lane in sorted(self._figures.pool.lanes.items()):
            epoch, index, since_ns = jobs.get(number, (None, None, 0))
            found.append(
                {
                    "number": number,
                    "pid": lane.pid,
                    "state": lane.state,
                    "jobs": lane.num_jobs,
                    "busy_ns": lane.busy_ns,
                    "restarts": lane.restarts,
                    "epoch": epoch,
                    "index": index,
                    "since_ns": since_ns,
                }
            )
        return found
