"""Runs the server: a small clean process that forks the workers of all pools, reaps them, and kills them when it ends.

A pool is the workers of one front-end. Workers are not forked from the user's process (the consumer), because threads,
TensorFlow or CUDA may run there, and these do not survive a fork. The server has only one thread. First, it does the
imports that each worker would otherwise do for itself (see ``preload``). Then it waits for orders from the pools, and
for the death of a worker or of the consumer. A dead worker is replaced by another fork, which takes milliseconds.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import sys
import time
import weakref
from collections.abc import Sequence
from typing import Any

from . import preload
from .channel import Channel
from .messages import Attach, Detach, Detached, Exited, Fork, Forked, NotForked, Preloaded, Signal
from .status import StatusPage

_IDLE_MS = 300_000  # the server exits after this long without a pool


class _NotNeeded(Exception):
    """The exception that ends the server's loop, because the program is gone or has had no pool for five minutes."""


class _Imports:
    """The imports that the server does for all workers. If one makes forks unsafe, the server restarts without it."""

    def __init__(self, path: list[str], request: dict[str, Any], status: StatusPage) -> None:
        self.seconds = 0.0  # how long the imports have taken
        self._path = path
        self._request = request  # the arguments of main() except the path
        self._status = status

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """The modules that the server must not import, as (module, reason). Each worker imports them for itself."""
        return self._request["skipped"]  # type: ignore[no-any-return]

    def add(self, modules: list[str], attached: list[int]) -> None:
        """Import more ``modules``. If one makes forks unsafe, restart the server process without it, and do not return.

        Args:
            attached: the descriptors of sockets to pools that wait for these imports. They stay open in a restart.
        """
        start_s, request = time.monotonic(), self._request
        request["modules"] = sorted({*request["modules"], *modules})
        found = preload.preload(modules)
        if found is not None:
            request["modules"].remove(found.module)
            request |= {"skipped": [*self.skipped, tuple(found)], "attached": attached}
            self._status.show_idle()
            preload.begin_anew(self._path, request, [request["descriptor"], request["page"], *attached])
        self.seconds += time.monotonic() - start_s


class _Pool:
    """The server's record of one pool (the workers of one front-end): its channel and its process groups."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.groups: set[int] = set()  # process groups of all its workers so far, and of the processes they started

    def tell(self, message: tuple[Any, ...]) -> None:
        with contextlib.suppress(ConnectionError):  # the front-end is gone
            self.channel.send(message)


class Server:
    """The main loop of the server process: it carries out the orders of pools, and reports their workers' deaths."""

    def __init__(self, channel: Channel, page: int, consumer: int, imports: _Imports) -> None:
        self._channel = channel
        self._imports = imports
        self._pools: dict[int, _Pool] = {}  # {descriptor of its channel: pool}
        self._workers: dict[int, tuple[_Pool, int]] = {}  # {process id: (its pool, worker)}
        self._pid = os.getpid()
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._wakeup, wakeup_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(wakeup_in, False)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._files = [page, self._wakeup, wakeup_in]  # a new worker closes these
        self._poll.register(self._wakeup, select.POLLIN)
        # When the consumer dies, its end of the socket may stay open in forks of it. So watch the process as well.
        self._consumer = _open_pid(consumer)
        if self._consumer is not None:
            self._files.append(self._consumer)
            self._poll.register(self._consumer, select.POLLIN)

    def run(self) -> None:
        """Serve the pools, then kill all workers.

        Blocks: until the consumer (the user's process) is gone, or has had no pool for five minutes.
        """
        try:
            while True:
                ready = self._poll.poll(None if self._pools else _IDLE_MS)
                if not ready:
                    raise _NotNeeded
                for file, _ in ready:
                    self._look_at(file)
                self._reap()
        except (_NotNeeded, EOFError, OSError):
            pass
        self._kill(list(self._workers), is_last=True)
        for channel in [self._channel, *(pool.channel for pool in self._pools.values())]:
            channel.close()

    def _look_at(self, file: int) -> None:
        if file == self._consumer:
            raise _NotNeeded
        if file == self._wakeup:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wakeup, 4096)
        elif file == self._channel.fileno():
            received = self._channel.receive()
            modules = [name for message, _ in received if isinstance(message, Attach) for name in message.modules]
            self.attach([descriptor for _, (descriptor,) in received], modules)
        elif file in self._pools:  # else the pool was detached earlier in this loop
            self._obey_all(self._pools[file])

    def attach(self, descriptors: list[int], modules: list[str]) -> None:
        """Import the ``modules`` that new pools need, then serve these pools on the sockets ``descriptors``."""
        if modules:
            self._imports.add(modules, descriptors)
        for descriptor in descriptors:
            pool = self._pools[descriptor] = _Pool(Channel(socket.socket(fileno=descriptor)))
            self._poll.register(descriptor, select.POLLIN)
            pool.tell(Preloaded(self._imports.seconds, self._imports.skipped))

    def _obey_all(self, pool: _Pool) -> None:
        try:
            received = pool.channel.receive()
        except (EOFError, OSError):
            self._detach(pool)
            return
        for message, files in received:
            if isinstance(message, Fork):
                self._fork(pool, message, files)
            elif isinstance(message, Signal):
                for pid, (of, worker) in self._workers.items():
                    if of is pool and worker == message.worker:
                        os.kill(pid, message.signal)  # not reaped yet, so no other process has this id
            elif isinstance(message, Detach):
                self._detach(pool)

    def _detach(self, pool: _Pool) -> None:
        self._poll.unregister(pool.channel)
        del self._pools[pool.channel.fileno()]
        self._kill([pid for pid, (of, _) in self._workers.items() if of is pool], pool.groups, not self._pools)
        pool.tell(Detached())
        pool.channel.close()

    def _fork(self, pool: _Pool, order: Fork, files: list[int]) -> None:
        sock, page, *streams = files
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or no memory: the other workers go on
            for file in files:
                os.close(file)
            pool.tell(NotForked(order.worker, os.strerror(error.errno or 0)))
            return
        if pid == 0:
            try:
                from . import worker as program

                program.die_with_parent(self._pid)
                os.setpgid(0, 0)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for channel in [self._channel, *[each.channel for each in self._pools.values()]]:
                    channel.close()
                for stream, file in zip(order.streams, streams, strict=True):
                    os.dup2(file, stream)
                for file in [*self._files, *streams]:
                    os.close(file)
                _forget_exit_functions()
                program.main(socket.socket(fileno=sock), page, order.number)
            finally:
                os._exit(1)
        for file in files:
            os.close(file)
        self._workers[pid] = pool, order.worker
        pool.groups.add(pid)
        pool.tell(Forked(order.worker, pid))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._workers:  # else a process that a job has left behind
                pool, worker = self._workers.pop(pid)
                scale = 1 if sys.platform == "darwin" else 1024
                pool.tell(Exited(worker, os.waitstatus_to_exitcode(status), usage.ru_maxrss * scale))

    def _kill(self, workers: list[int], groups: set[int] | None = None, is_last: bool = False) -> None:
        """Kill and reap ``workers`` (process ids), and processes that jobs have started and left running.

        Such a leftover process is killed if its process group is one of ``groups``, or in any case if ``is_last``.
        """
        while doomed := {*workers, *(pid for pid in _orphans(self._pid) if is_last or _group(pid) in (groups or ()))}:
            for pid in doomed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in doomed:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
                self._workers.pop(pid, None)
            workers = []


