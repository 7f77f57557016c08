"""Find the pools of workers of this user's programs, and read their figures repeatedly.

Each pool writes its figures into a page of shared memory, which is found in /proc.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from workers.report.snapshot_page import Snapshot, SnapshotReader, pages

from .drawing import Shown
from .rates import RateHistory
from .usage import Processes

SCAN_S = 2.0  # between two scans of all processes; one takes some milliseconds


class FoundPool(NamedTuple):
    """The identity of a pool: its process, and the page with its figures, e.g. FoundPool(pid=4711, page=1035)."""

    pid: int
    page: int  # its inode


class Pools:
    """The pools of workers of process ``pid``, or of all programs of this user if ``pid`` is None.

    The pages on which the pools write their figures stay open until :meth:`close`.
    """

    def __init__(self, pid: int | None = None) -> None:
        self._pid = pid
        self._readers: dict[FoundPool, SnapshotReader] = {}
        self._found: dict[FoundPool, Snapshot] = {}
        self._scan_at_s = 0.0

    def look(self) -> dict[FoundPool, Snapshot]:
        """Return {pool: latest snapshot of its figures} for all existing pools, sorted by process id and start time."""
        for pool, reader in list(self._readers.items()):
            if not reader.is_there():
                self._forget(pool)
            elif (snapshot := reader.read()) is not None:
                self._found[pool] = snapshot
        if time.monotonic() >= self._scan_at_s:
            self._scan()
            self._scan_at_s = time.monotonic() + SCAN_S
        return dict(sorted(self._found.items(), key=lambda each: (each[0].pid, each[1]["since"])))

    def close(self) -> None:
        for pool in list(self._readers):
            self._forget(pool)

    def _scan(self) -> None:
        for pid, number in pages(self._pid):
            try:
                reader = SnapshotReader(pid, number)
            except OSError:  # the page has gone since
                continue
            pool, snapshot = FoundPool(pid, reader.inode), reader.read()
            # Forks of the program, and other observers, have its page open too.
            if pool in self._readers or snapshot is None or snapshot["pid"] != pid:
                reader.close()
            else:
                self._readers[pool], self._found[pool] = reader, snapshot

    def _forget(self, pool: FoundPool) -> None:
        self._readers.pop(pool).close()
        del self._found[pool]


class Watch:
    """The rates and resource use of the pools of process ``pid``, or of all this user's pools if ``pid`` is None."""

    def __init__(self, pid: int | None = None) -> None:
        self._pools = Pools(pid)
        self._histories: dict[FoundPool, RateHistory] = {}
        self._processes = Processes()

    def look(self) -> list[Shown]:
        """Return the data to show now for each pool. The rates of a pool are not known before the second call."""
        found = self._pools.look()
        self._histories = {pool: self._histories.get(pool) or RateHistory(first) for pool, first in found.items()}
        for pool, snapshot in found.items():
            self._histories[pool].add(snapshot, time.monotonic_ns())
        pids = {lane["pid"] for snapshot in found.values() for lane in snapshot["workers"]}
        uses = self._processes.look({pid for pid in pids if pid is not None})
        return [Shown(history.last, history.rates(), uses) for history in self._histories.values()]

    def close(self) -> None:
        self._pools.close()
