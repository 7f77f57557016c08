"""The server: a small clean process that forks the workers, reaps them, and ends with all of them.

Workers are never forked from the user's process, which may run threads, TensorFlow or CUDA. The server runs one
thread, has numpy loaded, and does nothing but wait: for orders on its socket, for the death of its children, and
for the death of the consumer. A worker that died is replaced by one more fork, which takes milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from typing import Any

from .channel import Channel
from .messages import Exited, Fork, Forked, Signal


class _ConsumerGone(Exception):
    pass


class Server:
    """Runs in: the server's process."""

    def __init__(self, channel: Channel, consumer: int) -> None:
        self._channel = channel
        self._workers: dict[int, int] = {}  # {process id: worker}
        self._pid = os.getpid()
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._wakeup, wakeup_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(wakeup_in, False)
        signal.set_wakeup_fd(wakeup_in, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._files = [self._wakeup, wakeup_in]
        self._poll.register(self._wakeup, select.POLLIN)
        # The end of file on our socket would tell too, unless the consumer's forks hold a copy of it.
        self._consumer = _open_pid(consumer)
        if self._consumer is not None:
            self._files.append(self._consumer)
            self._poll.register(self._consumer, select.POLLIN)

    def run(self) -> None:
        """Blocks: until the consumer is gone or has closed its end."""
        try:
            while True:
                for file, _ in self._poll.poll():
                    if file == self._consumer:
                        raise _ConsumerGone
                    if file == self._wakeup:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wakeup, 4096)
                    else:
                        for message, files in self._channel.receive():
                            self._obey(message, files)
                self._reap()
        except (_ConsumerGone, EOFError, OSError):
            pass
        self._end()

    def _obey(self, message: tuple[Any, ...], files: list[int]) -> None:
        if isinstance(message, Fork):
            self._fork(message.worker, message.number, *files)
        elif isinstance(message, Signal):
            for pid, worker in self._workers.items():
                if worker == message.worker:
                    os.kill(pid, message.signal)  # not reaped yet, so the number is still its own

    def _fork(self, worker: int, number: int, sock: int, page: int) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                from . import worker as program

                program.die_with_parent(self._pid)
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                self._channel.close()
                for file in self._files:
                    os.close(file)
                program.main(socket.socket(fileno=sock), page, number)
            finally:
                os._exit(1)
        os.close(sock)
        os.close(page)
        self._workers[pid] = worker
        self._channel.send(Forked(worker, pid))

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:  # else: what a job had started, and left to us
                scale = 1 if sys.platform == "darwin" else 1024
                exit_code = os.waitstatus_to_exitcode(status)
                self._channel.send(Exited(worker, exit_code, usage.ru_maxrss * scale))

    def _end(self) -> None:
        """Kill all that is left, and what the workers' jobs may have started."""
        while children := _children(self._pid, self._workers):
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while True:
                    pid, _ = os.waitpid(-1, 0)
                    self._workers.pop(pid, None)


def _children(pid: int, workers: dict[int, int]) -> list[int]:
    """Our children: the workers and, as we are their subreaper, orphans of theirs."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except OSError:  # macOS, or a kernel without it
        return list(workers)


def _open_pid(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # macOS, or an old kernel
        return None


def main(descriptor: int, consumer: int) -> None:
    """Be the server of process ``consumer`` on the socket ``descriptor``."""
    import ctypes

    from .worker import keep_freed_memory

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the consumer's to handle
    if sys.platform == "linux":
        pr_set_child_subreaper = 36
        ctypes.CDLL(None).prctl(pr_set_child_subreaper, 1)
    keep_freed_memory()
    os.set_inheritable(descriptor, False)
    with contextlib.suppress(KeyboardInterrupt):
        Server(Channel(socket.socket(fileno=descriptor)), consumer).run()
