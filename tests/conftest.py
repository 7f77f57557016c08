"""The police: no test may hang, or leave a process, thread, descriptor or /dev/shm name behind."""

from __future__ import annotations

import faulthandler
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent)]  # for tests.support, also in the workers

DEADLINE_S = 120.0  # detects a deadlock, nothing else
PATIENCE_S = 5.0  # for what ends by itself


def processes() -> set[str]:
    return {f"process {child.pid}" for child in psutil.Process().children(recursive=True)}


def threads() -> set[str]:
    return {f"thread {thread.name}" for thread in threading.enumerate()}


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the one that lists
        # TensorFlow keeps what it opens at its first use, for as long as the process lives.
        if "tensorflow" in sys.modules and not target.startswith(("socket:", "/memfd:", "pipe:")):
            continue
        found.add(f"descriptor {name} -> {target}")
    return found


def shared_names() -> set[str]:
    return {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}


WATCHED: list[Callable[[], set[str]]] = [processes, threads, descriptors, shared_names]


def everything() -> set[str]:
    return set().union(*(look() for look in WATCHED))


@pytest.fixture(autouse=True)
def police() -> Iterator[None]:
    """Fails a test that leaves something behind; ends the run, with all stacks, if one hangs."""
    before = everything()
    faulthandler.dump_traceback_later(DEADLINE_S, exit=True, file=sys.__stderr__)
    try:
        yield
        gc.collect()
        deadline = time.monotonic() + PATIENCE_S
        while (left := everything() - before) and time.monotonic() < deadline:
            gc.collect()
            time.sleep(0.01)
        if "tensorflow" in sys.modules:
            left = {each for each in left if not each.startswith("thread ThreadPool")}
        assert not left, f"left behind: {sorted(left)}"
    finally:
        faulthandler.cancel_dump_traceback_later()
