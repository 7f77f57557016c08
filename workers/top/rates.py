"""Compute the rates of a pool of workers, such as batches per second, from two snapshots of its figures."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from workers.report.snapshot_page import LaneSnapshot, Snapshot

WINDOW_NS = 3_000_000_000  # the period over which rates are computed
_LEAST_NS = 400_000_000  # the shortest period for rates; in a shorter one, a single batch would matter too much
STALE_NS = 2_000_000_000  # a pool without a new snapshot for this long is taken to be unchanged


class Rates(NamedTuple):
    """The speed of one pool of workers, and the share of the time that its loop waits for batches."""

    batches: float  # per second
    nbytes: float  # per second
    wait: float  # share of the time that the loop waits, 0 to 1
    lanes: dict[int, LaneRates]  # {number of a worker that is not new: rates}, e.g. {0: LaneRates(busy=0.9, jobs=42.3)}


class LaneRates(NamedTuple):
    """The speed of one worker, and the share of the time that it is busy."""

    busy: float  # share of the time in jobs, 0 to 1
    jobs: float  # per second


class RateHistory:
    """The recent snapshots of the figures of one pool of workers, from which its rates are computed."""

    def __init__(self, first: Snapshot) -> None:
        self._seen = deque([first])  # in order of time, from WINDOW_NS ago or a little earlier until now

    @property
    def last(self) -> Snapshot:
        return self._seen[-1]

    def add(self, snapshot: Snapshot, now_ns: int) -> None:
        """Add a ``snapshot`` of the pool's figures, read at ``now_ns``; it may be the same as at the last call."""
        if now_ns - snapshot["at_ns"] > STALE_NS:
            snapshot = {**snapshot, "at_ns": now_ns}
        if snapshot["at_ns"] <= self.last["at_ns"]:
            return
        self._seen.append(snapshot)
        while len(self._seen) > 2 and self._seen[1]["at_ns"] <= snapshot["at_ns"] - WINDOW_NS:
            self._seen.popleft()

    def rates(self) -> Rates | None:
        """Return the pool's current rates; None if its snapshots so far span less than 0.4 s."""
        first, last = self._seen[0], self.last
        return rates(first, last) if last["at_ns"] - first["at_ns"] >= _LEAST_NS else None


def rates(before: Snapshot, after: Snapshot) -> Rates:
    """Return the rates of a pool between two snapshots of its figures."""
    ns = after["at_ns"] - before["at_ns"]
    lanes = {lane["number"]: lane for lane in before["workers"]}
    return Rates(
        batches=_more(before["batches"], after["batches"]) * 1e9 / ns,
        nbytes=_more(before["nbytes"], after["nbytes"]) * 1e9 / ns,
        wait=min(1.0, _more(before["wait_ns"], after["wait_ns"]) / ns),
        lanes={
            lane["number"]: _lane_rates(lanes[lane["number"]], before["at_ns"], lane, after["at_ns"])
            for lane in after["workers"]
            if lane["number"] in lanes
        },
    )


def _lane_rates(before: LaneSnapshot, before_ns: int, after: LaneSnapshot, after_ns: int) -> LaneRates:
    busy_ns = _more(_busy_ns(before, before_ns), _busy_ns(after, after_ns))
    ns = after_ns - before_ns
    return LaneRates(min(1.0, busy_ns / ns), _more(before["jobs"], after["jobs"]) * 1e9 / ns)


def _busy_ns(lane: LaneSnapshot, at_ns: int) -> int:
    """Return the time in ns that a worker has spent in jobs up to time ``at_ns``, including its current job."""
    return lane["busy_ns"] + (0 if lane["index"] is None else max(0, at_ns - lane["since_ns"]))


def _more(before: int, after: int) -> int:
    """Return ``after`` - ``before``, but at least 0, as a worker's busy time falls if it is killed in a job."""
    return max(0, after - before)
