"""The runner of all benchmarks: each measurement in a fresh process, all in turn, round after round.

A benchmark is a :class:`Suite`: the jobs, the ways in which they are measured, and the targets. The processes that a
child starts die with it, because it leads its own process group, which is killed as a whole.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Numbers = dict[str, float]  # e.g. {"batches_per_s": 401.2, "times_serial": 1.93}
MARK = "measured: "
SCRIPTS = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    num_workers: int
    seconds: float  # of one timed loop
    given: dict[str, Any] = field(default_factory=dict)  # the options that only this suite has


@dataclass(frozen=True)
class Way:
    """A row of a job's table."""

    label: str
    measure: Callable[[Settings], Numbers]  # runs in its own process
    packages: tuple[str, ...] = ()  # needed in addition to this project, e.g. ("torch",)
    python: str = "python"  # the option that names the Python it runs in


@dataclass(frozen=True)
class Job:
    """A table."""

    label: str
    ways: dict[str, Way]


@dataclass(frozen=True)
class Record:
    """A measurement, or the reason why there is none."""

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
        """Return the highest number of those measured."""
        return max(self.numbers[job, way, name] for way in ways if (job, way, name) in self.numbers)


@dataclass(frozen=True)
class Target:
    """A bound that ``value`` of a round must reach, or must not exceed.

    Where possible, the value is a ratio within a round, so that the drift of the machine cancels.
    """

    text: str
    value: Callable[[Round], float]
    sign: str  # ">=" or "<="
    bound: float

    def values(self, rounds: Iterable[Round]) -> list[float]:
        """Return the values of the rounds in which everything needed was measured."""
        found = []
        for each in rounds:
            try:
                found.append(self.value(each))
            except (KeyError, ValueError):  # it was not measured, or no peer was
                continue
        return found

    def is_met(self, values: list[float]) -> bool:
        """Return True if the median of ``values`` meets the bound."""
        middle = statistics.median(values)
        return middle >= self.bound if self.sign == ">=" else middle <= self.bound


@dataclass(frozen=True)
class Suite:
    """The jobs, targets and pictures of a benchmark."""

    file: str  # the file of its module, which the children run
    jobs: dict[str, Job]
    names: dict[str, str]  # {number: the head of its column}
    targets: tuple[Target, ...] = ()
    chart: str = ""  # the number to draw; "": none
    is_ours: Callable[[str], bool] = lambda way: True  # the ways that the chart shows in colour
    draw: Callable[[dict[str, Any], list[Record], Path], None] | None = None  # another picture, not the chart
    prepare: Callable[[str], None] = lambda folder: None  # once; all children read it in settings.given["folder"]


def answer(suite: Suite, request: str) -> None:
    """In a child: measure what ``request`` asks for, and print the result."""
    what = json.loads(request)
    try:
        numbers = suite.jobs[what["job"]].ways[what["way"]].measure(Settings(**what["settings"]))
    except Exception as error:
        print(MARK + json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)
        raise
    print(MARK + json.dumps({"numbers": numbers}), flush=True)


def _wait(child: subprocess.Popen[bytes], deadline_s: float) -> bool:
    """Return True if the child ended in time. It stays a zombie, so that nobody else can get its process group."""
    stop_at = time.monotonic() + deadline_s
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > stop_at:
            return False
        time.sleep(0.02)
    return True


def run_child(command: list[str], deadline_s: float) -> dict[str, Any]:
    """Run a child, and return ``{"numbers": ...}`` or ``{"error": ...}``. Blocks for up to ``deadline_s``."""
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
        last_one: dict[str, Any] = json.loads(answers[-1])
        return last_one
    last = said.splitlines()[-1] if said else "it said nothing"
    if not in_time:
        return {"error": f"no result within {deadline_s:g} s ({last})"}
    return {"error": f"ended with status {child.returncode} ({last})"}


def run_rounds(suite: Suite, options: argparse.Namespace, settings: Settings) -> list[Record]:
    """Run all measurements, in the order A B C A B C. A way that is not installed gives a record with that error."""
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
                said: dict[str, Any] = (
                    {"error": f"{absent[0]} is not installed"} if absent else run_child(command, options.deadline)
                )
                records.append(Record(job, key, number, **said))
                told = said.get("error") or "  ".join(f"{k}={v:.4g}" for k, v in said["numbers"].items())
                print(f"round {number + 1}/{options.rounds}  {job:20} {key:14} {told}", file=sys.stderr, flush=True)
    return records
