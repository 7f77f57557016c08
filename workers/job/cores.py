"""Measures CPU core use: how much core time a process has used, and how long a thread has waited for a core."""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple


class CoreUse(NamedTuple):
    """Use of the CPU cores, in nanoseconds: the core time that was used, and the time spent waiting for a core."""

    had: int  # core time of all threads of the process
    wanted: int  # waiting time of one thread, while others had the cores; 0 if unknown

    def since(self, before: CoreUse) -> CoreUse:
        return CoreUse(self.had - before.had, self.wanted - before.wanted)


class JobCoreUse:
    """A measurement of the CPU core use of one job. The thread of the job creates this object when the job begins.

    The measurement reads no file, as a Ctrl-C could leave the file open. So the time spent waiting for a core is known
    only if the thread never slept or waited voluntarily: then it is all the time that the thread spent without a core.
    """

    def __init__(self) -> None:
        self._had_ns = time.process_time_ns()
        self._lets = _num_lets()

    def use(self, job_ns: int) -> CoreUse:
        """Return the core use of the job, which has just ended and took ``job_ns``."""
        had = min(time.process_time_ns() - self._had_ns, job_ns)  # other threads may have computed too
        return CoreUse(had, job_ns - had if self._lets >= 0 and self._lets == _num_lets() else 0)


def _num_lets() -> int:
    """Return how often this thread has given up its core voluntarily (to sleep or wait); -1 if unknown."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    except (ImportError, AttributeError):  # not on every platform
        return -1


class Cores:
    """A meter of this process's core time, and of the time for which the thread that creates it waits for a core."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # the file exists only on Linux, if the kernel was built with it
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def use(self) -> CoreUse:
        """Return this process's core time so far, and how long the meter's thread has waited for a core. Takes 2 us."""
        wanted = 0
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                wanted = int(os.pread(self._file, 64, 0).split()[1])
        return CoreUse(time.process_time_ns(), wanted)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
