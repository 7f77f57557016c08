"""Every example of the README runs as a newcomer would run it: pasted, in a folder that only those before have used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(r"\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", (ROOT / "README.rst").read_text())

# What TensorFlow's libraries say of the machine when they are loaded, and progress.
GREETING = re.compile(
    r"(writing|reading|verifying)\b|$|WARNING: All log messages|[IWE]\d{4} |\d{4}-\d\d-\d\d .*: [IWE] |To enable"
    r"|GPU available|TPU available|.*litlogger|.*site-packages/lightning/|`Trainer.fit` stopped"
    r"|WARNING:tensorflow:AutoGraph|Cause: Unable to locate the source|To silence this"  # of a program from stdin
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("newcomer")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(number: int, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input=textwrap.dedent(EXAMPLES[number]),
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said = [line for line in done.stderr.splitlines() if not GREETING.match(line)]
    assert (done.returncode, said) == (0, [])
    assert done.stdout.strip(), "it shows nothing"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
