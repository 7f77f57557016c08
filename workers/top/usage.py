"""Measure the CPU and memory use of worker processes, as reported by the system."""

from __future__ import annotations

import time
from typing import NamedTuple

import psutil

_CPU_S = 0.4  # the shortest period over which CPU use is measured, as the system counts it in steps of 10 ms
_MEMORY_S = 2.0  # between two measurements of a worker's memory, each of which makes the kernel walk through all of it


class ProcessUse(NamedTuple):
    """The CPU and memory use of one process; a value is None if it is unknown, or not measured yet."""

    cpu: float | None = None  # 1.0: one core
    nbytes: int | None = None
    is_own: bool = True  # nbytes is its own memory (USS); if False, it includes shared memory (RSS)


class Process:
    """A process whose CPU and memory use is measured repeatedly."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._cpu_s, self._cpu_at_s = self._cpu(), time.monotonic()
        self._memory_at_s = 0.0
        self._use = ProcessUse()

    def look(self) -> ProcessUse:
        """Return the process's current use of CPU and memory; raise psutil.Error if the process has ended."""
        cpu_s, now_s = self._cpu(), time.monotonic()
        if now_s - self._cpu_at_s >= _CPU_S:
            self._use = self._use._replace(cpu=(cpu_s - self._cpu_s) / (now_s - self._cpu_at_s))
            self._cpu_s, self._cpu_at_s = cpu_s, now_s
        if now_s >= self._memory_at_s:
            self._use = _memory(self._process)._replace(cpu=self._use.cpu)
            self._memory_at_s = now_s + _MEMORY_S
        return self._use

    def _cpu(self) -> float:
        times = self._process.cpu_times()
        return times.user + times.system


class Processes:
    """The processes whose CPU and memory use is measured, with the state kept between two measurements."""

    def __init__(self) -> None:
        self._known: dict[int, Process] = {}

    def look(self, pids: set[int]) -> dict[int, ProcessUse]:
        """Return {pid: CPU and memory use} for all ``pids`` that exist; a new process's CPU use is unknown at first."""
        self._known = {pid: known for pid, known in self._known.items() if pid in pids}
        found = {}
        for pid in pids:
            try:
                if pid not in self._known:
                    self._known[pid] = Process(pid)
                found[pid] = self._known[pid].look()
            except psutil.Error:
                self._known.pop(pid, None)
        return found


def _memory(process: psutil.Process) -> ProcessUse:
    try:
        return ProcessUse(nbytes=process.memory_full_info().uss)
    except psutil.AccessDenied:  # RSS is public, the mappings for USS are not
        return ProcessUse(nbytes=process.memory_info().rss, is_own=False)
