"""Draw pools of workers on a terminal, each as a header and a table with a line for each worker."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from workers.report import units
from workers.report.snapshot_page import LaneSnapshot, Snapshot

from .rates import Rates
from .usage import ProcessUse

_COLUMNS = ("worker", "pid", "state", "busy", "jobs/s", "CPU", "memory", "restarts", "epoch", "batch", "for")
_LEFT = ("state", "busy")
_STATES = {"starting": "yellow", "ready": "green", "ended": "red"}
_NOT_KNOWN = "-"
_BAR = 6, 30  # minimum and maximum width of a bar in characters, including its percentage
_FULL = 0.8  # a share of this or more is drawn in another colour


class Shown(NamedTuple):
    """The data shown for one pool of workers: its snapshot, its rates, and the resource use of its processes."""

    snapshot: Snapshot
    rates: Rates | None
    uses: Mapping[int, ProcessUse]  # {pid: use}, e.g. {4711: ProcessUse(cpu=0.96, nbytes=81_000_000)}


def pool(shown: Shown) -> RenderableType:
    """Return the drawing of one pool of workers: a header, and a table with a line for each worker."""
    choice = shown.snapshot["choice"]
    last = [Text(f'nb_workers="auto": {_plain(choice)}', "dim")] if choice else []
    return Group(*_header(shown.snapshot, shown.rates), _lanes(shown), *last)


def pools(all_shown: list[Shown]) -> RenderableType:
    """Return the drawing of several pools of workers, separated by empty lines."""
    parts: list[RenderableType] = []
    for shown in all_shown:
        parts += [pool(shown), Text()]
    return Group(*parts[:-1])


class Cropped:
    """A drawing cropped to the height of the screen; if lines do not fit, the last line shown states how many."""

    def __init__(self, what: RenderableType) -> None:
        self._what = what

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._what, options.update(height=None))
        height = options.size.height
        if len(lines) > height:
            more = f"... {len(lines) - height + 1} more lines: enlarge the window, or give a PID"
            lines = [*lines[: height - 1], [Segment(more[: options.size.width], Style(reverse=True))]]
        for line in lines:
            yield from line
            yield Segment.line()


class UsageBar:
    """A bar that shows a share of 0 to 1, such as ``||||||     62%``, in 6 to 30 characters."""

    def __init__(self, share: float | None) -> None:
        self._share = share

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(*_BAR)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._share is None:
            yield Text(_NOT_KNOWN)
            return
        width = max(0, min(options.max_width, _BAR[1]) - 5)
        bar = "|" * round(self._share * width)
        yield Text.assemble((bar.ljust(width), "green" if self._share < _FULL else "yellow"), _percent(self._share, 5))


def _header(snapshot: Snapshot, rates: Rates | None) -> list[Text]:
    who = Text(no_wrap=True, overflow="ellipsis")
    who.append(_plain(snapshot["program"]), "bold")
    who.append(f"  pid {snapshot['pid']}  {_plain(snapshot['name'])}  ")
    who.append(f"nb_workers {snapshot['nb_workers']} ({_plain(snapshot['executor'])})  ")
    up_s = max(0.0, time.time() - snapshot["since"])
    who.append(f"up {duration(up_s) if up_s >= 60 else f'{up_s:.0f} s'}")
    of = "" if snapshot["length"] is None else f"/{snapshot['length']:,}"
    parts = [f"epoch {snapshot['epoch']}", f"batch {snapshot['batch']:,}{of}"]
    if rates is None:
        parts += ["- batches/s", "- MB/s", "loop waits -"]
    else:
        parts += [f"{_number(rates.batches)} batches/s", f"{_number(rates.nbytes / 1e6)} MB/s"]
        parts += [f"loop waits {_percent(rates.wait)}"]
    return [who, Text("  ".join([*parts, f"queue {snapshot['ready']}/{snapshot['bound']}"]), "cyan")]


def _lanes(shown: Shown) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="reverse", expand=False)
    for name in _COLUMNS:
        is_bar = name == "busy"
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=not is_bar)
    for lane in shown.snapshot["workers"]:
        table.add_row(*_row(lane, shown))
    return table


def _row(lane: LaneSnapshot, shown: Shown) -> list[RenderableType]:
    rates = None if shown.rates is None else shown.rates.lanes.get(lane["number"])
    pid = lane["pid"]
    use = ProcessUse() if pid is None else shown.uses.get(pid, ProcessUse())
    since_s = max(0, shown.snapshot["at_ns"] - lane["since_ns"]) / 1e9
    is_in_job = lane["index"] is not None
    return [
        str(lane["number"]),
        _NOT_KNOWN if pid is None else str(pid),
        Text(_plain(lane["state"]), _STATES.get(lane["state"], "")),
        UsageBar(None if rates is None else rates.busy),
        _NOT_KNOWN if rates is None else _number(rates.jobs),
        _NOT_KNOWN if use.cpu is None else _percent(use.cpu),
        _NOT_KNOWN if use.nbytes is None else units.nbytes(use.nbytes) + ("" if use.is_own else " (RSS)"),
        str(lane["restarts"]),
        str(lane["epoch"]) if is_in_job else "",
        str(lane["index"]) if is_in_job else "",
        duration(since_s) if is_in_job else "",
    ]


def duration(seconds: float) -> str:
    """Return a duration as text: ``0.012 s``, ``42.0 s``, ``17 min``, ``5.2 h``, ``3.1 days``."""
    if seconds < 60:
        return f"{seconds:.3f} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def _number(value: float) -> str:
    """Return a rate as text: ``0.42``, ``42.3``, ``1,042``."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def _percent(share: float, width: int = 0) -> str:
    return f"{round(share * 100)}%".rjust(width)


def _plain(text: str) -> str:
    """Replace each unprintable character of ``text`` with "?", since a name could otherwise control the terminal."""
    return "".join(each if each.isprintable() else "?" for each in str(text))
