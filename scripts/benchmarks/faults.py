"""The behaviour of loaders under ordinary faults, with 2 workers: a worker is killed in a job, a job raises, jobs draw
from ``numpy.random`` as most augmentation does.

Each loader and fault runs in its own process. If that has not ended after ``--deadline`` seconds, the loader "hangs".
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jobs import Job
from benchmarks.peers import LOADERS
from benchmarks.report import markdown_table, rst_table

LENGTH = 48
AT = 20  # the batch at which the fault happens
_WORKERS = 2
_ASKED = "seeded", "torch", "grain", "keras", "pool"


class Draws(Job):
    """Batches of (index, a number drawn from numpy's global generator)."""

    def __getitem__(self, index: int) -> Any:
        return np.array([index, np.random.random()])

    def index_in(self, batch: Any) -> int:
        return int(batch[0])


class Killed(Draws):
    """A dataset that kills the first process that computes batch ``AT``, like the out-of-memory killer."""

    def __init__(self, length: int, marker: str) -> None:
        super().__init__(length)
        self.marker = marker

    def __getitem__(self, index: int) -> Any:
        if index == AT and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


class Raises(Draws):
    """A dataset whose batch ``AT`` raises."""

    def __getitem__(self, index: int) -> Any:
        if index == AT:
            raise ValueError("a file that cannot be read")
        return super().__getitem__(index)


def read(loader: str, job: Draws, num_workers: int) -> tuple[list[Any], list[str]]:
    """Read an epoch, print its batches and errors as JSON, and exit. After an error, the loop goes on."""
    batches: list[Any] = []
    errors: list[str] = []
    with LOADERS[loader].open(job, num_workers) as epoch:
        iterator = epoch()
        while len(errors) < 3:
            try:
                batches.append(np.array(next(iterator)))  # a copy, because some loaders reuse the memory of a batch
            except StopIteration:
                break
            except Exception as error:
                errors.append(type(error).__name__)
        print(json.dumps([[batch.tolist() for batch in batches], errors]), flush=True)
        os._exit(0)  # some loaders no longer end by themselves


def _told(found: tuple[list[Any], list[str]] | None) -> tuple[int, str, bool]:
    """Return (the number of batches delivered, the first error, True if the batches are in order)."""
    batches, errors = found or ([], [])
    indices = [int(batch[0]) for batch in batches]
    return len(indices), errors[0] if errors else "", indices == sorted(set(indices))


def of_kill(ask: Callable[..., Any]) -> str:
    found = ask("killed", _WORKERS)
    count, error, in_order = _told(found)
    if found is None:
        return "hangs"
    if error:
        return f"{error}: {LENGTH - count} of {LENGTH} batches lost"
    return f"all {LENGTH} arrive{', in order' if in_order else ''}" if count == LENGTH else f"{LENGTH - count} lost"


def of_error(ask: Callable[..., Any]) -> str:
    found = ask("raises", _WORKERS)
    count, error, _ = _told(found)
    if found is None:
        return "hangs"
    if not error:
        return f"no error; {LENGTH - count} lost"
    return f"{error}; {'the others go on' if count == LENGTH - 1 else f'{LENGTH - 1 - count} others lost'}"


def of_draws(ask: Callable[..., Any]) -> str:
    one, two = ask("draws", 1), ask("draws", _WORKERS)
    if one is None or two is None:
        return "hangs"
    if one[1] or two[1]:
        return str((one[1] + two[1])[0])
    drawn = [[batch[1] for batch in found[0]] for found in (one, two)]
    repeated = LENGTH - len(set(drawn[1]))
    text = "the same on 1 and 2 workers" if drawn[0] == drawn[1] else "others on 2 workers than on 1"
    return text + (f"; {repeated} of {LENGTH} drawn twice" if repeated else "")


FAULTS = {
    "a worker is killed": of_kill,
    "a job raises": of_error,
    "``numpy.random`` draws": of_draws,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deadline", type=float, default=30.0, metavar="S", help="after which a loader hangs (30)")
    parser.add_argument("--rst", type=Path, metavar="FILE", help="the table for README.rst")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        loader, kind, num_workers, folder = options.child
        LOADERS[loader].load()
        np.random.seed(1)
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(1)
        jobs = {"draws": Draws(LENGTH), "raises": Raises(LENGTH), "killed": Killed(LENGTH, f"{folder}/killed")}
        read(loader, jobs[kind], int(num_workers))
    rows = []
    for loader in _ASKED:

        def ask(kind: str, num_workers: int, loader: str = loader) -> Any:
            return _in_child(loader, kind, num_workers, options.deadline)

        rows.append([LOADERS[loader].label, *[judge(ask) for judge in FAULTS.values()]])
        print(rows[-1], file=sys.stderr, flush=True)
    table = [["2 workers", *FAULTS], rows]
    print(markdown_table(table))  # type: ignore[arg-type]
    if options.rst:
        options.rst.write_text(rst_table(table) + "\n")  # type: ignore[arg-type]


def _in_child(loader: str, kind: str, num_workers: int, deadline_s: float) -> Any:
    """Return what :func:`read` printed. None: it did not end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", loader, kind, str(num_workers), folder]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        try:
            said, _ = process.communicate(timeout=deadline_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its remaining workers
            process.wait()
    lines = said.strip().splitlines()
    return json.loads(lines[-1]) if lines else [[], [f"ended with status {process.returncode}"]]


if __name__ == "__main__":
    main()
