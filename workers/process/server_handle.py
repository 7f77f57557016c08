"""The servers, as the consumer has them: one for all pools of the program that need the same imports.

A server whose imports took long stays when the last pool has gone: the next pool then starts at once, and what that
needs beside them is imported by the same server. It ends with the program, or when nobody has needed it for five
minutes.
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

_LONG_S = 0.5  # imports that took longer than this are worth keeping
_END_S = 5.0  # for a server to kill a pool's workers


class ServerHandle:
    """A running server, for those that :func:`connect` to it."""

    def __init__(self, modules: frozenset[str], started_in: dict[str, Any]) -> None:
        self.modules = modules
        self.page = StatusPage()  # where its stack is written
        self.started_in = started_in
        self.files = files_of_users()
        self.pid = os.getpid()
        self.pools: set[Connection] = set()  # that need it
        self.import_s: float | None = None  # how long its imports took; None: they are not done
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
        """Whether its workers are what a new server's would be. What is missing it imports, if no pool needs it now."""
        may_import = not self.pools and self.import_s is not None and self.modules | modules not in _failed
        return (
            self.pid == os.getpid()
            and (modules <= self.modules or may_import)
            and self.started_in == started_in
            and self.process.poll() is None
            and all(changed_at(file) == when for file, when in self.files.items())
        )

    def add(self, modules: frozenset[str]) -> list[str]:
        """It is to import these too. Returns: those that it has not yet."""
        more = sorted(modules - self.modules)
        if more:
            self.modules, self.files, self.import_s = self.modules | modules, files_of_users(), None
        return more


class Connection:
    """A pool's connection with its server."""

    def __init__(self, server: ServerHandle, modules: frozenset[str]) -> None:
        self.server = server
        mine, theirs = channels.pair()
        try:
            server.channel.send(messages.Attach(server.add(modules)), [theirs.fileno()])
        except ConnectionError:  # it has just died: the pool will be told by the end of file
            pass
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        mine.setblocking(False)
        self.channel = Channel(mine)
        self._is_over = False
        self._is_killed = False  # because it did not answer

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self.server.process.pid

    @property
    def is_preloaded(self) -> bool:
        """Whether the server has done its imports, and now does what it is told at once."""
        return self.server.import_s is not None

    def state(self) -> str:
        """What the system says of the server, e.g. ``"sleeping"``."""
        import psutil

        try:
            return str(psutil.Process(self.pid).status())
        except psutil.Error:
            return "gone"

    def is_stopped(self) -> bool:
        """Whether somebody has stopped the server (SIGSTOP)."""
        return self.state() == "stopped"

    def kill(self) -> None:
        """End the server, which does not answer, and so its workers: the end of file will tell."""
        self._is_killed = True
        self.server.process.kill()

    def tell(self, message: tuple[Any, ...], files: Iterable[int] = ()) -> None:
        """Send the server an order, unless it has ended."""
        if self._is_over:
            return
        with contextlib.suppress(ConnectionError):  # it has died: we shall be told
            self.channel.send(message, files)

    def note(self, preloaded: messages.Preloaded) -> None:
        """The server has done its imports."""
        self.server.import_s = preloaded.seconds
        for module, reason in preloaded.skipped:
            _tell_skipped(module, reason)

    def ask_stack(self) -> None:
        """Have the server write down its stack, if it has come so far that the signal does not end it."""
        running, _ = self.server.page.look()
        if running:
            self.server.process.send_signal(STACK_SIGNAL)

    def take_stack(self) -> tuple[str, int]:
        """(what it has written, its process id)."""
        return self.server.page.take_text(), self.server.process.pid

    def wait(self) -> int:
        """The server has ended: its status."""
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.server.process.wait(_END_S)
        status = self.server.process.returncode
        if self.server.import_s is None and not self._is_killed:
            _failed.add(self.server.modules)
        self._leave()
        return -1 if status is None else status

    def close(self) -> None:
        """Have the server kill what is left of the pool's workers. Blocks: until it has. May be repeated."""
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
        """Whether a message of that kind comes, or the end, before the time is over."""
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
    """Once in a program."""
    logger.info("%s is imported by each worker for itself, not once for all: %s", module, reason)


# Never waited for when a pool ends: the garbage collector may end one in the thread that holds it.
_lock = threading.RLock()
_servers: list[ServerHandle] = []  # the one that was started last at the end
_failed: set[frozenset[str]] = set()  # imports that have ended a server: workers are to do them


def _begin_anew() -> None:
    """In a fork: the servers are its parent's, and another thread may have held the lock."""
    global _lock
    _lock = threading.RLock()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


def connect(modules: frozenset[str]) -> Connection:
    """A connection with a server that has imported ``modules``, or does so now."""
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
            end_idle(server)  # one that is kept is enough
            return connection
    finally:
        _tidy()


def end_idle(but: ServerHandle | None = None) -> None:
    """End the servers that no pool needs now."""
    with _lock:
        for each in [each for each in _servers if each is not but]:
            if not each.pools:
                _forget(each)


def _tidy() -> None:
    """End the servers that no pool needs and that are not worth keeping. Who holds the lock does it when he is done."""
    if _lock.acquire(blocking=False):
        try:
            for each in [each for each in _servers if not each.pools]:
                if each.import_s is None or each.import_s < _LONG_S:
                    _forget(each)
        finally:
            _lock.release()


def _forget(server: ServerHandle) -> None:
    if server in _servers:
        _servers.remove(server)
    server.end()


def _end(process: subprocess.Popen[bytes], channel: Channel, page: StatusPage, pid: int) -> None:
    if pid != os.getpid():  # a fork has copies of our descriptors, and no business with the server
        process.returncode = 0  # else it would be waited for
        return
    with contextlib.suppress(OSError):  # gone already; else it is told, though forks of ours hold the socket too
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
        raise PlatformError('sys.executable is not set: use nb_workers=0 or executor="thread" here')
    path = [*search_path()]
    path += [] if preload.HERE in path else [preload.HERE]  # sampler lies there too
    variables = environment()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        variables.setdefault(name, "1")  # each worker is one thread; the user's own choice stands
    # The order of a set of strings is then the same in every run.
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
