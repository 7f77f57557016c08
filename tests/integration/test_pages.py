"""The manual: each example of a page runs as a newcomer would run it; each public name has a page; no page is long."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import sampler
import workers

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.rst",
    "workers/README.rst",
    "workers/sequence/README.rst",
    "workers/frameworks/README.rst",
    "workers/cache/README.rst",
    "workers/process/README.rst",
    "workers/report/README.rst",
    "workers/cluster/README.rst",
    "workers/checkup/README.rst",
    "sampler/README.rst",
    ".github/CONTRIBUTING.rst",
    ".github/CHANGELOG.rst",
]
TEXTS = {page: (ROOT / page).read_text() for page in PAGES}
EXAMPLES = {page: re.findall(r"\.\. code-block:: python\n\n((?: {4}.*\n|\n)+)", text) for page, text in TEXTS.items()}

# What TensorFlow's libraries say of the machine when they are loaded, and progress.
GREETING = re.compile(
    r"(writing|reading|verifying)\b|$|WARNING: All log messages|[IWE]\d{4} |\d{4}-\d\d-\d\d .*: [IWE] |To enable"
    r"|GPU available|TPU available|.*litlogger|.*site-packages/lightning/|`Trainer.fit` stopped"
)

#: Runs the scripts that it is given one after the other, each as ``python script.py`` would, and says where one begins.
RUNNER = """
import runpy, sys

for script in sys.argv[1:]:
    for stream in (sys.stdout, sys.stderr):
        print(f"=== {script}", file=stream, flush=True)
    runpy.run_path(script, run_name="__main__")
"""


def _said(text: str) -> dict[str, list[str]]:
    """{script: the lines that it has written}."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("=== "):
            lines = said[line[4:]] = []
        else:
            lines.append(line)
    return said


@pytest.mark.parametrize("page", [page for page in PAGES if EXAMPLES[page]])
def test_examples(page: str, tmp_path: Path) -> None:
    """All of a page in one process, in a folder that only those before have used."""
    scripts = [f"example_{number}.py" for number in range(len(EXAMPLES[page]))]
    for script, example in zip(scripts, EXAMPLES[page], strict=True):
        (tmp_path / script).write_text(textwrap.dedent(example))
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *scripts],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    shown = _said(done.stdout)
    for script, lines in _said(done.stderr).items():
        assert [line for line in lines if not GREETING.match(line)] == [], script
        assert any(map(str.strip, shown[script])), f"{script} shows nothing"
    assert (done.returncode, list(shown)) == (0, scripts)


def test_there_are_examples() -> None:
    assert sum(map(len, EXAMPLES.values())) >= 16


def test_no_page_is_long() -> None:
    lengths = {page: text.count("\n") for page, text in TEXTS.items()}
    assert {page for page, length in lengths.items() if length > (150 if page == "README.rst" else 250)} == set()


def test_no_cell_of_a_table_is_cut() -> None:
    """In a simple table, text in the first column begins a row: what goes on below there becomes a row of its own."""
    cut = []
    for page, text in TEXTS.items():
        second = 0  # where the second column begins; 0: no table
        for line in text.splitlines():
            if re.fullmatch(r"=+( +=+)+", line):
                second = re.match(r"=+ +", line).end()  # type: ignore[union-attr]
            elif not line.strip():
                second = 0
            elif (
                second and line[:second].strip() and (line[:second].rstrip().endswith(",") or not line[second:].strip())
            ):
                cut.append(f"{page}: {line}")
    assert cut == []


def test_every_public_name_is_in_a_page() -> None:
    marked = " ".join(re.findall(r"``([^`]+)``", "\n".join(TEXTS.values())))
    marked += " ".join(example for examples in EXAMPLES.values() for example in examples)
    words = set(re.findall(r"\w+", marked))
    assert {*workers.__all__, *sampler.__all__} - words == set()


def test_links_between_pages_resolve() -> None:
    wrong = []
    for page, text in TEXTS.items():
        targets = re.findall(r"<([^<>`]+\.rst)>`_", text)
        wrong += [f"{page}: {each}" for each in targets if not (ROOT / page).parent.joinpath(each).resolve().is_file()]
    assert not wrong


def test_no_fact_stands_in_two_pages() -> None:
    """Sentences that are long enough to be a fact."""
    seen: dict[str, str] = {}
    for page, text in TEXTS.items():
        prose = re.sub(r"\.\. code-block::.*?\n\n((?: {4}.*\n|\n)+)", "", text)
        for sentence in re.split(r"(?<=[.:])\s+", " ".join(prose.split())):
            if len(sentence) > 60 and not set(sentence) <= set("= "):
                assert seen.setdefault(sentence, page) == page, sentence
