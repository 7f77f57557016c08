"""What every benchmark is run by: each measurement in a fresh process, all in turn, round after round; then tables.

A benchmark is a :class:`Suite`: which jobs are measured, in which ways, and what is to be reached. What a child starts
dies with it: it is the head of a process group of its own, which is killed as a whole.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

Numbers = dict[str, float]  # e.g. {"batches_per_s": 401.2, "times_serial": 1.93}
Table = tuple[list[str], list[list[str]]]  # head, rows
MARK = "measured: "
SCRIPTS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    num_workers: int
    seconds: float  # of one timed loop
    given: dict[str, Any] = field(default_factory=dict)  # options that only this suite has


@dataclass(frozen=True)
class Way:
    """One row of a job's table."""

    label: str
    measure: Callable[[Settings], Numbers]  # runs in a process of its own
    packages: tuple[str, ...] = ()  # what it needs beside this project, e.g. ("torch",)
    python: str = "python"  # the option that names the Python it runs in


@dataclass(frozen=True)
class Job:
    """One table."""

    label: str
    ways: dict[str, Way]


@dataclass(frozen=True)
class Record:
    """One measurement, or why there is none."""

    job: str
    way: str
    round: int
    numbers: Numbers = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Round:
    """The numbers of one round."""

    numbers: dict[tuple[str, str, str], float]  # e.g. {("tiny", "pool", "batches_per_s"): 8094.0}
    num_workers: int

    def __call__(self, job: str, way: str, name: str) -> float:
        return self.numbers[job, way, name]

    def best(self, job: str, ways: Iterable[str], name: str) -> float:
        """The highest of those that were measured."""
        return max(self.numbers[job, way, name] for way in ways if (job, way, name) in self.numbers)


@dataclass(frozen=True)
class Target:
    """``value`` of a round must be at least, or at most, ``bound``.

    A ratio within a round, where that can be: so the drift of the machine cancels.
    """

    text: str
    value: Callable[[Round], float]
    sign: str  # ">=" or "<="
    bound: float

    def values(self, rounds: Iterable[Round]) -> list[float]:
        """Of the rounds in which all of it was measured."""
        found = []
        for each in rounds:
            try:
                found.append(self.value(each))
            except (KeyError, ValueError):  # not measured, or no peer that was
                continue
        return found

    def row(self, values: list[float]) -> list[str]:
        middle = statistics.median(values)
        is_met = middle >= self.bound if self.sign == ">=" else middle <= self.bound
        return [self.text, f"{self.sign} {self.bound:g}", cell(values), "yes" if is_met else "no"]


@dataclass(frozen=True)
class Suite:
    """What a benchmark measures."""

    file: str  # of its module, which children are started with
    jobs: dict[str, Job]
    names: dict[str, str]  # {number: how the head of its column calls it}
    targets: tuple[Target, ...] = ()
    chart: str = ""  # the number to draw; "": none
    is_ours: Callable[[str], bool] = lambda way: True  # the ways that the chart shows in colour
    prepare: Callable[[str], None] = lambda folder: None  # what all children read, once, into settings.given["folder"]


# -- a measurement


