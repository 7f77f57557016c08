"""A program with a pool prints nothing on standard error where warnings of what is not closed are errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import os, sys
import numpy as np
from workers import Sequence, prefetch, share

class Arrays(Sequence):
    def __init__(self):
        super().__init__(seed=1)
        self.small, self.shared = np.zeros(100_000), share(np.zeros(100_000))
    def __len__(self):
        return 20
    def __getitem__(self, index):
        if HOW == "a job raises" and index == 3:
            raise KeyError(index)
        return np.zeros(30_000)

def scope():
    batches = prefetch(Arrays(), 2, executor="thread" if HOW == "threads" else "process")
    if HOW == "nothing is read":
        return
    for at, batch in enumerate(batches):
        if HOW in ("break", "kept") and at == 2:
            break
        if HOW == "an error" and at == 2:
            raise LookupError("on purpose")
        if HOW == "exit" and at == 2:
            sys.exit()
        if HOW == "a fork" and at == 2 and os.fork() == 0:
            sys.exit()
    if HOW == "kept":
        globals()["batches"] = batches
    if HOW == "close":
        batches.close()

try:
    scope()
except (LookupError, SystemExit) as error:
    print(type(error).__name__)
"""

WAYS = {
    "close": "",
    "without close": "",
    "break": "",
    "kept": "",
    "nothing is read": "",
    "threads": "",
    "a fork": "SystemExit",
    "exit": "SystemExit",
    "an error": "LookupError",
    "a job raises": "KeyError",
}


@pytest.mark.parametrize("how", WAYS)
def test_resource_warnings(how: str) -> None:
    # By the environment, so that it is so in the server and in the workers too.
    environment = {**os.environ, "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error::ResourceWarning"}
    command = [sys.executable, "-c", f"HOW = {how!r}\n{PROGRAM}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=ROOT, check=False, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == WAYS[how].split()
