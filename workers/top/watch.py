"""What is shown next: the pools that there are, how fast they are, and what their workers use."""

from __future__ import annotations

import time

from .drawing import Shown
from .finding import FoundPool, Pools
from .rates import RateHistory
from .usage import Processes


class Watch:
    """All pools of ``pid``, or of this user."""

    def __init__(self, pid: int | None = None) -> None:
        self._pools = Pools(pid)
        self._histories: dict[FoundPool, RateHistory] = {}
        self._processes = Processes()

    def look(self) -> list[Shown]:
        """The pools as they are now. Rates are known from the second look on."""
        found = self._pools.look()
        self._histories = {pool: self._histories.get(pool) or RateHistory(first) for pool, first in found.items()}
        for pool, snapshot in found.items():
            self._histories[pool].add(snapshot, time.monotonic_ns())
        pids = {lane["pid"] for snapshot in found.values() for lane in snapshot["workers"]}
        uses = self._processes.look({pid for pid in pids if pid is not None})
        return [Shown(history.last, history.rates(), uses) for history in self._histories.values()]

    def close(self) -> None:
        self._pools.close()
