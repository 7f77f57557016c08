"""How fast a pool is: what has changed between two of its snapshots."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from workers.report.snapshot_page import LaneSnapshot, Snapshot

WINDOW_NS = 3_000_000_000  # what rates are of
_LEAST_NS = 400_000_000  # what a rate is of at least: in less a batch more or less is too much
STALE_NS = 2_000_000_000  # a pool that has said nothing for so long has nothing new to say


class Rates(NamedTuple):
    """Of one pool."""

    batches: float  # a second
    nbytes: float  # a second
    wait: float  # share of the time that the loop waits, 0 to 1
    lanes: dict[int, LaneRates]  # {number of the worker: its own}; one that has just come has none


class LaneRates(NamedTuple):
    """Of one worker."""

    busy: float  # share of the time in jobs, 0 to 1
    jobs: float  # a second


class RateHistory:
    """The last snapshots of one pool."""

    def __init__(self, first: Snapshot) -> None:
        self._seen = deque([first])  # from WINDOW_NS ago or a little longer, to now

    @property
    def last(self) -> Snapshot:
        return self._seen[-1]

    def add(self, snapshot: Snapshot, now_ns: int) -> None:
        """``snapshot`` was read at ``now_ns``. It may have been read before."""
        if now_ns - snapshot["at_ns"] > STALE_NS:
            snapshot = {**snapshot, "at_ns": now_ns}
        if snapshot["at_ns"] <= self.last["at_ns"]:
            return
        self._seen.append(snapshot)
        while len(self._seen) > 2 and self._seen[1]["at_ns"] <= snapshot["at_ns"] - WINDOW_NS:
            self._seen.popleft()

    def rates(self) -> Rates | None:
        """None: they are not known yet, as all snapshots are of nearly the same moment."""
        first, last = self._seen[0], self.last
        return rates(first, last) if last["at_ns"] - first["at_ns"] >= _LEAST_NS else None


def rates(before: Snapshot, after: Snapshot) -> Rates:
    """Between two snapshots of one pool, of which ``after`` is the later one."""
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
    """In jobs until then, with what has passed of the one that it is in."""
    return lane["busy_ns"] + (0 if lane["index"] is None else max(0, at_ns - lane["since_ns"]))


def _more(before: int, after: int) -> int:
    """A worker that was killed in a job may have less to show than before."""
    return max(0, after - before)
