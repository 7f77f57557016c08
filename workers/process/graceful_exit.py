"""Lets idle workers exit by themselves instead of killing them, so that their modules' exit functions run and can log.

This module also defines :class:`Waker`, with which any thread ends the wait of the thread that reads messages.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time

from . import messages
from .logs import Inlet
from .server_handle import Connection
from .worker_handle import WorkerHandle

_GRACE_S = 0.25  # for workers to exit


def let_end(
    workers: dict[int, WorkerHandle],
    server: Connection,
    selector: selectors.BaseSelector,
    waker: Waker,
    inlet: Inlet,
) -> None:
    """Ask all workers to exit, and wait a moment for those that have loaded their replica (their copy of the sequence).

    Meanwhile, read what they send, so that no log records are lost. A worker that does not exit in time, because it is
    in a long job, is left for the caller to kill.

    Runs in: the engine's thread. Blocks: until the workers with a replica have exited, but at most 0.25 s.
    """
    for worker in workers.values():
        worker.stop()
    waiting = {name for name, worker in workers.items() if worker.is_ready}
    deadline_s = time.monotonic() + _GRACE_S
    while waiting and (left_s := deadline_s - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            if key.data == "wake":
                waker.clear()
            elif key.data == "server":
                try:
                    ended = _ended(server)
                except EOFError:  # the server has ended, and so have all workers
                    return
                for worker in [worker for name, worker in workers.items() if name in ended]:
                    while _drain(worker, selector, inlet):
                        pass
                waiting -= ended
            else:
                _drain(workers[key.data], selector, inlet)


def _ended(server: Connection) -> set[int]:
    """Read the server's messages, and return the names of the workers that they report as exited.

    Raises:
        EOFError: the server itself has ended.
    """
    told = [message for message, _ in server.channel.receive()]
    return {each.worker for each in told if isinstance(each, messages.Exited)}


def _drain(worker: WorkerHandle, selector: selectors.BaseSelector, inlet: Inlet) -> bool:
    """Read what a worker has sent; pass on log records and discard all else. Return True if a message was read."""
    try:
        received = worker.channel.receive()
    except (EOFError, OSError):  # it has exited, or no descriptors are left to receive those of the worker
        if worker.is_watched:
            selector.unregister(worker.channel)
            worker.is_watched = False
        return False
    for message, files in received:
        for file in files:
            os.close(file)
        if isinstance(message, messages.Logged):
            inlet.put(message)
    return bool(received)


class Waker:
    """A pipe with which any thread ends another thread's wait in ``select``.

    Runs in: any thread for :meth:`wake`, the waiting thread for all else.
    """

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def fileno(self) -> int:
        """Return the descriptor to wait for; it becomes readable when :meth:`wake` is called."""
        return self._out

    def wake(self) -> None:
        """End the other thread's current wait, or its next one if it is not waiting."""
        with contextlib.suppress(OSError):  # full: the wait will end anyway; closed: nobody waits
            os.write(self._in, b"x")

    def clear(self) -> None:
        """Empty the pipe after a wait has ended, so that the next wait does not end immediately."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._out, 4096)

    def close(self) -> None:
        # Forget the descriptor first: once closed, its number may be a user's file, to which wake() must not write.
        into, self._in = self._in, -1
        os.close(into)
        os.close(self._out)
