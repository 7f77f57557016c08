"""``python -m workers.top`` in a real terminal, which tmux is: what it shows, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import PATIENCE_S, is_gone, wait_for
from programs import ENVIRONMENT, Program, programs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def start() -> Iterator[Callable[..., Program]]:
    with programs() as start:
        yield start


class Terminal:
    """A shell in tmux."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tmux = ["tmux", "-L", f"top-{os.getpid()}", "-f", "/dev/null"]
        self._environment = {**ENVIRONMENT, "TMUX_TMPDIR": str(folder), "PS1": "$ ", "ENV": ""}
        self.command("new-session", "-d", "-x", "110", "-y", "40", "sh")
        self._server = int(self.command("display-message", "-p", "#{pid}"))

    def command(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._tmux, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
            env=self._environment,
        )
        return done.stdout

    def screen(self) -> str:
        return self.command("capture-pane", "-p")

    def wait_for(self, *texts: str, without: str = "\0") -> str:
        """The screen, once it shows all ``texts``."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not all(text in (screen := self.screen()) for text in texts) or without in screen:
            assert time.monotonic() < deadline_s, f"{texts} without {without!r}, but:\n{screen}"
            time.sleep(0.02)
        return screen

    def type(self, *keys: str) -> None:
        self.command("send-keys", *keys)

    def top(self, *arguments: object, program: str = "-m workers.top") -> None:
        """Start it from the shell, which tells how it ended, and how it left the terminal."""
        started = f"'{sys.executable}' {program} {' '.join(map(str, arguments))}"
        script = f"stty -g > before\n{started}\necho ended with $?.\nstty -g > after\n"
        (self.folder / "watch").write_text(script)
        self.type(f"cd '{self.folder}'; clear; echo was here; . ./watch", "Enter")

    def is_alternate(self) -> bool:
        return self.command("display-message", "-p", "#{alternate_on}").strip() == "1"

    def is_restored(self) -> bool:
        """Whether the shell's screen is back, with its cursor and its settings."""
        shown = self.command("display-message", "-p", "#{alternate_on} #{cursor_flag}").split()
        wait_for(lambda: (self.folder / "after").exists() and (self.folder / "after").read_text())
        before, after = [(self.folder / name).read_text() for name in ("before", "after")]
        return "was here" in self.screen() and shown == ["0", "1"] and before == after

    def close(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.command("kill-server")
        wait_for(lambda: is_gone(self._server))


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("key", ["q", "C-c"])
def test_a_terminal(start: Callable[..., Program], terminal: Terminal, key: str) -> None:
    program = start()
    before = program.descriptors()
    terminal.top(program.pid)
    screen = terminal.wait_for(f"pid {program.pid}", "batches/s", "50%", without="- batches/s")
    lines = [line.split() for line in screen.splitlines() if line.strip()]
    assert lines[0][:3] == ["publishing.py", "pid", str(program.pid)]
    assert 50 < float(lines[1][4]) < 200
    assert lines[3][:3] == ["0", str(program.worker), "ready"]
    assert lines[4][:3] == ["1", "-", "starting"]
    assert terminal.is_alternate()
    terminal.type(key)
    terminal.wait_for("ended with 0.")
    assert terminal.is_restored()
    assert program.descriptors() == before
    assert program.process.poll() is None
    assert program.end() == 0


def test_pools_come_and_go(start: Callable[..., Program], terminal: Terminal) -> None:
    """Also those whose program is killed."""
    terminal.top()
    first = start()
    terminal.wait_for(f"pid {first.pid} ")
    second = start()
    terminal.wait_for(f"pid {first.pid} ", f"pid {second.pid} ")
    first.process.kill()
    os.kill(first.worker, signal.SIGKILL)
    terminal.wait_for(f"pid {second.pid} ", without=f"pid {first.pid} ")
    first.process.communicate()
    terminal.type("q")
    terminal.wait_for("ended with 0.")
    assert terminal.is_restored()


def test_the_program_that_is_looked_at_ends(start: Callable[..., Program], terminal: Terminal) -> None:
    program = start()
    terminal.top(program.pid)
    terminal.wait_for(f"pid {program.pid} ", "queue 5/8")
    assert program.end() == 0
    terminal.wait_for(f"process {program.pid} has ended", "ended with 0.")
    assert terminal.is_restored()


def test_the_window_changes(start: Callable[..., Program], terminal: Terminal) -> None:
    program = start()
    terminal.top(program.pid)
    terminal.wait_for("queue 5/8", '"auto"')
    terminal.command("resize-window", "-x", "70", "-y", "4")
    terminal.wait_for("... 3 more lines: enlarge the window, or give a PID", without='"auto"')
    terminal.type("q")
    terminal.wait_for("ended with 0.")


def _of_terminal(program: Program) -> int:
    """The process that shows ``program``."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            if words[1:4] == [b"-m", b"workers.top", str(program.pid).encode()]:
                return int(name)
    raise AssertionError("it does not run")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(start: Callable[..., Program], terminal: Terminal, number: signal.Signals) -> None:
    program = start()
    terminal.top(program.pid)
    terminal.wait_for("queue 5/8")
    os.kill(_of_terminal(program), number)
    terminal.wait_for(f"ended with {128 + number}.")
    assert terminal.is_restored()


def test_it_is_suspended_and_goes_on(start: Callable[..., Program], terminal: Terminal) -> None:
    program = start()
    terminal.top(program.pid)
    terminal.wait_for("queue 5/8")
    terminal.type("C-z")
    terminal.wait_for("was here", "Stopped")
    assert not terminal.is_alternate()
    terminal.type("fg", "Enter")
    terminal.wait_for("queue 5/8", without="was here")
    assert terminal.is_alternate()
    terminal.type("q")
    terminal.wait_for("was here", without="queue")
    terminal.type("echo again $((1 + 1))", "Enter")
    terminal.wait_for("again 2")
    assert not terminal.is_alternate()


BROKEN = """
import sys
from workers.top import command, finding

class Broken(finding.Watch):
    looks = 0
    def look(self):
        self.looks += 1
        if self.looks == 4:
            raise RuntimeError("as a test wants")
        return super().look()

finding.Watch = Broken
sys.exit(command.main())
"""


def test_an_error_leaves_the_terminal_as_it_was(start: Callable[..., Program], terminal: Terminal) -> None:
    (terminal.folder / "broken.py").write_text(BROKEN)
    terminal.top(start().pid, program="broken.py")
    terminal.wait_for("RuntimeError: as a test wants", "ended with 1.")
    assert terminal.is_restored()
