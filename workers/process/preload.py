"""Imports modules in the server, before it forks workers, so that not every worker has to import them for itself.

They are the modules that the pickled sequence refers to. A fork inherits everything that an import has made except
threads, and it shares open files, sockets and devices with the other forks. If an import starts a thread or opens such
a file, the server restarts itself without that module, and each worker imports it for itself.
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
#: Threads that a fork need not inherit: their package restarts them, or works without them.
_HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
_HARMLESS_DEVICES = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"})


class Skipped(NamedTuple):
    """A module that the server leaves for each worker to import: Skipped("mine", "it has opened /data/images.h5")."""

    module: str
    reason: str


def modules_to_preload(modules: Iterable[str]) -> frozenset[str]:
    """Return the ``modules`` worth importing in the server: loaded in this program, not Python's, numpy's or ours.

    Runs in: consumer.
    """
    own = {"__main__", "__mp_main__", "numpy", "workers", "cloudpickle", *sys.stdlib_module_names}
    return frozenset(name for name in modules if name.partition(".")[0] not in own and name in sys.modules)


def preload(modules: Iterable[str]) -> Skipped | None:
    """Import ``modules`` before any fork, up to the first that makes forks unsafe. Return that one, or None.

    A module that cannot be imported is passed over: the worker that needs it reports the error.

    Runs in: the server, in its only thread.
    """
    for name in sorted(modules):
        reason = NEVER.get(name.partition(".")[0])
        if reason is None:
            before = _open_files()
            try:
                importlib.import_module(name)
            except BaseException:  # the worker that needs it reports it; SystemExit must not end the server
                continue
            reason = _hazard(before)
        if reason is not None:
            return Skipped(name, reason)
    gc.collect()
    gc.freeze()  # so that a worker's garbage collector does not write to shared pages
    return None


def _hazard(before: set[tuple[int, str]]) -> str | None:
    """Return why an import makes forks unsafe, e.g. "it has started the thread ..."; None if it does not.

    ``before``: (descriptor, path) of each file that was open before the import.
    """
    threads = sorted(_threads())
    if threads:
        return f"it has started the thread {', '.join(threads)}, which a fork would lose"
    for descriptor, path in sorted(_open_files() - before):
        if _is_hazardous(descriptor, path):
            return f"it has opened {path}, which workers would share"
    return None


def _threads() -> list[str]:
    """Return the names of the other threads, except harmless ones; on macOS, only those that Python knows."""
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
        except OSError:  # it was the descriptor of this listing, and is closed now
            continue
    return found


def _is_hazardous(descriptor: int, path: str) -> bool:
    """Return True if forked workers must not share this open file. A file open only for writing (a log) is harmless."""
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

    ``path``: the server's ``sys.path``. The server uses this copy of the package, even if ``path`` leads to another
    "workers".
    """
    return [sys.executable, *flags(), "-c", _PROGRAM.format(path=path, here=HERE, request=request)]


def begin_anew(path: list[str], request: dict[str, object], keep: Iterable[int]) -> None:
    """Restart this server as a clean process with the same process id. Never returns.

    Args:
        path, request: see :func:`program`.
        keep: the file descriptors that stay open, besides the standard streams.
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
