"""Who is measured when: a fresh process for each (job, loader), all loaders in turn, round after round.

What a child starts dies with it: it is the head of a process group of its own, which is killed as a whole.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import ALL_LOADERS, MEASUREMENTS, Numbers, Settings, measure

SCRIPT = Path(__file__).resolve().parent.parent / "benchmark"
MARK = "measured: "


@dataclass(frozen=True)
class Record:
    """One measurement, or why there is none."""

    job: str
    loader: str
    round: int
    numbers: Numbers = field(default_factory=dict)  # e.g. {"batches_per_s": 401.2, "times_serial": 1.93}
    error: str | None = None


def in_child(request: str) -> None:
    """Measures what ``request`` asks for. Runs in: a child."""
    what = json.loads(request)
    try:
        numbers = measure(what["job"], what["loader"], Settings(**what["settings"]))
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


def run_child(job: str, loader: str, settings: Settings, deadline_s: float) -> dict[str, Any]:
    """``{"numbers": ...}`` or ``{"error": ...}``. Blocks: on the child, until ``deadline_s``."""
    request = json.dumps({"job": job, "loader": loader, "settings": asdict(settings)})
    scripts = SCRIPT.parent
    paths = [str(scripts.parent), str(scripts), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--child", request],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "TF_CPP_MIN_LOG_LEVEL": "3"},
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


def run_rounds(
    jobs: Iterable[str], loaders: Iterable[str], num_rounds: int, settings: Settings, deadline_s: float
) -> list[Record]:
    """All of it, in the order A B C A B C; what is not installed is one record with its reason."""
    jobs, loaders, records = list(jobs), set(loaders), []
    for number in range(num_rounds):
        for job in jobs:
            for loader in MEASUREMENTS[job].loaders:
                if loader not in loaders:
                    continue
                reason = ALL_LOADERS[loader].why_not()
                answer: dict[str, Any] = {"error": reason} if reason else run_child(job, loader, settings, deadline_s)
                records.append(Record(job, loader, number, **answer))
                told = answer.get("error") or "  ".join(f"{k}={v:.4g}" for k, v in answer["numbers"].items())
                print(f"round {number + 1}/{num_rounds}  {job:20} {loader:14} {told}", file=sys.stderr, flush=True)
    return records
