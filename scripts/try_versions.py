"""Run the tests on each Python from 3.10 on, with numpy 1.26 and 2, in temporary environments.

Pythons are searched on PATH, in pyenv and in uv. The environments have no torch, JAX and albumentations, and no
TensorFlow (2 GB each) unless --tensorflow is given; tests that need a missing package are skipped, and counted. Further
arguments are files of tests; without any, all tests run except those of the README's examples. Exits with 1 unless each
Python was found and all its tests passed.
"""

from __future__ import annotations

import argparse
import configparser
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
NUMPYS = ["1.26", "2"]
LAST_OF_NUMPY_1 = "3.12"  # there is no wheel of 1.26 for a later Python
FOR_TESTS = ["hypothesis", "ml_dtypes", "pytest", "scikit-learn", "scipy"]
TESTS = ["tests/unit", "tests/faults", "tests/integration"]


class Tried(NamedTuple):
    """The result in one environment: Tried("3.12.1", "1.26.4", "", "1,300 passed, 60 skipped", True)."""

    python: str
    numpy: str
    tensorflow: str
    outcome: str
    is_well: bool


def find_python(version: str) -> str | None:
    """Return an interpreter of ``version``, such as "3.12", that runs. None: there is none."""
    candidates = [f"python{version}"]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates += [str(found) for found in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    if shutil.which("uv"):
        told = subprocess.run(["uv", "python", "find", version], capture_output=True, text=True, check=False)
        candidates += told.stdout.split()
    code = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        try:
            told = subprocess.run([candidate, "-c", code], capture_output=True, text=True, check=False)
        except OSError:
            continue
        if told.stdout.strip() == version:
            return candidate
    return None


def requirements(with_tensorflow: bool) -> Iterator[str]:
    """Yield the requirements in setup.cfg. Those that come with TensorFlow have a condition there."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    for line in config["options"]["install_requires"].splitlines():
        if line and not line.startswith("numpy") and (with_tensorflow or ";" not in line):
            yield line


def make(base: str, numpy: str, with_tensorflow: bool, folder: Path) -> str:
    """Make the environment, and return its Python."""
    subprocess.run([base, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    packages = [*FOR_TESTS, *requirements(with_tensorflow), f"numpy=={numpy}.*"]
    # Only wheels, because users have no numpy that was compiled here.
    options = ["--quiet", "--disable-pip-version-check", "--only-binary=numpy,scipy"]
    subprocess.run([python, "-m", "pip", "install", *options, *packages], check=True)
    return python


def version_of(python: str, package: str) -> str:
    code = "import sys; from importlib import metadata; print(metadata.version(sys.argv[1]))"
    told = subprocess.run([python, "-c", code, package], capture_output=True, text=True, check=False)
    return told.stdout.strip()


def run_tests(python: str, tests: list[str], folder: Path) -> tuple[str, bool]:
    """Return (the counts of the results as text, True if no test failed). pytest reports failures on stderr."""
    report = folder / "report.xml"
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *tests]
    if tests is TESTS:
        command.append("--ignore=tests/integration/test_pages.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
    if not report.exists():
        return "pytest did not end", False
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in ET.parse(report).getroot():
        for name in counts:
            counts[name] += int(suite.get(name, 0))
    bad = counts["failures"] + counts["errors"]
    passed = counts["tests"] - bad - counts["skipped"]
    outcome = f"{passed:,} passed, {counts['skipped']} skipped" + (f", {bad} FAILED" if bad else "")
    return outcome, passed > 0 and not bad


def attempt(version: str, numpy: str, with_tensorflow: bool, tests: list[str]) -> Tried:
    base = find_python(version)
    if base is None:
        return Tried(version, numpy, "", "this Python was not found here", False)
    with tempfile.TemporaryDirectory(prefix="versions-") as folder:
        print(f"== Python {version}, numpy {numpy}: {base}", file=sys.stderr, flush=True)
        try:
            python = make(base, numpy, with_tensorflow, Path(folder, "venv"))
        except subprocess.CalledProcessError:
            return Tried(version, numpy, "", "could not be installed", False)
        told = subprocess.run([python, "--version"], capture_output=True, text=True, check=True)
        outcome, is_well = run_tests(python, tests, Path(folder))
        tensorflow = version_of(python, "tensorflow")
        return Tried(told.stdout.split()[1], version_of(python, "numpy"), tensorflow or "no", outcome, is_well)


def table(rows: list[list[str]]) -> str:
    """Return the table as reStructuredText. The first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=TESTS, metavar="TESTS", help="files or folders of tests")
    parser.add_argument("--python", nargs="+", default=PYTHONS, choices=PYTHONS, metavar="VERSION", help="such as 3.12")
    parser.add_argument("--numpy", nargs="+", default=NUMPYS, choices=NUMPYS, metavar="VERSION", help="1.26 or 2")
    parser.add_argument("--tensorflow", action="store_true", help="with TensorFlow, Keras and TensorFlow Datasets")
    options = parser.parse_args()
    found = []
    for version in options.python:
        for numpy in options.numpy:
            if not (numpy == "1.26" and PYTHONS.index(version) > PYTHONS.index(LAST_OF_NUMPY_1)):
                found.append(attempt(version, numpy, options.tensorflow, options.tests))
                print(*found[-1][:4], sep=", ", file=sys.stderr, flush=True)
    print(table([["Python", "numpy", "TensorFlow", "tests"], *[list(each[:4]) for each in found]]))
    raise SystemExit(0 if all(each.is_well for each in found) else 1)


if __name__ == "__main__":
    main()
