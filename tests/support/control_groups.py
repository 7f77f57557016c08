"""Control groups with limits, to run a program in: as a container is one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def _parents(controller: str) -> Iterator[Path]:
    """Control groups of this process in which others may be made."""
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers == controller:
                yield Path(f"/sys/fs/cgroup/{controller}{path}")
            elif controllers == "":
                yield Path(f"/sys/fs/cgroup{path}")


@contextlib.contextmanager
def limited(controller: str, most: int, *names: str) -> Iterator[Path]:
    """A new group whose file, the first of ``names`` that there is, says ``most``. Skips the test where none may be."""
    for parent in _parents(controller):
        made = parent / f"prefetch-test-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            if _limit(made, most, names):
                yield made
                return
        finally:
            made.rmdir()
    pytest.skip(f"no control group of this machine may be limited in {controller} by this user")


def _limit(group: Path, most: int, names: tuple[str, ...]) -> bool:
    for name in names:
        if (group / name).exists():
            with contextlib.suppress(OSError):
                (group / name).write_text(str(most))
                return True
    return False


def enter(group: Path) -> str:
    """A line of a program that puts it, and all that it starts, into ``group``."""
    return f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
