"""What ``multiprocessing`` hands on to its children, and so our workers too get: its key and its resource tracker.

With the key, the proxies of a ``Manager`` can call it. The tracker removes named shared memory and semaphores when the
last process that knows it has ended: a worker with one of its own would remove, when it ends, what the program uses.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any

ADVICE = (
    "It can only be inherited by children of multiprocessing. Instead of a Value or an Array, hold an array of "
    "workers.share(np.zeros(n)), which all workers see as it is written here. What jobs write as well, and locks, "
    "queues and events: take those of multiprocessing.Manager(), which can be sent"
)


def key() -> bytes | None:
    """That of this process; None: it does without multiprocessing. Runs in: consumer."""
    module = sys.modules.get("multiprocessing.process")
    return None if module is None else bytes(module.current_process().authkey)


def tracker() -> int | None:
    """The descriptor by which the tracker is told; None: there is none. Runs in: consumer."""
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    descriptor: int | None = getattr(tracker, "_fd", None)
    try:
        return None if descriptor is None or os.fstat(descriptor) is None else descriptor
    except OSError:  # somebody has closed it
        return None


def inherit(key: bytes | None, tracker: int | None) -> None:
    """Have what the consumer has. Closes ``tracker``, or keeps it. Runs in: worker."""
    if key is not None:
        importlib.import_module("multiprocessing.process").current_process().authkey = key
    if tracker is not None:
        known = importlib.import_module("multiprocessing.resource_tracker")._resource_tracker
        if known._fd is None:
            known._fd = tracker
        else:
            os.close(tracker)


def is_inherited(value: Any) -> bool:
    """Whether it is an object of multiprocessing, or a number of ``multiprocessing.RawValue``."""
    kinds = type(value), type(getattr(value, "__dict__", {}).get("_wrapper"))
    return any(str(kind.__module__).startswith("multiprocessing.") for kind in kinds)


def reduced(obj: Any) -> Any:
    """How to make an object of multiprocessing again, as ``__reduce__`` returns it; None: as its class says.

    A proxy of a manager needs the manager's key. Shared memory that is not tracked here is not to be tracked there.

    Raises:
        TypeError: it is one end of a pipe, whose number means another file in a worker.
    """
    kind: Any = type(obj)
    managers, connection = map(sys.modules.get, ("multiprocessing.managers", "multiprocessing.connection"))
    if managers is not None and issubclass(kind, managers.BaseProxy):
        make, arguments, *others = obj.__reduce__()
        if not arguments or not isinstance(arguments[-1], dict) or getattr(obj, "_authkey", None) is None:
            return None
        return make, (*arguments[:-1], {**arguments[-1], "authkey": bytes(obj._authkey)}), *others
    if connection is not None and issubclass(kind, connection._ConnectionBase):
        raise TypeError("a pipe of multiprocessing is open in this process alone")
    if kind.__name__ == "SharedMemory" and not getattr(obj, "_track", True):  # from Python 3.13 on
        return functools.partial(kind, track=False), (obj.name, False, obj.size)
    return None
