"""Ends another thread's wait: a pipe that becomes readable."""

from __future__ import annotations

import contextlib
import os


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
