"""Lets workers that are in no job end by themselves: then what their modules do at the end is done, and is logged.

And what ends the wait of the thread that looks after them.
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

_GRACE_S = 0.25  # for them to end


def let_end(
    workers: dict[int, WorkerHandle],
    server: Connection,
    selector: selectors.BaseSelector,
    waker: Waker,
    inlet: Inlet,
) -> None:
    """Runs in: the engine's thread. Blocks: until those that are in no job have ended, a moment at most."""
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
                except EOFError:  # and so have all workers
                    return
                for worker in [worker for name, worker in workers.items() if name in ended]:
                    while _drain(worker, selector, inlet):
                        pass
                waiting -= ended
            else:
                _drain(workers[key.data], selector, inlet)


def _ended(server: Connection) -> set[int]:
    """The workers of which the server tells that they have ended. Raises: EOFError, if it has itself."""
    told = [message for message, _ in server.channel.receive()]
    return {each.worker for each in told if isinstance(each, messages.Exited)}


def _drain(worker: WorkerHandle, selector: selectors.BaseSelector, inlet: Inlet) -> bool:
    """Drop what a worker has sent, but for what it has logged. False: nothing was there."""
    try:
        received = worker.channel.receive()
    except (EOFError, OSError):  # it has ended, or no descriptors are left for those that it sends
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
    """:meth:`wake` in any thread, all else in the one that waits."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        os.set_blocking(self._in, False)

    def fileno(self) -> int:
        """What becomes readable."""
        return self._out

    def wake(self) -> None:
        """End the wait, or the next one."""
        with contextlib.suppress(OSError):  # full: it is awake; closed: it needs no waking
            os.write(self._in, b"x")

    def clear(self) -> None:
        """It has been seen."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._out, 4096)

    def close(self) -> None:
        # First forgotten: the number may soon be that of a file of the user's.
        into, self._in = self._in, -1
        os.close(into)
        os.close(self._out)
