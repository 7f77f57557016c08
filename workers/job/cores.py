"""Measurement of CPU core use: the core time that a process has used, and how long a thread has waited for a core."""

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
    """A measurement of CPU core use by one job (batch computation). It begins when its thread creates this object.

    It opens no file, because a Ctrl-C could leave that open. The waiting time is therefore known only if the thread has
    given up no core voluntarily during the job: then it is the time in which it did not have one.
    """

    def __init__(self) -> None:
        self._had_ns = time.process_time_ns()
        self._lets = _num_lets()

    def use(self, job_ns: int) -> CoreUse:
        """Return the core use since this object was created. To be called when the job, which took ``job_ns``, ends."""
        had = min(time.process_time_ns() - self._had_ns, job_ns)  # other threads have computed too
        return CoreUse(had, job_ns - had if self._lets >= 0 and self._lets == _num_lets() else 0)


def _num_lets() -> int:
    """Return how often this thread has given up its core voluntarily (to sleep or wait); -1 if unknown."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    except (ImportError, AttributeError):  # not on every platform
        return -1


class Cores:
    """A meter of the core time of this process and the waiting time of the thread that creates it. Reads in 2 us."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # only on Linux, if built into the kernel
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def use(self) -> CoreUse:
        """Return the core time of this process so far, and how long the thread that created this object has waited."""
        wanted = 0
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                wanted = int(os.pread(self._file, 64, 0).split()[1])
        return CoreUse(time.process_time_ns(), wanted)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
