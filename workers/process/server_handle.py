"""Starts and ends the server processes that fork the workers of pools. Pools that need the same imports share a server.

A server whose imports were slow stays alive when its last pool is gone, so that the next pool need not wait for them.
If that pool needs more imports, the server adds them. A server ends with the program, or after 5 minutes without pools.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from typing import Any

from workers.errors import PlatformError

from . import channel as channels
from . import messages, preload
from .by_value import search_path
from .channel import Channel
from .environment import changed_at, environment, files_of_users, start_environment
from .status import STACK_SIGNAL, StatusPage

logger = logging.getLogger("workers")

_LONG_S = 0.5  # a server whose imports took at least this long stays alive for later pools
_END_S = 5.0  # how long a server may take to kill a pool's workers, or to exit


class ServerHandle:
    """The handle of a server process that this process has started, shared by all pools that :func:`connect` to it.

    Args:
        modules: the modules that the server imports.
        started_in: the present environment, from ``start_environment``, in which the server starts.
    """

    def __init__(self, modules: frozenset[str], started_in: dict[str, Any]) -> None:
        self.modules = modules
        self.page = StatusPage()  # to which the server writes its stack on request
        self.started_in = started_in
        self.files = files_of_users()
        self.pid = os.getpid()
        self.pools: set[Connection] = set()  # the connections of the pools that use the server now
        self.import_s: float | None = None  # how long the imports took; None: they are not finished
        try:
            mine, theirs = channels.pair()
        except BaseException:
            self.page.close()
            raise
        try:
            self.process = _launch(theirs, self.page.descriptor, modules)
        except BaseException:
            mine.close()
            self.page.close()
            raise
        finally:
            theirs.close()
        self.channel = Channel(mine)
        self.end = weakref.finalize(self, _end, self.process, self.channel, self.page, self.pid)

    def serves(self, modules: frozenset[str], started_in: dict[str, Any]) -> bool:
        """Return True if a new pool can use this server, and gets the same workers as from a new server.

        Args:
            modules: the modules that the pool needs. The server can import missing ones while no other pool uses it.
            started_in: the present environment, which must equal the one in which the server was started.
        """
        may_import = not self.pools and self.import_s is not None and self.modules | modules not in _failed
        return (
            self.pid == os.getpid()
            and (modules <= self.modules or may_import)
            and self.started_in == started_in
            and self.process.poll() is None
            and all(changed_at(file) == when for file, when in self.files.items())
        )

    def add(self, modules: frozenset[str]) -> list[str]:
        """Record that the server will import ``modules`` too. Return a sorted list of those that are new to it."""
        more = sorted(modules - self.modules)
        if more:
            self.modules, self.files, self.import_s = self.modules | modules, files_of_users(), None
        return more


class Connection:
    """The connection of one pool of workers to the server that forks them."""

    def __init__(self, server: ServerHandle, modules: frozenset[str]) -> None:
        self.server = server
        mine, theirs = channels.pair()
        try:
            server.channel.send(messages.Attach(server.add(modules)), [theirs.fileno()])
        except ConnectionError:  # the server has just died: an end of file will tell the pool
            pass
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        mine.setblocking(False)
        self.channel = Channel(mine)
        self._is_over = False
        self._is_killed = False  # kill() has killed the server, because it did not answer

    @property
    def pid(self) -> int:
        """The process id of the server."""
        return self.server.process.pid

    @property
    def is_preloaded(self) -> bool:
        """True if the server has finished its imports, so that it carries out orders immediately."""
        return self.server.import_s is not None

    def state(self) -> str:
        """Return the state of the server's process, e.g. ``"sleeping"``; ``"gone"`` if there is no such process."""
        import psutil

        try:
            return str(psutil.Process(self.pid).status())
        except psutil.Error:
            return "gone"

    def is_stopped(self) -> bool:
        """Return True if the server's process is suspended (by SIGSTOP)."""
        return self.state() == "stopped"

    def kill(self) -> None:
        """Kill the server, which does not answer. Its workers die too. An end of file on the socket tells the pool."""
        self._is_killed = True
        self.server.process.kill()

    def tell(self, message: tuple[Any, ...], files: Iterable[int] = ()) -> None:
        """Send the server the order ``message``, with the descriptors ``files``. Do nothing if the server has ended."""
        if self._is_over:
            return
        with contextlib.suppress(ConnectionError):  # the server has died: an end of file will tell the pool
            self.channel.send(message, files)

    def note(self, preloaded: messages.Preloaded) -> None:
        """Record that the server has finished its imports, and log which modules it had to leave to the workers."""
        self.server.import_s = preloaded.seconds
        for module, reason in preloaded.skipped:
            _tell_skipped(module, reason)

    def ask_stack(self) -> None:
        """Send the server the signal that makes it write its stack. Do nothing if it cannot handle the signal yet."""
        running, _ = self.server.page.look()
        if running:
            self.server.process.send_signal(STACK_SIGNAL)

    def take_stack(self) -> tuple[str, int]:
        """Return (the stack that the server has written, or "" if it has written none; the server's process id)."""
        return self.server.page.take_text(), self.server.process.pid

    def wait(self) -> int:
        """Wait until the server, which has closed its socket, exits. Return its exit code; -1 if it takes over 5 s."""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.process.wait(_END_S)
        status = self.server.process.returncode
        if self.server.import_s is None and not self._is_killed:
            _failed.add(self.server.modules)
        self._leave()
        return -1 if status is None else status

    def close(self) -> None:
        """End the connection, and let the server kill the pool's remaining workers. May be called again.

        Blocks: until the server reports their death. If it does not within 5 s, it is killed too.
        """
        if self._is_over:
            return
        if self.server.import_s is not None or self._is_preloaded():
            self.tell(messages.Detach())
            if not self._receives(messages.Detached):
                self.server.process.kill()
        self.channel.close()
        self._leave()

    def _is_preloaded(self) -> bool:
        with contextlib.suppress(EOFError):
            for message, _ in self.channel.receive():
                if isinstance(message, messages.Preloaded):
                    self.note(message)
        return self.server.import_s is not None

    def _receives(self, kind: type) -> bool:
        """Wait for a message of class ``kind`` or an end of file. Return False if neither comes within 5 s."""
        deadline_s = time.monotonic() + _END_S
        poll = select.poll()
        poll.register(self.channel, select.POLLIN | (select.POLLOUT if self.channel.has_unsent else 0))
        while (left_s := deadline_s - time.monotonic()) > 0:
            poll.poll(1000 * left_s)
            try:
                self.channel.flush()
                if any(isinstance(message, kind) for message, _ in self.channel.receive()):
                    return True
            except (EOFError, OSError):
                return True
            poll.modify(self.channel, select.POLLIN | (select.POLLOUT if self.channel.has_unsent else 0))
        return False

    def _leave(self) -> None:
        self._is_over = True
        self.server.pools.discard(self)
        _tidy()


