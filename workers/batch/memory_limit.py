"""Check how much memory is still available, on the machine and within the limits of control groups.

The kernel grants more shared memory than is available, and kills a process that touches a page after memory has run
out. So the available memory is checked before shared memory is created.
"""

from __future__ import annotations

from workers import limits

#: (limit, usage, name in memory.stat of the reclaimable part of the usage) of control groups, versions 2 and 1.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class DoesNotFit(MemoryError):
    """The error raised if ``nbytes`` of shared memory do not fit into memory; a plain MemoryError has another cause."""

    def __init__(self, text: str, nbytes: int = 0) -> None:
        super().__init__(text)
        self.nbytes = nbytes


def available_nbytes(proc: str = limits.PROC, root: str = limits.ROOT) -> int | None:
    """Return how many more bytes of memory the machine and its control groups allow this process; None if unknown.

    Args:
        proc: the folder where the process file system is mounted.
        root: the folder where control groups are mounted.
    """
    found = [_of_machine(proc)]
    for group in limits.groups("memory", proc, root):
        found += [_of_group(group, *files) for files in _FILES]
    return min((each for each in found if each is not None), default=None)


def check_available(nbytes: int) -> None:
    """Raise DoesNotFit if ``nbytes`` are more than the available memory; the error states both sizes."""
    available = available_nbytes()
    if available is not None and nbytes > available:
        limit = limits.memory()
        of = "" if limit is None else f" of {limit.most:,} ({limit.source})"
        raise DoesNotFit(
            f"{nbytes:,} bytes of shared memory do not fit: {max(0, available):,} bytes are left{of}", nbytes
        )


def _of_machine(proc: str) -> int | None:
    try:
        with open(f"{proc}/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _of_group(folder: str, limit: str, usage: str, reclaimable: str) -> int | None:
    try:
        with open(f"{folder}/{limit}") as file:
            most = int(file.read())  # "max" means no limit, and raises ValueError
        with open(f"{folder}/{usage}") as file:
            used = int(file.read())
        with open(f"{folder}/memory.stat") as file:
            stat = dict(line.split(maxsplit=1) for line in file)
        return most - used + int(stat.get(reclaimable, 0))
    except (OSError, ValueError):
        return None