def _in_child(suite: Suite, request: str) -> None:
    what = json.loads(request)
    try:
        numbers = suite.jobs[what["job"]].ways[what["way"]].measure(Settings(**what["settings"]))
    except Exception as error:
        print(MARK + json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        raise
    print(MARK + json.dumps({"numbers": numbers}), flush=True)


def _wait(child: subprocess.Popen[bytes], deadline_s: float) -> bool:
    """Whether it ended in time. It stays a zombie, so that its process group cannot be somebody else's."""
    stop_at = time.monotonic() + deadline_s
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > stop_at:
            return False
        time.sleep(0.02)
    return True


def run_child(command: list[str], deadline_s: float) -> dict[str, Any]:
    """``{"numbers": ...}`` or ``{"error": ...}``. Blocks: on the child, until ``deadline_s``."""
    paths = [str(SCRIPTS.parent), str(SCRIPTS), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env={**os.environ, **environment},
        )
        in_time = False
        try:
            in_time = _wait(child, deadline_s)
        finally:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        out.seek(0)
        err.seek(0)
        lines = out.read().decode(errors="replace").splitlines()
        said = err.read().decode(errors="replace").strip()
    answers = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
    if answers:
        answer: dict[str, Any] = json.loads(answers[-1])
        return answer
    last = said.splitlines()[-1] if said else "it said nothing"
    if not in_time:
        return {"error": f"no result within {deadline_s:g} s ({last})"}
    return {"error": f"ended with status {child.returncode} ({last})"}


def run_rounds(suite: Suite, options: argparse.Namespace, settings: Settings) -> list[Record]:
    """All of it, in the order A B C A B C; what is not installed is one record with its reason."""
    records = []
    for number in range(options.rounds):
        for job in options.only:
            for key, way in suite.jobs[job].ways.items():
                if key not in options.ways:
                    continue
                absent = [name for name in way.packages if importlib.util.find_spec(name) is None]
                request = json.dumps({"job": job, "way": key, "settings": asdict(settings)})
                python = settings.given.get(way.python) or sys.executable
                command = [python, suite.file, "--child", request]
                answer: dict[str, Any] = (
                    {"error": f"{absent[0]} is not installed"} if absent else run_child(command, options.deadline)
                )
                records.append(Record(job, key, number, **answer))
                told = answer.get("error") or "  ".join(f"{k}={v:.4g}" for k, v in answer["numbers"].items())
                print(f"round {number + 1}/{options.rounds}  {job:20} {key:14} {told}", file=sys.stderr, flush=True)
    return records


# -- what they say


def environment(settings: Settings, num_rounds: int) -> dict[str, Any]:
    """The machine, the versions, and how it was measured."""
    versions = {}
    for name in ("numpy", "scipy", "torch", "grain", "keras", "tensorflow", "jax"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "workers": settings.num_workers,
        "rounds": num_rounds,
        "seconds": settings.seconds,
        **versions,
    }


def sentence(facts: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {facts[name]}" for name in ("numpy", "torch", "grain", "keras", "tensorflow"))
    return (
        f"{facts['cores']} cores ({facts['machine']}, {facts['system']}), {facts['workers']} workers; medians of "
        f"{facts['rounds']} interleaved rounds, in brackets the least and the most. "
        f"Python {facts['python']}, {packages}."
    )


def figure_of(value: float) -> str:
    """Three digits that say something: 337,779 but 33.8 and 0.0233; what is below 0.0001 is 0."""
    if value == int(value) or abs(value) < 1e-4:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{min(max(digits, 0), 4)}f}"


def cell(values: list[float]) -> str:
    """The median, with the least and the most in brackets."""
    if not values:
        return ""
    middle, least, most = (figure_of(f(values)) for f in (statistics.median, min, max))
    return middle if least == most else f"{middle} ({least} to {most})"


def table(suite: Suite, key: str, records: list[Record]) -> Table:
    """A row for each way of one job, also for those that could not be measured."""
    mine, job = [record for record in records if record.job == key], suite.jobs[key]
    columns = list(dict.fromkeys(name for record in mine for name in record.numbers))
    rows = []
    for way in dict.fromkeys(record.way for record in mine):
        measured = [record for record in mine if record.way == way]
        cells = [cell([r.numbers[name] for r in measured if name in r.numbers]) for name in columns]
        error = next((record.error for record in measured if record.error), None)
        if error and not any(cells):
            cells = [f"no result: {error}"[:90], *[""] * (len(columns) - 1)]
        rows.append([job.ways[way].label, *cells])
    return [job.label, *([suite.names[name] for name in columns] or ["result"])], rows


def tables(suite: Suite, facts: dict[str, Any], records: list[Record]) -> list[Table]:
    """One for each job, and one of the targets."""
    numbers: dict[int, dict[tuple[str, str, str], float]] = {}
    for record in records:
        named = {(record.job, record.way, name): value for name, value in record.numbers.items()}
        numbers.setdefault(record.round, {}).update(named)
    rounds = [Round(each, facts["workers"]) for each in numbers.values()]
    goals = [target.row(values) for target in suite.targets if (values := target.values(rounds))]
    found = [table(suite, job, records) for job in dict.fromkeys(record.job for record in records)]
    return [one for one in (*found, (["", "must be", "is", "met"], goals)) if one[1]]


def rst_table(one: Table) -> str:
    """As reStructuredText."""
    head, rows = one
    lines = [[head[0] or ".", *head[1:]], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = "  ".join("=" * width for width in widths)
    text = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([rule, text[0], rule, *text[1:], rule])


def markdown_table(one: Table) -> str:
    head, rows = one
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rows])


