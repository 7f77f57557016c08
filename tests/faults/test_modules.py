"""Programs whose modules a worker cannot import by name: what these define reaches it all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faulty import PATIENCE_S

pytestmark = pytest.mark.own_server

ROOT = Path(__file__).resolve().parents[2]

MODULE = """
from dataclasses import dataclass
import numpy as np
from workers import Sequence

factor = 3

@dataclass
class Pair:
    x: np.ndarray
    y: int

class Pairs(Sequence):
    def __len__(self):
        return 10
    def __getitem__(self, index):
        return Pair(np.full(10_000, index), helper(index))

def helper(index):
    return factor * index

def use():
    with Pairs(seed=1).prefetch(nb_workers=2) as batches:
        for _ in range(2):
            got = list(batches)
            assert all(type(pair) is Pair for pair in got)
            assert [pair.y for pair in got] == list(range(0, 30, 3))
    with Pairs(seed=1).map(lambda pair: pair.x * factor, nb_workers=1) as batches:
        assert [batch[0] for batch in batches] == list(range(0, 30, 3))
    print("used", flush=True)
"""


def run(folder: Path, program: str, *, path: str = str(ROOT)) -> None:
    """Run a program in ``folder`` that is to end well, and to say once that it has used the module."""
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, str(folder / "program.py")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=folder,
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["used"], "")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_of_multiprocessing(tmp_path: Path, method: str) -> None:
    """Which runs the script again, as __mp_main__."""
    program = f"""
{MODULE}
import multiprocessing
if __name__ == "__main__":
    child = multiprocessing.get_context({method!r}).Process(target=use)
    child.start()
    child.join()
    assert child.exitcode == 0
"""
    run(tmp_path, program)


LOADED = """
import importlib.util, os, sys
spec = importlib.util.spec_from_file_location("{name}", os.path.join("{folder}", "pairs.py"))
module = importlib.util.module_from_spec(spec)
{register}
spec.loader.exec_module(module)
module.use()
"""


@pytest.mark.parametrize("name", ["pairs", "some.where.pairs"])
@pytest.mark.parametrize("is_registered", [True, False])
@pytest.mark.parametrize("has_namesake", [True, False])
def test_a_module_that_was_loaded_from_a_path(
    tmp_path: Path, name: str, is_registered: bool, has_namesake: bool
) -> None:
    """Also where its name leads to another file."""
    (tmp_path / "far").mkdir()
    text = MODULE if is_registered else MODULE.replace("@dataclass", "@dataclass(init=True)")
    (tmp_path / "far" / "pairs.py").write_text(text if is_registered else _without_dataclass(text))
    if has_namesake:
        (tmp_path / "pairs.py").write_text("factor = 7\n")
    register = "sys.modules[spec.name] = module" if is_registered else ""
    run(tmp_path, LOADED.format(name=name, folder=tmp_path / "far", register=register))


def _without_dataclass(text: str) -> str:
    """Python itself needs a dataclass's module to be registered, where annotations are strings; and so may others."""
    start, stop = text.index("@dataclass"), text.index("class Pairs")
    return f"{text[:start]}class Pair:\n    def __init__(self, x, y):\n        self.x, self.y = x, y\n\n{text[stop:]}"


@pytest.mark.parametrize("when", ["afterwards", "meanwhile"])
def test_run_path(tmp_path: Path, when: str) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "pairs.py").write_text(MODULE + ("use()\n" if when == "meanwhile" else ""))
    call = "" if when == "meanwhile" else '["use"]()'
    run(tmp_path, f"import runpy\nrunpy.run_path({str(tmp_path / 'far' / 'pairs.py')!r}){call}\n")


def test_a_module_of_a_folder_that_was_left(tmp_path: Path) -> None:
    """As of a notebook, whose sys.path has "", after %cd. What the new folder has of that name is another module."""
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / "pairs.py").write_text(MODULE)
    (tmp_path / "new" / "pairs.py").write_text("factor = 7\n")
    run(tmp_path, "import os, sys\nsys.path[0] = ''\nos.chdir('old')\nimport pairs\nos.chdir('../new')\npairs.use()\n")


def test_a_module_of_the_current_folder(tmp_path: Path) -> None:
    """It goes by name, and so may be imported by a job too; wherever the job goes."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "pairs.py").write_text(MODULE)
    (tmp_path / "here" / "other.py").write_text("number = 3\n")
    program = """
import os, sys
sys.path[0] = ''
os.chdir('here')
import pairs
from workers import prefetch
def job(index):
    os.chdir("/")
    import other
    return other.number, "pairs" in sys.modules
pairs.use()
with prefetch([0], 1).map((lambda pair, index: job(index)).__get__(pairs.Pair)) as batches:
    assert next(batches) == (3, True)
"""
    run(tmp_path, program)


def test_pytest_with_importlib(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "test_pairs.py").write_text(f"{MODULE}\ndef test_use():\n    use()\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd="/",
        timeout=2 * PATIENCE_S,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout
