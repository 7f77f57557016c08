"""What the server imports before it forks, so that no worker has to: the modules that the replica's pickle names.

A fork takes along what an import has made, but for threads; and files, sockets and devices that were opened it would
share with all its brothers. Where an import leaves such a thing behind, the server begins anew without that module,
and the workers import it for themselves.
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
    "pycuda": "it makes a CUDA context",
}
#: Threads that a fork can do without: their package starts them again, or does without them.
_HARMLESS_THREADS = frozenset({"jemalloc_bg_thd"})
_HARMLESS_DEVICES = frozenset({"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"})


class Skipped(NamedTuple):
    """A module that the workers import for themselves: Skipped("mine", "it has opened /data/images.h5")."""

    module: str
    reason: str


def worth_it(modules: Iterable[str]) -> frozenset[str]:
    """Those of ``modules`` that a server has not imported anyway. Runs in: consumer."""
    own = {"__main__", "__mp_main__", "numpy", "workers", "cloudpickle", *sys.stdlib_module_names}
    return frozenset(name for name in modules if name.partition(".")[0] not in own and name in sys.modules)


def preload(modules: Iterable[str]) -> Skipped | None:
    """Import ``modules``. Returns: the first that has left behind what must not be forked; None: none has.

    Runs in: the server, in its only thread.
    """
    for name in sorted(modules):
        reason = NEVER.get(name.partition(".")[0])
        if reason is None:
            before = _open_files()
            try:
                importlib.import_module(name)
            except BaseException:  # the worker that needs it will tell; what ends a program must not end this one
                continue
            reason = _hazard(before)
        if reason is not None:
            return Skipped(name, reason)
    gc.collect()
    gc.freeze()  # the garbage collector of a worker then writes to none of the pages that it shares
    return None


def _hazard(before: set[tuple[int, str]]) -> str | None:
    """Why this process must not fork any more; None: it may."""
    threads = sorted(_threads())
    if threads:
        return f"it has started the thread {', '.join(threads)}, which a fork would lose"
    for descriptor, path in sorted(_open_files() - before):
        if _is_hazardous(descriptor, path):
            return f"it has opened {path}, which workers would share"
    return None


def _threads() -> list[str]:
    """The names of the threads beside this one that matter; on macOS only those that Python knows."""
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
            except OSError:  # it has just ended
                continue
    return [name for name in names if name not in _HARMLESS_THREADS]


def _open_files() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:  # the one that lists
            continue
    return found


def _is_hazardous(descriptor: int, path: str) -> bool:
    """Whether two processes must not share it. A file that is only written to, such as a log, they may."""
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
    """The command line of a server that is to do what ``request`` says: see ``server.main``.

    It takes this very package, whatever else ``path`` and the folder have come to call "workers" since it was imported.
    """
    return [sys.executable, *flags(), "-c", _PROGRAM.format(path=path, here=HERE, request=request)]


def begin_anew(path: list[str], request: dict[str, object], keep: Iterable[int]) -> None:
    """Put a clean process in the place of this one, with the same number and with the descriptors of ``keep``."""
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
