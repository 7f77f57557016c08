"""Programs whose stderr is a terminal, and what they show there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import TextIO

COLUMNS = 120


def shown(program: str, *arguments: str, **environment: str) -> str:
    """What a program writes to its stderr, a terminal. It must end well."""
    ours, theirs = _opened()
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments], stderr=theirs, env={**os.environ, **environment}
        )
    finally:
        os.close(theirs)
    with open(ours, "rb", buffering=0) as terminal:
        text = _read(terminal.fileno())
    assert process.wait() == 0, text
    return text


def written(program: str, *arguments: str, **environment: str) -> str:
    """What it writes to a stderr that is none."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@contextlib.contextmanager
def terminal() -> Iterator[TextIO]:
    """A file that is a terminal, of which nobody reads: for little text."""
    ours, theirs = _opened()
    try:
        with open(theirs, "w") as file:
            yield file
    finally:
        os.close(ours)


def _opened() -> tuple[int, int]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    return ours, theirs


def _read(terminal: int) -> str:
    """All of it, until nobody has the other end any more."""
    found = b""
    with contextlib.suppress(OSError):  # Linux says the end so
        while some := os.read(terminal, 1 << 16):
            found += some
    return found.decode()
