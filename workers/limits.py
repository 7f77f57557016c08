"""Finds out how much memory and how many processes and cores the machine and its control groups let this process use.

A container is a control group. Files hold its limits; their names differ between versions 1 and 2 of control groups.
The limits of enclosing groups apply too, but can be read only if these groups are visible from inside the container.

In all functions, ``proc`` is the folder of /proc and ``root`` that of the control groups. Tests pass other folders.
"""

from __future__ import annotations

import math
import mmap
import os
from typing import NamedTuple

PROC = "/proc"
ROOT = "/sys/fs/cgroup"

_MEMORY = ("memory.max", "memory.limit_in_bytes")  # in version 2, in version 1
_NO_LIMIT = 1 << 60  # in version 1, a number that is this large means no limit


class Limit(NamedTuple):
    """An upper limit, ``most``, and where it comes from, e.g. "pids.max of the control group /sys/fs/cgroup/a"."""

    most: int
    source: str


def groups(controller: str, proc: str = PROC, root: str = ROOT) -> list[str]:
    """Return the folders of this process's control groups for ``controller``, such as "memory", and of enclosing ones.

    Some of these folders may not exist here: a container may be told paths that only its host can see.
    """
    found = [root]  # often the only one visible in a container
    try:
        with open(f"{proc}/self/cgroup") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return found
    for _, controllers, path in lines:
        if controllers and controller not in controllers.split(","):
            continue
        for base in [f"{root}/{name}" for name in (controller, controllers)] if controllers else [root]:
            inner = path
            while inner.strip("/"):
                found.append(base + inner)
                inner = os.path.dirname(inner)
            found.append(base)
    return found


def memory(proc: str = PROC, root: str = ROOT) -> Limit | None:
    """Return the limit, in bytes, on the memory that all processes here may use together; None if it is unknown."""
    found = [_of_file(folder, name) for folder in groups("memory", proc, root) for name in _MEMORY]
    try:
        with open(f"{proc}/meminfo") as file:
            total = next(int(line.split()[1]) for line in file if line.startswith("MemTotal:"))
        found.append(Limit(total * 1024, "this machine"))
    except (OSError, ValueError, StopIteration):
        pass
    return min((each for each in found if each is not None), default=None)


def processes(proc: str = PROC, root: str = ROOT) -> list[Limit]:
    """Return the known limits on the number of processes and threads: the control groups', and this user's."""
    found = [_of_file(folder, "pids.max") for folder in groups("pids", proc, root)]
    least = min((each for each in found if each is not None), default=None)
    limits = [] if least is None else [least]
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        if limit != resource.RLIM_INFINITY:
            limits.append(Limit(limit, "RLIMIT_NPROC (ulimit -u)"))
    except (ImportError, AttributeError):  # not on every platform
        pass
    return limits


def cores(proc: str = PROC, root: str = ROOT) -> int:
    """Return how many cores this process may use, by its CPU affinity and its control groups' quotas; at least 1."""
    most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in groups("cpu", proc, root):
        for quota in (_quota(_read(folder, "cpu.max")), _quota_1(folder)):
            if quota is not None:
                most = min(most, math.ceil(quota))
    return max(1, most)


def descriptors() -> int:
    """Return how many files this process may have open at once: ``ulimit -n``."""
    import resource

    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def private_nbytes(pid: int | str) -> int:
    """Return the resident memory of process ``pid`` in bytes, without shared memory; 0 if it is unknown."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared, *_ = file.read().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def _quota(words: list[str]) -> float | None:
    """Return the CPU quota, in cores, from the words of its file: 1.5 for ["150000", "100000"]; None for no limit."""
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _quota_1(folder: str) -> float | None:
    """Return the CPU quota in cores of a control group of version 1; None if there is no limit, or no such file."""
    return _quota([*_read(folder, "cpu.cfs_quota_us"), *_read(folder, "cpu.cfs_period_us")])


def _of_file(folder: str, name: str) -> Limit | None:
    try:
        (text,) = _read(folder, name)
        most = int(text)
    except ValueError:  # "max", or no such file
        return None
    return Limit(most, f"{name} of the control group {folder}") if most < _NO_LIMIT else None


def _read(folder: str, name: str) -> list[str]:
    """Return the words in the file ``name`` of ``folder``; [] if it cannot be read."""
    try:
        with open(f"{folder}/{name}") as file:
            return file.read().split()
    except OSError:
        return []


def default_nb_workers() -> int:
    """Return the default number of workers: the cores that this process may use, less one for the loop; at least 1."""
    return max(1, cores() - 1)
