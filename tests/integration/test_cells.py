"""Code that lies in no file, as that of a notebook's cells: what a worker knows of its source."""

from __future__ import annotations

import inspect
import itertools
import linecache
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers import NotPicklableError, RemoteTraceback, SequenceMap, prefetch
from workers.process.replica import Parcel, Pickled

NAMES = ["/tmp/ipykernel_123/456.py", "<ipython-input-3-9f2c>", "<doctest cell[0]>"]
CELL = """
def helper(value):
    raise LookupError(value)  # the line of the helper

class Cells:
    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index:
            return helper(index)  # the line of the job
        return inspect.getsource(helper)
"""
NEXT = """
def twice(text):
    return later(text)  # the line of the next cell

def later(text):
    raise OSError(len(text))
"""

TRACED = """
import tensorflow as tf

@tf.function
def traced(x):
    if tf.reduce_sum(x) > 2:
        return 2 * x
    return x

def job(x):
    return traced(x).numpy()
"""


@pytest.fixture
def run() -> Iterator[Any]:
    """Runs a cell as IPython does: its text is in linecache, and what it defines in ``__main__``."""
    known, space = set(linecache.cache), {"__name__": "__main__", "inspect": inspect}

    def run_cell(text: str, name: str) -> dict[str, Any]:
        linecache.cache[name] = len(text), None, text.splitlines(keepends=True), name
        exec(compile(text, name, "exec"), space)
        return space

    yield run_cell
    for name in set(linecache.cache) - known:
        del linecache.cache[name]


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [{"nb_workers": 1}, {"nb_workers": 0}, {"nb_workers": 1, "executor": "thread"}])
def test_a_traceback_shows_the_lines_of_its_cells(run: Any, name: str, options: dict[str, Any]) -> None:
    cells = run(CELL, name)["Cells"]()
    with prefetch(cells, **options) as batches:
        loop = iter(batches)
        assert "the line of the helper" in next(loop)  # a job can read the source of a function
        with pytest.raises(LookupError) as caught:
            next(loop)
    text = shown(caught.value)
    for line in ("the line of the helper", "the line of the job"):
        assert text.count(line) == 1, text
    assert text.count(f'File "{name}"') == 2
    if options == {"nb_workers": 1}:
        assert isinstance(caught.value.__cause__, RemoteTraceback)


def test_each_function_has_its_own_cell(run: Any) -> None:
    cells = run(CELL, NAMES[0])["Cells"]()
    seen: Any = prefetch(cells, nb_workers=0)
    with seen.map(run(NEXT, NAMES[1])["twice"], nb_workers=1) as batches, pytest.raises(OSError, match="74") as caught:
        list(batches)
    assert "the line of the next cell" in shown(caught.value)


def test_a_script_is_named(tmp_path: Path) -> None:
    """What is defined in ``__main__`` travels as code, and keeps the name of its file."""
    script = tmp_path / "script.py"
    script.write_text(
        "import workers\n"
        "def job(x):\n"
        "    raise LookupError(x)  # its line\n"
        "print(list(workers.SequenceMap([1], 1, job)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert f'File "{script}", line 3, in job\n    raise LookupError(x)  # its line\n' in done.stderr, done.stderr


def test_functions_of_files_bring_no_text() -> None:
    """They are read from their files; and what has no text anywhere brings none."""
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("def nowhere(x): return x", space)

    def local(x: Any) -> Any:
        return x

    assert Parcel(Pickled([local, space["nowhere"], np.sum, shown])).message().texts == {}


def test_a_new_text_goes_with_a_new_parcel(run: Any) -> None:
    parcels = [Parcel(Pickled(run(CELL, name)["helper"])) for name in NAMES]
    for parcel, name in zip(parcels, NAMES, strict=True):
        assert parcel.message().texts == {name: CELL}
    for one, other in itertools.pairwise(parcels):
        assert one.message() != other.message()


def test_what_cannot_be_sent_is_named_as_before(run: Any) -> None:
    space = run("import threading\nlock = threading.Lock()\ndef held(x):\n    return lock\n", NAMES[0])
    with pytest.raises(NotPicklableError, match="global 'lock'"):
        Pickled(space["held"])


def test_autograph_reads_the_source_in_workers(run: Any) -> None:
    """A ``tf.function`` is traced anew there, from its text."""
    space = run(TRACED, NAMES[1])
    with SequenceMap([np.ones(1), np.ones(5)], 1, space["job"]) as batches:
        assert [batch.tolist() for batch in batches] == [[1.0], [2.0] * 5]
