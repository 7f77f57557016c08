"""A module of the user's that is called ``workers`` too: sampler names it, and worker processes never take it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.own_server

ROOT = Path(__file__).resolve().parents[2]

THEIRS = 'raise SystemExit("the module workers of the user was run")\n'


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
    )


@pytest.mark.parametrize("name", ["workers.py", "workers/__init__.py"])
@pytest.mark.parametrize("what", ["sampler", "sampler.memory.samplers"])
def test_sampler_names_what_hides_workers_and_does_not_run_it(name: str, what: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(THEIRS)
    done = run(tmp_path, "-c", f"import {what}")
    hiding = tmp_path / name.removesuffix("/__init__.py")
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: sampler needs the package workers that came with it, {ROOT / 'workers'}, but {hiding} hides it: "
        "Python finds that first. Rename it."
    )


def test_it_is_named_too_when_it_is_what_imports_sampler(tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text("import sampler\n")
    (tmp_path / "main.py").write_text("import workers\n")
    for script in ("main.py", "workers.py"):
        last = run(tmp_path, script).stderr.splitlines()[-1]
        assert last.startswith("ImportError: sampler needs")
        assert str(tmp_path / "workers.py") in last


def test_a_folder_that_is_no_package_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    assert run(tmp_path, "-c", "import sampler").returncode == 0


# What starts a thread when it is imported has the server begin anew, without it.
MINE = """
import threading
{thread}
class Mine:
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return 2 * index
"""
THREAD = "threading.Thread(target=threading.Event().wait, daemon=True).start()"

LOOP = """
import os, sys
import mine
import workers
{change}
with workers.prefetch(mine.Mine(), nb_workers=1, seed=1) as batches:
    assert list(batches) == [0, 2, 4]
"""

CHANGES = {
    "another folder": "os.chdir('theirs')",
    "a path in front": "sys.path.insert(0, os.path.abspath('theirs'))",
    "a path in place of ours": f"sys.path[:] = [os.path.abspath('theirs'), *set(sys.path) - {{{str(ROOT)!r}}}]",
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("thread", ["", THREAD], ids=["one server", "begun anew"])
def test_workers_take_our_package_whatever_the_path_says_now(change: str, thread: str, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "workers.py").write_text(THEIRS)
    (tmp_path / "mine.py").write_text(MINE.format(thread=thread))
    done = run(tmp_path, "-c", LOOP.format(change=CHANGES[change]))
    assert (done.returncode, done.stderr) == (0, "")
