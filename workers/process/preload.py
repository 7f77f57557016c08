"""Imports modules in the server, before it forks workers, so that not every worker has to import them for itself.

The modules are those that the pickled sequence refers to. A worker is a fork of the server and inherits what an import
has made, except threads; but it shares open files, sockets and devices with the other workers. So if an import starts a
thread or opens such a file, the server restarts without that module, and each worker imports the module for itself.
"""

from __future__ import annotations

import gc
import importlib
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .program_settings import flags

#: Modules that must not be imported before a fork, and why.
NEVER = {
    "mpi4py": "it starts MPI",
    "pycuda": "it creates a CUDA context",
}
#: Threads that a fork can do without, as their package restarts them or works without them.
_HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
_HARMLESS_DEVICES = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"})


class Skipped(NamedTuple):
    """A module left for each worker to import, and why: Skipped(module="mine", reason="it has opened /data/x.h5")."""

    module: str
    reason: str


def modules_to_preload(modules: Iterable[str]) -> frozenset[str]:
    """Return those of ``modules`` that the server should import, because this program has loaded them.

    Modules of Python, numpy and this package are left out. Runs in: consumer.
    """
    own = {"__main__", "__mp_main__", "numpy", "workers", "cloudpickle", *sys.stdlib_module_names}
    return frozenset(name for name in modules if name.partition(".")[0] not in own and name in sys.modules)


def preload(modules: Iterable[str]) -> Skipped | None:
    """Import ``modules`` until one makes forks unsafe, and return that module; None if all of them are safe.

    A module that fails to import is ignored: the worker that needs it reports the error.

    Runs in: the server, in its only thread.
    """
    for name in sorted(modules):
        reason = NEVER.get(name.partition(".")[0])
        if reason is None:
            before = _open_files()
            try:
                importlib.import_module(name)
            except BaseException:  # the worker that needs it reports the error; SystemExit must not end the server
                continue
            reason = _hazard(before)
        if reason is not None:
            return Skipped(name, reason)
    gc.collect()
    gc.freeze()  # so that a worker's garbage collector does not write to pages shared with the server
    return None


def _hazard(before: set[tuple[int, str]]) -> str | None:
    """Return why the last import has made forks unsafe, e.g. "it has started the thread ..."; None if they are safe.

    ``before``: the files that were open before the import, as (descriptor, path).
    """
    threads = sorted(_threads())
    if threads:
        return f"it has started the thread {', '.join(threads)}, which a fork would lose"
    for descriptor, path in sorted(_open_files() - before):
        if _is_hazardous(descriptor, path):
            return f"it has opened {path}, which workers would share"
    return None


def _threads() -> list[str]:
    """Return the names of all threads but the main one and harmless ones; on macOS, only of those that Python knows."""
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:
        import threading

        return [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    names = []
    for task in tasks:
        if int(task) != os.getpid():
            try:
                with open(f"/proc/self/task/{task}/comm") as file:
                    names.append(file.read().strip())
            except OSError:  # the thread has just ended
                continue
    return [name for name in names if name not in _HARMLESS_THREADS]


def _open_files() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # the descriptor with which the folder was listed, closed by now
            continue
    return found


def _is_hazardous(descriptor: int, path: str) -> bool:
    """Return True if forks must not share the open file ``descriptor``. A file open only for writing is harmless."""
    try:
        mode = os.fstat(descriptor).st_mode
        with open(f"/proc/self/fdinfo/{descriptor}") as file:
            flags = int(next(line for line in file if line.startswith("flags:")).split()[1], 8)
    except (OSError, StopIteration):
        return False
    if stat.S_ISREG(mode):
        return flags & os.O_ACCMODE != os.O_WRONLY and not path.startswith("/memfd:")
    if stat.S_ISCHR(mode):
        return path not in _HARMLESS_DEVICES and not path.startswith("/dev/pts/")
    return not stat.S_ISDIR(mode)


#: The folder that holds the package ``workers``.
HERE = str(Path(__file__).resolve().parents[2])

_PROGRAM = """\
import sys
sys.path[:] = {path!r}
import importlib.machinery, importlib.util
spec = importlib.machinery.PathFinder.find_spec("workers", [{here!r}])
sys.modules["workers"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["workers"])
from workers.process.server import main
main(sys.path[:], **{request!r})
"""


def program(path: list[str], request: dict[str, object]) -> list[str]:
    """Return the command line that starts a server process. ``request``: the keyword arguments of ``server.main``.

    ``path``: the ``sys.path`` of the server. Even if another package "workers" is found there, the server uses the one
    that this module is part of.
    """
    return [sys.executable, *flags(), "-c", _PROGRAM.format(path=path, here=HERE, request=request)]


def begin_anew(path: list[str], request: dict[str, object], keep: Iterable[int]) -> None:
    """Replace this server, by ``exec``, with a clean process that has the same process id. Never returns.

    Args:
        path, request: see :func:`program`.
        keep: the file descriptors to keep open, besides the standard streams.
    """
    for descriptor, _ in _open_files():
        if descriptor > 2:
            try:
                os.set_inheritable(descriptor, descriptor in keep)
            except OSError:
                continue
    sys.stdout.flush()
    sys.stderr.flush()
    command = program(path, request)
    os.execv(command[0], command)
