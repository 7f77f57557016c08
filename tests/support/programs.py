"""Programs that publish (``publishing.py``), as tests start and end them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import publishing
from faulty import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    key: value for key, value in os.environ.items() if key not in ("COLUMNS", "FORCE_COLOR", "LINES", "TMUX")
}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)


class Program:
    """One that publishes, until it is ended."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, publishing.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        self.pid, self.worker = map(int, self.process.stdout.readline().split())

    def descriptors(self) -> list[str]:
        folder = f"/proc/{self.pid}/fd"
        return sorted(f"{name} {os.readlink(f'{folder}/{name}')}" for name in os.listdir(folder))

    def end(self) -> int:
        """Its exit code."""
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


@contextlib.contextmanager
def programs() -> Iterator[Callable[..., Program]]:
    """Starts them; those that still run at the end have to end well."""
    started: list[Program] = []

    def begin(*arguments: str) -> Program:
        started.append(Program(*arguments))
        return started[-1]

    yield begin
    for each in started:
        if each.process.poll() is None:
            assert each.end() == 0
