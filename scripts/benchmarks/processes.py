"""The memory that a process and its descendants hold, each page counted once."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil


def _pss(pid: int) -> tuple[int, int]:
    """Return the bytes of shared memory, and all others, that ``pid`` maps. A page of n processes counts 1/n in each.

    Source: proc_pid_smaps(5).
    """
    shared = other = 0
    is_shared = False
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return 0, 0
    for line in lines:
        first, *rest = line.split(maxsplit=5)
        if not first.endswith(":"):  # e.g. "7f00-7f10 rw-s 00000000 00:01 1024 /memfd:name (deleted)"
            path = rest[4] if len(rest) > 4 else ""
            is_shared = rest[0][3] == "s" or path.startswith(("/memfd:", "/dev/shm/", "/dev/zero"))
        elif first == "Pss:":
            nbytes = 1024 * int(rest[0])
            shared, other = (shared + nbytes, other) if is_shared else (shared, other + nbytes)
    return shared, other


def megabytes_of_processes(consumer: int, array_nbytes: int) -> dict[str, float]:
    workers = psutil.Process(consumer).children(recursive=True)
    private = 0
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            private += worker.memory_full_info().uss
    pss = [_pss(pid) for pid in (consumer, *(worker.pid for worker in workers))]
    shared, other = sum(one for one, _ in pss), sum(one for _, one in pss)
    return {
        "processes": len(workers),
        "workers_uss_mb": private / 1e6,
        "all_mb": (shared + other) / 1e6,
        "arrays_in_shared_memory": shared / array_nbytes,
    }