def _orphans(pid: int) -> list[int]:
    """Return the process ids of the server's children: workers, and processes that dead workers left running.

    On Linux, the server is a "subreaper": it becomes the parent of such processes. ``pid``: the server's process id.
    """
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:  # macOS, or a kernel without it
        return []


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _forget_exit_functions() -> None:
    """Unregister the exit functions that this new worker has inherited, so that only the server runs them.

    Such a function may, for example, remove a folder that all workers use. Those of logging and multiprocessing stay.
    """
    atexit._clear()
    if "logging" in sys.modules:
        atexit.register(sys.modules["logging"].shutdown)
    if "multiprocessing.util" in sys.modules:  # its function checks which process it runs in
        atexit.register(sys.modules["multiprocessing.util"]._exit_function)
    finalize: Any = weakref.finalize
    for each in list(getattr(finalize, "_registry", ())):
        each.atexit = False
    finalize._registered_with_atexit = False  # so that a finalizer made in the worker registers it again


def _open_pid(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # macOS, or an old kernel
        return None


def main(
    path: list[str],
    descriptor: int,
    page: int,
    consumer: int,
    modules: list[str],
    skipped: list[tuple[str, str]],
    attached: Sequence[int] = (),
) -> None:
    """Run the server of one program until the program no longer needs it, then exit the process. Never returns.

    Args:
        path: ``sys.path`` before the imports of ``modules``, for use in a restart.
        descriptor: the descriptor of the socket on which the program announces its pools.
        page: the descriptor of the status page (shared memory), to which the stack of a hanging import is written.
        consumer: the program's process id.
        modules: the modules to import before the first fork.
        skipped: the modules not to import, as (module, reason).
        attached: after a restart, the descriptors of the sockets to pools that were announced before.
    """
    import ctypes

    from . import freed_memory

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the consumer's to handle
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)
    freed_memory.keep()
    for file in (descriptor, page, *attached):
        os.set_inheritable(file, False)
    status = StatusPage(page)
    status.catch_crashes()
    status.begin(1)  # from now on the server can be asked for its stack
    request = {"descriptor": descriptor, "page": page, "consumer": consumer, "modules": modules, "skipped": skipped}
    imports = _Imports(path, request, status)
    imports.add(modules, list(attached))
    server = Server(Channel(socket.socket(fileno=descriptor)), page, consumer, imports)
    server.attach(list(attached), [])
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    os._exit(0)  # finalizing an interpreter that has loaded a framework is slow
