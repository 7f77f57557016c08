"""Starts a pool of workers, or says what is missing for it."""

from __future__ import annotations

import errno
from typing import Any

from workers.engine.engine import Engine
from workers.engine.executor import Executor
from workers.engine.schedule import Schedule
from workers.engine.threads import ThreadExecutor
from workers.engine.watchdog import Options
from workers.errors import PlatformError
from workers.process.replica import Parcel, Pickled


def start(task: Any, nb_workers: int, kind: str, schedule: Schedule, options: Options) -> tuple[Engine, Parcel | None]:
    """(the engine of ``nb_workers`` processes or threads, what these work on; None: on ``task`` itself)."""
    executor: Executor
    parcel = None
    try:
        if kind == "thread":
            executor = ThreadExecutor(task, nb_workers)
        else:
            from workers.process.executor import ProcessExecutor

            pickled = Pickled(task, "the sequence")
            executor = ProcessExecutor(nb_workers, lambda: Parcel(pickled))
            parcel = executor.parcel
        try:
            return Engine(executor, schedule, options), parcel
        except OSError:
            executor.close()
            raise
    except OSError as error:
        raise _explained(error, nb_workers) from error


def _explained(error: OSError, nb_workers: int) -> OSError:
    if error.errno not in (errno.EMFILE, errno.ENFILE):
        return error
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return PlatformError(
        error.errno,
        f"{nb_workers} workers cannot be started: no file descriptors are left, of {limit} (ulimit -n); each worker "
        "needs two, and the pool a few more",
    )
