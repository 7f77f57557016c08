"""Lets one thread at a time run jobs that use the process's global random generators."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from . import context

_globals_lock = threading.RLock()  # only its owner can release it
_MAX_WAIT_S = 5.0


def _begin_anew() -> None:
    """Replace the lock in a new fork, as a thread of the parent may hold the old one."""
    global _globals_lock
    _globals_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def run_alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``, while no other thread is within this function, as threads share the generators.

    But a job may wait for threads that run jobs too. So such a thread waits for 5 s at most.
    """
    current = context.current
    if current.is_alone:
        return function(*arguments)
    try:
        current.is_alone = True
        _globals_lock.acquire(timeout=_MAX_WAIT_S)
        return function(*arguments)
    finally:
        current.is_alone = False
        try:  # noqa: SIM105 - a Ctrl-C must not come first
            _globals_lock.release()
        except RuntimeError:  # another thread has it
            pass
