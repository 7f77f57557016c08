"""What a thread has had of the cores, and how long it has waited for one."""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple


class CoreUse(NamedTuple):
    """In nanoseconds."""

    had: int  # by all threads of the process
    wanted: int  # by the one thread, while others had the cores; 0 where that is not known

    def since(self, before: CoreUse) -> CoreUse:
        return CoreUse(self.had - before.had, self.wanted - before.wanted)


class JobCoreUse:
    """What one job, in the thread that makes this, has of the cores: as far as is known without opening a file, which a
    Ctrl-C could leave open. If the thread has never let go of a core by itself, it wanted one all the time."""

    def __init__(self) -> None:
        self._had_ns = time.process_time_ns()
        self._lets = _num_lets()

    def use(self, job_ns: int) -> CoreUse:
        """Behind the job, which took ``job_ns``."""
        had = min(time.process_time_ns() - self._had_ns, job_ns)  # other threads compute meanwhile
        return CoreUse(had, job_ns - had if self._lets >= 0 and self._lets == _num_lets() else 0)


def _num_lets() -> int:
    """How often this thread has let go of a core by itself; -1: not known."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    except (ImportError, AttributeError):  # not of every platform
        return -1


class Cores:
    """Of the process, and of the thread that makes this. A look takes 2 us."""

    def __init__(self) -> None:
        self._file: int | None = None
        with contextlib.suppress(OSError):  # of Linux, where it is built in
            self._file = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def use(self) -> CoreUse:
        """Up to now."""
        wanted = 0
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError, IndexError):
                wanted = int(os.pread(self._file, 64, 0).split()[1])
        return CoreUse(time.process_time_ns(), wanted)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
