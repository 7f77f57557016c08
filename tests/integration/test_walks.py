"""How far a call goes through the house: these bounds may only sink."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from house import ROOT

#: {a walk: (files that it enters, climbs)}; None: not looked at, as it depends on what the engine does meanwhile.
BOUNDS: dict[str, tuple[int | None, int]] = {
    "iter": (None, 0),
    "further batches": (34, 0),
    "in a worker": (32, 0),
    "chain": (None, 4),
    "state": (14, 0),
    "fit": (None, 0),
}


@pytest.fixture(scope="module")
def walks() -> Any:
    program = ROOT / "tests" / "support" / "walks.py"
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("walk", BOUNDS)
def test_walk(walks: Any, walk: str) -> None:
    pytest.importorskip("keras")
    files, climbs = BOUNDS[walk]
    assert len(walks[walk]["climbs"]) <= climbs, walks[walk]["climbs"]
    assert files is None or walks[walk]["files"] <= files
