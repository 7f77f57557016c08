"""The core time that a process has used, and how long a thread has waited for a core."""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple


class CoreUse(NamedTuple):
    """Use of the cores, in nanoseconds."""

    had: int  # core time of all threads of the process
    wanted: int  # waiting time of one thread, while others had the cores; 0 if unknown

    def since(self, before: CoreUse) -> CoreUse:
        return CoreUse(self.had - before.had, self.wanted - before.wanted)


class JobCoreUse:
    """Core use of one job in the thread that creates this object.

    It opens no file, which a Ctrl-C could leave open. The waiting time is therefore known only if the thread has never
    given up a core voluntarily: then it is the time in which it did not have one.
    """

    def __init__(self) -> None:
        self._had_ns = time.process_time_ns()
        self._lets = _num_lets()

    def use(self, job_ns: int) -> CoreUse:
        """Return the core use of the job, which has just ended and took ``job_ns``."""
        had = min(time.process_time_ns() - self._had_ns, job_ns)  # other threads have computed too
        return CoreUse(had, job_ns - had if self._lets >= 0 and self._lets == _num_lets() else 0)


def _num_lets() -> int:
    """Return how often this thread has given up a core voluntarily; -1 if unknown."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    except (ImportError, AttributeError):  # not on every platform
        return -1


class Cores:
    """Core use of the process, and of the thread that creates this object. Reading it takes 2 us."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # only on Linux, if built into the kernel
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def use(self) -> CoreUse:
        """Return the core use so far."""
        wanted = 0
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                wanted = int(os.pread(self._file, 64, 0).split()[1])
        return CoreUse(time.process_time_ns(), wanted)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
