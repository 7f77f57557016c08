"""Gives workers what children of ``multiprocessing`` inherit: its authentication key and its resource tracker.

With the key, a worker can use the proxies of a ``Manager``. The tracker is a process that removes named shared memory
and semaphores when the last process connected to it has ended. If a worker had a tracker of its own, the worker's exit
would remove what the program still uses.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any

ADVICE = (
    "Only children of multiprocessing can inherit it. Instead of a Value or an Array, hold an array of "
    "workers.share(np.zeros(n)): all workers see what the program writes to it. For values that jobs write too, and "
    "for locks, queues and events, use those of multiprocessing.Manager(), which can be sent"
)


def key() -> bytes | None:
    """Return the authentication key of multiprocessing; None if multiprocessing is not loaded. Runs in: consumer."""
    module = sys.modules.get("multiprocessing.process")
    return None if module is None else bytes(module.current_process().authkey)


def tracker() -> int | None:
    """Return the descriptor of the pipe to multiprocessing's resource tracker; None if no tracker runs.

    Runs in: consumer.
    """
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    descriptor: int | None = getattr(tracker, "_fd", None)
    try:
        return None if descriptor is None or os.fstat(descriptor) is None else descriptor
    except OSError:  # the descriptor was closed
        return None


def inherit(key: bytes | None, tracker: int | None) -> None:
    """Use the consumer's authentication key and resource tracker in this process. Runs in: worker.

    ``tracker`` is a descriptor of the pipe to the tracker. It is closed if this process already uses a tracker.
    """
    if key is not None:
        importlib.import_module("multiprocessing.process").current_process().authkey = key
    if tracker is not None:
        known = importlib.import_module("multiprocessing.resource_tracker")._resource_tracker
        if known._fd is None:
            known._fd = tracker
        else:
            os.close(tracker)


def is_inherited(value: Any) -> bool:
    """Return True if ``value`` is an object of multiprocessing, such as a lock or a ``RawValue`` (a ctypes object)."""
    kinds = type(value), type(getattr(value, "__dict__", {}).get("_wrapper"))
    return any(str(kind.__module__).startswith("multiprocessing.") for kind in kinds)


def reduced(obj: Any) -> Any:
    """Return (function, arguments) to rebuild ``obj`` in a worker, as from ``__reduce__``; None to pickle it as usual.

    Two kinds of objects are not pickled as usual: a manager's proxy, which is sent with the manager's authentication
    key, and ``SharedMemory`` made with ``track=False``, which keeps this setting.

    Raises:
        TypeError: ``obj`` is one end of a pipe. In a worker, its descriptor would belong to another file.
    """
    kind: Any = type(obj)
    managers, connection = map(sys.modules.get, ("multiprocessing.managers", "multiprocessing.connection"))
    if managers is not None and issubclass(kind, managers.BaseProxy):
        make, arguments, *others = obj.__reduce__()
        if not arguments or not isinstance(arguments[-1], dict) or getattr(obj, "_authkey", None) is None:
            return None
        return make, (*arguments[:-1], {**arguments[-1], "authkey": bytes(obj._authkey)}), *others
    if connection is not None and issubclass(kind, connection._ConnectionBase):
        raise TypeError("a pipe of multiprocessing is open only in this process")
    if kind.__name__ == "SharedMemory" and not getattr(obj, "_track", True):  # from Python 3.13 on
        return functools.partial(kind, track=False), (obj.name, False, obj.size)
    return None
