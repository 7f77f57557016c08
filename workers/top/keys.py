"""Read what a person types at a terminal, key by key, and receive signals in the same way.

A signal does not interrupt the program: it is read from a pipe, like a key from the terminal. So the terminal's
settings are always restored at a known point, in ``__exit__``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import termios
import tty
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGWINCH)


class Keys:
    """A context manager that reads single keys from the terminal ``descriptor``, without echo, and catches signals.

    Runs in: the main thread.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        self._settings: list[Any] = termios.tcgetattr(self._descriptor)
        self._out, self._in = os.pipe()
        for file in (self._out, self._in):
            os.set_blocking(file, False)
        self._wakeup = signal.set_wakeup_fd(self._in, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        tty.setcbreak(self._descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(termios.error):  # the terminal has gone
            termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, self._settings)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._out)
        os.close(self._in)

    def wait(self, timeout_s: float) -> list[str | signal.Signals]:
        """Return keys and signals, e.g. ["q"] or [signal.SIGINT]. Blocks: until one arrives, or for ``timeout_s``."""
        ready, _, _ = select.select([self._descriptor, self._out], [], [], timeout_s)
        found: list[str | signal.Signals] = []
        if self._out in ready:
            found += [signal.Signals(number) for number in os.read(self._out, 4096)]
        if self._descriptor in ready:
            found += self._read() or [signal.SIGHUP]  # end of file: the terminal has gone
        return found

    def _read(self) -> str:
        try:
            return os.read(self._descriptor, 4096).decode("utf-8", "replace")
        except OSError:
            return ""
