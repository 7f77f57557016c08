"""How much memory may still be taken: of the machine, and within the limits of control groups.

Shared memory is handed out on credit, and who touches what is not there is killed. So it is asked for before.
"""

from __future__ import annotations

from workers import limits

#: (limit, usage, in memory.stat what of that can be reclaimed) of control groups, version 2 and 1.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


class DoesNotFit(MemoryError):
    """Shared memory of ``nbytes`` is more than is left now. Any other MemoryError is somebody else's."""

    def __init__(self, text: str, nbytes: int = 0) -> None:
        super().__init__(text)
        self.nbytes = nbytes


def available_nbytes(proc: str = limits.PROC, root: str = limits.ROOT) -> int | None:
    """Bytes that may still be taken; None: not known here."""
    found = [_of_machine(proc)]
    for group in limits.groups("memory", proc, root):
        found += [_of_group(group, *files) for files in _FILES]
    return min((each for each in found if each is not None), default=None)


def check_available(nbytes: int) -> None:
    """Raise DoesNotFit, naming sizes, if ``nbytes`` are more than may still be taken."""
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
            most = int(file.read())  # "max" is no number: no limit
        with open(f"{folder}/{usage}") as file:
            used = int(file.read())
        with open(f"{folder}/memory.stat") as file:
            stat = dict(line.split(maxsplit=1) for line in file)
        return most - used + int(stat.get(reclaimable, 0))
    except (OSError, ValueError):
        return None
