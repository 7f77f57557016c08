"""Lets workers that are in no job end by themselves, so that the exit functions of their modules run, and can log.

It also holds the :class:`Waker`, which ends a wait of the engine's thread.
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

_GRACE_S = 0.25  # for workers to end


def let_end(
    workers: dict[int, WorkerHandle],
    server: Connection,
    selector: selectors.BaseSelector,
    waker: Waker,
    inlet: Inlet,
) -> None:
    """Ask all workers to end, and wait a moment for those that have loaded their replica; one in a job may not make it.

    Runs in: the engine's thread. Blocks: until these have ended, 0.25 s at most.
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
    """Return the workers whose end the server reports. Raises EOFError if the server itself has ended."""
    told = [message for message, _ in server.channel.receive()]
    return {each.worker for each in told if isinstance(each, messages.Exited)}


def _drain(worker: WorkerHandle, selector: selectors.BaseSelector, inlet: Inlet) -> bool:
    """Discard what a worker has sent, except log records. Return False if nothing had come."""
    try:
        received = worker.channel.receive()
    except (EOFError, OSError):  # it has ended, or no descriptors are left to receive its
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
    """A pipe that ends a wait. :meth:`wake` runs in any thread, all else in the one that waits."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable."""
        return self._out

    def wake(self) -> None:
        """End the current wait, or the next one."""
        with contextlib.suppress(OSError):  # full: it will wake anyway; closed: nobody waits
            os.write(self._in, b"x")

    def clear(self) -> None:
        """Reset the waker once the wait has ended."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._out, 4096)

    def close(self) -> None:
        # Forget the number first: once closed, it may belong to a file of the user's.
        into, self._in = self._in, -1
        os.close(into)
        os.close(self._out)
