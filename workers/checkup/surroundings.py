"""What a job may depend on besides its arguments and its seed, and what it leaves open: read in any process."""

from __future__ import annotations

import locale
import os
import sys
import threading
import time
from decimal import getcontext
from typing import Any, NamedTuple

import numpy as np

from workers import frameworks
from workers.checks import short
from workers.job.installed import is_installed

_SIMPLE = (type(None), bool, int, float, str, bytes, np.generic)
_MOST_PARTS = 50
_NOT_FILES = "/memfd:", "/dev/shm", "/proc"  # what the engine opens


def settings() -> dict[str, str]:
    """Return {setting: its value, as text} of this process: those that may change what a job computes.
    The environment is not among them: workers start with that of the program, and it may hold secrets."""
    found = {
        "the current folder": os.getcwd() if os.path.isdir(".") else "",
        "the locale": locale.setlocale(locale.LC_ALL),
        "the time zone": str(time.tzname),
        "the precision of decimal": str(getcontext().prec),
        "np.geterr()": str(np.geterr()),
    }
    for values in frameworks.asked("settings"):
        found |= {f"{module}.{name}": str(value) for module, of in values.items() for name, value in of.items()}
    for name, module in list(sys.modules.items()):
        if name not in ("__main__", "__mp_main__") and not is_installed(name) and hasattr(module, "__dict__"):
            values = [(key, value) for key, value in list(vars(module).items()) if not key.startswith("__")]
            found |= {f"{name}.{key}": short(value) for key, value in values if _is_simple(value)}
    return found


def _is_simple(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        parts = list(value.values()) if isinstance(value, dict) else value
        return len(parts) <= _MOST_PARTS and all(isinstance(each, _SIMPLE) for each in parts)
    return isinstance(value, _SIMPLE)


def others(here: dict[str, str], there: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return [(setting, its value in the program, its value in a worker)] of those that both have, and that differ."""
    return [(name, here[name], there[name]) for name in here if name in there and here[name] != there[name]]


class Opened(NamedTuple):
    """What this process has open: its files, by descriptor; its connections; its threads."""

    files: dict[str, str]  # {descriptor: path}, e.g. {"7": "/data/train.h5"}
    num_connections: int
    num_threads: int

    @classmethod
    def now(cls) -> Opened:
        """Look, in /proc if there is one."""
        files: dict[str, str] = {}
        num_connections, num_threads = 0, threading.active_count()
        try:
            num_threads = len(os.listdir("/proc/self/task"))
            for descriptor in os.listdir("/proc/self/fd"):
                target = _target(descriptor)
                num_connections += target.startswith("socket:")
                if target.startswith("/") and not target.startswith(_NOT_FILES):
                    files[descriptor] = target
        except OSError:  # no /proc
            pass
        return cls(files, num_connections, num_threads)


def _target(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # the one that lists the others
        return ""
