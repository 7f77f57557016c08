"""Measures how often jobs hold the interpreter's lock (GIL), with a thread that tries to take the lock now and then."""

from __future__ import annotations

import contextlib
import threading
import time

from .cores import Cores

_LOOKS = 60
_PAUSE_NS = 3_000_000  # between two looks
_LATE_NS = 1_000_000  # if the thread wakes up later than this, another thread held the lock
_LONG_NS = 10_000_000  # shorter jobs are not probed: they end too soon
_FEWEST = 8  # long jobs before the looks start: these are no exceptions, and the other workers have started by then
_MOST_S = 2.0  # the longest series of looks; if it was cut short, more long jobs start another series

#: The smallest number of looks that is conclusive.
ENOUGH = 40


class LockProbe:
    """A probe of how often jobs hold the interpreter's lock (GIL) in a worker process, which runs one job at a time.

    A look is one test of whether the lock is free. The thread that makes these tests exists only during a series.

    Attributes:
        job: the number of the current job; 0 if none runs.
    """

    def __init__(self) -> None:
        self.job = 0
        self._is_looking = False
        self._num_long = 0
        self._looks = self._free = 0
        self._told = (0, 0)

    def ran(self, job_ns: int) -> None:
        """Record that a job took ``job_ns``. Start a series of looks if there have been enough long jobs."""
        self._num_long += job_ns > _LONG_NS
        if self._num_long >= _FEWEST and self._looks < _LOOKS and not self._is_looking:
            self._is_looking, self._num_long = True, 0
            with contextlib.suppress(RuntimeError):  # no thread can be started, so there are no looks
                threading.Thread(target=self._look, name="lock-probe", daemon=True).start()

    def news(self) -> tuple[int, int]:
        """Return (number of looks since the last call, how many of them found the interpreter's lock free)."""
        now, before = (self._looks, self._free), self._told
        self._told = now
        return now[0] - before[0], now[1] - before[1]

    def _look(self) -> None:
        end_s, cores = time.monotonic() + _MOST_S, Cores()
        while self._looks < _LOOKS and time.monotonic() < end_s:
            job, waited_ns, start_ns = self.job, cores.use().wanted, time.monotonic_ns()
            time.sleep(_PAUSE_NS / 1e9)
            late_ns = time.monotonic_ns() - start_ns - _PAUSE_NS
            late_ns -= cores.use().wanted - waited_ns  # without the time spent waiting for a core, not for the lock
            if job and self.job == job:
                self._looks, self._free = self._looks + 1, self._free + (late_ns < _LATE_NS)
        cores.close()
        self._is_looking = False