def chart(suite: Suite, facts: dict[str, Any], records: list[Record], to: Path) -> None:
    """Bars of one number, a panel for each job that has it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn: dict[str, dict[str, list[float]]] = {}
    for record in records:
        if suite.chart in record.numbers and record.way != "serial":
            of_job = drawn.setdefault(record.job, {})
            of_job.setdefault(record.way, []).append(record.numbers[suite.chart])
    if not drawn:
        return
    num_rows = (len(drawn) + 1) // 2
    figure, axes = plt.subplots(num_rows, 2, figsize=(13, 4 * num_rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(drawn) :]:
        axis.remove()
    for axis, (key, values) in zip(axes.flat, drawn.items(), strict=False):
        ways = list(values)[::-1]
        middles = [statistics.median(values[way]) for way in ways]
        least = [middle - min(values[way]) for way, middle in zip(ways, middles, strict=True)]
        most = [max(values[way]) - middle for way, middle in zip(ways, middles, strict=True)]
        colours = ["#c44e52" if suite.is_ours(way) else "#8c8c8c" for way in ways]
        labels = [suite.jobs[key].ways[way].label for way in ways]
        bars = axis.barh(labels, middles, xerr=[least, most], ecolor="#444", color=colours)
        axis.bar_label(bars, [figure_of(middle) for middle in middles], padding=3)
        if max(middles, default=0) > 0.5:  # else the bars would be too short to compare
            axis.axvline(1.0, color="black", linewidth=0.8)
        axis.margins(x=0.15)
        axis.set_title(suite.jobs[key].label)
        axis.set_xlabel(suite.names[suite.chart])
    figure.suptitle(f"{facts['cores']} cores, {facts['workers']} workers")
    figure.savefig(to, dpi=110)


# -- the command line


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    known = list(dict.fromkeys(known))

    def parse(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no such name: {', '.join(unknown)}; there are {', '.join(known)}")
        return text.split(",")

    return parse


def parser_of(suite: Suite, description: str | None, seconds: float, deadline_s: float) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    ways = [key for job in suite.jobs.values() for key in job.ways]
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often all is measured (5)")
    parser.add_argument("--seconds", type=float, default=seconds, metavar="S", help=f"of each timed loop ({seconds:g})")
    parser.add_argument("--quick", action="store_true", help="one round of 0.5 s: shows that it runs, not how fast")
    parser.add_argument(
        "--deadline", type=float, default=deadline_s, metavar="S", help=f"of each measurement ({deadline_s:g})"
    )
    parser.add_argument("--only", type=_names(suite.jobs), default=list(suite.jobs), metavar="JOB,...")
    parser.add_argument("--loaders", dest="ways", type=_names(ways), default=ways, metavar="NAME,...")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--rst", type=Path, metavar="FILE", help="the same tables for README.rst")
    if suite.chart:
        parser.add_argument("--png", type=Path, metavar="FILE", help="a bar chart of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single measurement")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def main(suite: Suite, parser: argparse.ArgumentParser, given: Iterable[str] = ()) -> None:
    """Measure what the command line asks for. ``given``: the names of the options that only this suite has."""
    options = parser.parse_args()
    if options.child:
        _in_child(suite, options.child)
        return
    if options.quick:
        options.rounds, options.seconds = 1, 0.5
    with tempfile.TemporaryDirectory() as folder:
        suite.prepare(folder)
        own = {name: getattr(options, name) for name in given} | {"folder": folder}
        settings = Settings(options.workers, options.seconds, own)
        facts = environment(settings, options.rounds)
        records = run_rounds(suite, options, settings)
    found = tables(suite, facts, records)
    text = "\n\n".join([sentence(facts), *map(markdown_table, found)]) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.rst:
        options.rst.write_text("\n\n".join([sentence(facts), *map(rst_table, found)]) + "\n")
    if suite.chart and options.png:
        chart(suite, facts, records, options.png)
    if options.json:
        options.json.write_text(json.dumps({"environment": facts, "records": [asdict(r) for r in records]}, indent=1))
