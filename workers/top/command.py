"""Run the command ``workers.top``: parse its arguments, and draw the pools of workers until the user quits."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from workers.report.snapshot_page import owner

if TYPE_CHECKING:
    from rich.console import Console

    from .finding import Watch

REFRESH_S = 0.5
_WITHIN_S = 4.0  # longest wait for rates, which need a second snapshot; one exists after ``rates.STALE_NS``
_DEFAULT_COLUMNS = 120  # if the output is not a terminal
_NONE = "you run no pool of workers on this machine"


def main(arguments: list[str] | None = None) -> int:
    """Run ``workers.top`` with command-line ``arguments``, or this process's own if None; return the exit code."""
    pid, is_once = _parse(arguments)
    if sys.platform != "linux":
        return _say(f"workers.top needs Linux, not {sys.platform!r}: it finds pools in /proc")
    from rich.console import Console

    from .finding import Watch

    if pid is not None and (why := _not_to_be_seen(pid)):
        return _say(why)
    is_terminal = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a name that this terminal cannot show must not end the command
    has_width = is_terminal or "COLUMNS" in os.environ
    console = Console(highlight=False, markup=False, width=None if has_width else _DEFAULT_COLUMNS)
    watch = Watch(pid)
    try:
        if pid is not None and not watch.look():
            return _say(f"process {pid} has no pool of workers now")
        if is_once or not is_terminal or console.is_dumb_terminal:
            return _once(console, watch)
        return _live(console, watch, pid)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        watch.close()


def _parse(arguments: list[str] | None) -> tuple[int | None, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m workers.top",
        description="Shows the pools of workers that you run on this machine. Press q to quit.",
    )
    parser.add_argument("pid", metavar="PID", nargs="?", type=_pid, help="show only the pools of this process")
    parser.add_argument("--once", action="store_true", help="print one table and exit (the default if piped)")
    parsed = parser.parse_args(arguments)
    return parsed.pid, parsed.once


def _pid(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a process id, an integer >= 1, not {text!r}")
    return int(text)


def _not_to_be_seen(pid: int) -> str:
    """Return the reason why process ``pid`` cannot be shown, as a sentence; "" if it can."""
    try:
        user = owner(pid)
    except OSError:
        return f"there is no process {pid}"
    if user != os.geteuid():
        return f"process {pid} belongs to user {user}, and you (user {os.geteuid()}) see only your own"
    return ""


def _say(text: str) -> int:
    sys.stderr.write(f"{text}\n")
    return 1


def _once(console: Console, watch: Watch) -> int:
    """Print one table of the pools, and return the exit code.

    Blocks: until the rates of every pool are known, which takes two snapshots of each pool, but at most 4 s.
    """
    deadline_s = time.monotonic() + _WITHIN_S
    while (shown := watch.look()) and any(each.rates is None for each in shown) and time.monotonic() < deadline_s:
        time.sleep(REFRESH_S)
    if not shown:
        return _say(_NONE)
    from .drawing import pools

    console.print(pools(shown))
    return 0


def _live(console: Console, watch: Watch, pid: int | None) -> int:
    """Show the pools until a key or a signal ends the command, or process ``pid`` ends. Return the exit code."""
    while True:
        ended_by = _screen(console, watch, pid)
        if ended_by != signal.SIGTSTP:
            break
        os.kill(os.getpid(), signal.SIGSTOP)  # the shell has the terminal now; ``fg`` continues here
    if ended_by is None:
        sys.stdout.write(f"process {pid} has ended\n")
    return 128 + ended_by if ended_by in (signal.SIGTERM, signal.SIGHUP) else 0


def _screen(console: Console, watch: Watch, pid: int | None) -> signal.Signals | None:
    """Redraw the pools on the whole screen until the user quits, a signal arrives or process ``pid`` ends.

    Returns:
        The signal that arrived, or SIGINT if the user pressed q; None if process ``pid`` has ended.
    """
    from rich.text import Text

    from .drawing import Cropped, pools
    from .keys import Keys

    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP}
    none = _NONE if pid is None else f"process {pid} has no pool of workers now"
    with Keys(sys.stdin.fileno()) as keys, console.screen() as screen:
        while pid is None or not _not_to_be_seen(pid):
            shown = watch.look()
            screen.update(Cropped(pools(shown) if shown else Text(f"{none}. Still looking; press q to quit.")))
            for event in keys.wait(REFRESH_S):
                if event in ("q", "Q"):
                    return signal.SIGINT
                if isinstance(event, signal.Signals) and event in ends:
                    return event
    return None