@functools.cache
def _tell_skipped(module: str, reason: str) -> None:
    """Log that each worker imports ``module`` for itself, and the ``reason``. Log each such message only once."""
    logger.info("%s is imported by each worker for itself, not once by the server: %s", module, reason)


# A pool that ends never waits for this lock: the garbage collector may make the lock's holder wait for the pool's end.
_lock = threading.RLock()
_servers: list[ServerHandle] = []  # the newest comes last
_failed: set[frozenset[str]] = set()  # sets of modules whose import has ended a server: the workers import them


def _begin_anew() -> None:
    """Forget the parent's servers in a new fork. Replace the lock, as a thread of the parent may hold the old one."""
    global _lock
    _lock = threading.RLock()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def connect(modules: frozenset[str]) -> Connection:
    """Connect a new pool to a server that has imported or will import ``modules``. Start one if none is suitable."""
    modules = modules if modules not in _failed else frozenset()
    try:
        with _lock:
            of_now = start_environment()
            server = next((each for each in reversed(_servers) if each.serves(modules, of_now)), None)
            if server is None:
                server = ServerHandle(modules, of_now)
                _servers.append(server)
            connection = Connection(server, modules)
            server.pools.add(connection)
            end_idle(server)  # one server is enough for later pools
            return connection
    finally:
        _tidy()


def end_idle(but: ServerHandle | None = None) -> None:
    """End all servers that no pool uses, except the server ``but``."""
    with _lock:
        for each in [each for each in _servers if each is not but]:
            if not each.pools:
                _forget(each)


def _tidy() -> None:
    """End unused servers, unless their imports were slow. If :func:`connect` holds the lock, leave this to it."""
    try:
        if _lock.acquire(blocking=False):
            for each in [each for each in _servers if not each.pools]:
                if each.import_s is None or each.import_s < _LONG_S:
                    _forget(each)
    finally:
        try:  # noqa: SIM105 - a Ctrl-C must not come first
            _lock.release()
        except RuntimeError:  # another thread has it
            pass


def _forget(server: ServerHandle) -> None:
    if server in _servers:
        _servers.remove(server)
    server.end()


def _end(process: subprocess.Popen[bytes], channel: Channel, page: StatusPage, pid: int) -> None:
    if pid != os.getpid():  # this is a fork: it has copies of the descriptors, but the server belongs to its parent
        process.returncode = 0  # so that Popen does not wait for it
        return
    with contextlib.suppress(OSError):  # already gone
        # A close alone would not reach the server, as forks of this process may hold the socket too.
        channel.socket.shutdown(socket.SHUT_RDWR)
    channel.close()
    page.close()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _launch(theirs: socket.socket, page: int, modules: frozenset[str]) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise PlatformError(
            'worker processes need sys.executable, which is not set: use nb_workers=0 or executor="thread"'
        )
    path = [*search_path()]
    path += [] if preload.HERE in path else [preload.HERE]  # the package sampler is there too
    variables = environment()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        variables.setdefault(name, "1")  # a worker computes in one thread; the user's own setting has precedence
    # With this, a set of strings has the same order in every run.
    variables.setdefault("PYTHONHASHSEED", "0")
    files = {"descriptor": theirs.fileno(), "page": page}
    request = {**files, "consumer": os.getpid(), "modules": sorted(modules), "skipped": []}
    return subprocess.Popen(
        preload.program(path, request),
        pass_fds=[*files.values()],
        env=variables,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the consumer's to handle
    )
