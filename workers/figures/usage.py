"""What a worker process uses, by the system's count."""

from __future__ import annotations

import time


def usage(pid: int) -> tuple[float | None, int | None]:
    """(its share of one core since it was started, its own memory (USS) in bytes); None: it cannot be looked at."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, since_s = process.cpu_times(), time.time() - process.create_time()
        return (times.user + times.system) / max(since_s, 1e-3), process.memory_full_info().uss
    except (psutil.Error, OSError):
        return None, None
