"""What a process starts with: environment, path, folder, the interpreter's flags, and the files of its modules.

A server serves a pool only while these still match the program's.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from workers.frameworks import keras
from workers.job.installed import is_installed

from .by_value import search_path
from .program_settings import flags


def start_environment() -> dict[str, Any]:
    """Return what a process inherits, or is given, when it starts."""
    variables = environment()
    variables.pop("PYTEST_CURRENT_TEST", None)
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    return {
        "flags": flags(),
        "environ": variables,
        "path": search_path(),
        "folder": _folder(),
        "affinity": affinity,
    }


def environment() -> dict[str, str]:
    """Return the program's environment variables, with its Keras backend if that was set by other means."""
    variables = dict(os.environ)
    return variables | keras.backend_variable(variables)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed
        return None


def files_of_users() -> dict[str, float]:
    """Return {file: modification time} of the modules that belong to no installed package."""
    found = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and name != "__main__" and not is_installed(name):
            found[file] = changed_at(file)
    return found


def changed_at(file: str) -> float:
    try:
        return os.stat(file).st_mtime
    except OSError:
        return 0.0
