"""The command ``python -m workers``: prints what a bug report needs, and tests a small pool of workers.

``python -m workers check MODULE:OBJECT`` checks a source of batches instead: see ``checkup``.
"""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import os
import platform
import sys
import time
from typing import Any

import numpy as np

import workers
from workers import frameworks, limits
from workers.batch.memory_limit import available_nbytes
from workers.report.units import count, nbytes, seconds

_PACKAGES = "numpy", "cloudpickle", "psutil", "pillow", *frameworks.PACKAGES, *frameworks.THAT_DRAW, "lightning", "ray"
_NUM_BATCHES = 20


class Batches(workers.Sequence[Any]):
    """A sequence for testing the pool, with batches of 1 MB of random numbers."""

    def __len__(self) -> int:
        return _NUM_BATCHES

    def __getitem__(self, index: int) -> Any:
        return workers.current_rng().random(1 << 17), index


def main() -> int:
    """Print facts about this installation, and test a pool of workers. Return the exit code.
    It is 0 if the pool delivers the same batches as a loop without workers, else 1."""
    for name, fact in _facts():
        _say(name, fact)
    try:
        fact, is_right = _pool()
    except Exception as error:
        fact, is_right = f"{type(error).__name__}: {error}", False
    _say("pool", fact)
    return 0 if is_right else 1


def _say(name: str, fact: str) -> None:
    sys.stdout.write(f"{name:<15} {fact}\n")
    sys.stdout.flush()


def _facts() -> list[tuple[str, str]]:
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "unknown"
    memory, available = limits.memory(), available_nbytes()
    of_processes = [f"{limit.most:,} ({limit.source})" for limit in limits.processes()]
    return [
        ("workers", f"{workers.__version__} in {os.path.dirname(workers.__file__)}"),
        ("Python", f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"),
        ("system", f"{platform.platform()}, {platform.machine()}"),
        ("installed", ", ".join(_versions())),
        ("cores", f"{limits.cores()} for this process; affinity {affinity}, machine {os.cpu_count()}"),
        ("memory", "unknown" if memory is None else f"{nbytes(memory.most)} ({memory.source})"),
        ("available", "unknown" if available is None else nbytes(available)),
        ("processes", ", ".join(of_processes) or "no limit found"),
        ("descriptors", f"{limits.descriptors():,}"),
        ("shared memory", "memfd_create" if hasattr(os, "memfd_create") else "unlinked files"),
        ("start method", f"{multiprocessing.get_start_method(allow_none=True) or 'default'}; workers do not use it"),
    ]


def _versions() -> list[str]:
    found = []
    for name in dict.fromkeys(_PACKAGES):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _pool() -> tuple[str, bool]:
    with Batches(seed=1).prefetch(nb_workers=0) as alone:
        expected = list(alone)
    start_s = time.monotonic()
    with Batches(seed=1).prefetch(nb_workers=2) as batches:
        got = list(batches)
    took = seconds(time.monotonic() - start_s)
    is_right = len(got) == len(expected) and all(
        index == other and np.array_equal(drawn, others)
        for (drawn, index), (others, other) in zip(got, expected, strict=True)
    )
    result = "the batches that the loop computes alone" if is_right else "other batches than the loop computes alone"
    return f"2 workers delivered {result}: {count(len(got), 'batch', 'batches')} of 1 MB in {took}", is_right


def _run(arguments: list[str]) -> int:
    if arguments[:1] != ["check"]:
        return main()
    from workers.checkup import command

    return command.main(arguments[1:])


if __name__ == "__main__":
    sys.exit(_run(sys.argv[1:]))
