"""Collects what a new process would start with: environment, ``sys.path``, folder, Python flags, cores, source files.

A running server (the process that forks workers) serves a new pool only if none of these has changed since its start.
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
    """Return what a process started now would inherit from this one, to compare with what a running server inherited.

    The keys are "flags" (of the interpreter), "environ", "path" (``sys.path``), "folder" and "affinity" (usable cores).
    """
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
    """Return the environment variables, plus ``KERAS_BACKEND`` if the program chose Keras's backend in another way."""
    variables = dict(os.environ)
    return variables | keras.backend_variable(variables)


def _folder() -> str | None:
    try:
        return os.getcwd()
    except OSError:  # the folder was removed
        return None


def files_of_users() -> dict[str, float]:
    """Return {source file: modification time} of all imported modules that are the user's own, not installed."""
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
