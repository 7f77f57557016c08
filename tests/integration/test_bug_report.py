"""``python -m workers``: the facts of a bug report, and a pool that is tried."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import workers
from workers import __main__ as bug_report

ROOT = Path(workers.__file__).parents[1]


def test_in_an_empty_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "workers"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert facts["workers"].startswith(workers.__version__)
    assert facts["Python"].startswith(sys.version.split()[0])
    assert "numpy " in facts["installed"]
    assert facts["cores"].startswith(f"{workers.limits.cores()} for this process")
    assert facts["pool"].startswith("2 workers delivered the batches that the loop computes alone: 20 batches")


@pytest.mark.parametrize("raises", [False, True])
def test_a_pool_that_is_wrong(raises: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """It says so, and the exit code is 1."""

    def item(self: object, index: int) -> tuple[int, int]:
        if raises:
            raise ValueError("no batch today")
        return os.getpid(), index

    monkeypatch.setattr(bug_report.Batches, "__getitem__", item)
    assert bug_report.main() == 1
    said = capfd.readouterr().out.splitlines()[-1]
    assert said.startswith("pool")
    assert ("ValueError: no batch today" if raises else "other batches than the loop computes alone") in said
