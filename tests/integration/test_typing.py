"""What type checkers see of a user's file: the type of batches, and misspelt options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

RIGHT = """
from typing import Any, List, Tuple

import numpy as np
from typing_extensions import assert_type

import workers
from sampler import SingleShotMemorySampler
from workers import Sequence, SequenceArray, SequenceMap, prefetch

Pair = Tuple[np.ndarray, np.ndarray]

class Crops(Sequence[Pair]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Pair:
        return np.zeros(3), np.zeros(3)

def mean(batch: Pair) -> float:
    return float(batch[0].mean())

def columns(batch: Pair) -> List[int]:
    return [1, 2]

with Crops().prefetch(nb_workers=2, on_error="skip", max_retries=1) as batches:
    assert_type(batches, SequenceMap[Pair])
    for batch in batches:
        assert_type(batch, Pair)
    for shown in batches.progress(desc="training"):
        assert_type(shown, Pair)
for number in Crops().map(mean, nb_workers=2):
    assert_type(number, float)
for item in Crops().map(columns, 1):
    assert_type(item, int)
assert_type(prefetch([1, 2, 3], 2), SequenceMap[int])
assert_type(prefetch([1, 2, 3], 2, batch_size=2), SequenceMap[Any])
assert_type(Crops().prefetch(2, output="torch").to_device("cpu"), SequenceMap[Any])
assert_type(Crops().shuffle(), Sequence[Pair])
assert_type(Crops().prefetch(2).shuffle().shard(0, 2), SequenceMap[Pair])
assert_type(next(iter(SequenceArray({"x": [1, 2]}))), "dict[str, Any]")
x, y = SingleShotMemorySampler(np.eye(3), None, 2)[0]
Crops().map([mean, mean], on_error=lambda error: "retry")
prefetch([1], executor="thread", in_order=False, job_timeout=5)

class Plain(Sequence):  # without a type, as most are written
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index

for anything in Plain().prefetch(1):
    pass
"""

#: Lines that must be found wrong.
WRONG = """
import numpy as np
from workers import Sequence, prefetch
from workers import SequenceMap

class Crops(Sequence[int]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> int:
        return index

def length(text: str) -> int:
    return len(text)

prefetch([1], nb_worker=2)  # wrong
prefetch([1], on_error="skipp")  # wrong
prefetch([1], executor="threads")  # wrong
prefetch([1], batch_size="2")  # wrong
prefetch([1], output="numpy")  # wrong
Crops().prefetch(nb_worker=2)  # wrong
Crops().prefetch(in_ordr=False)  # wrong
Crops().map(abs, nb_worker=2)  # wrong
Crops().map(abs, on_error="skipp")  # wrong
Crops().map(length)  # wrong
Crops().shard(0, 2, "dropp")  # wrong
SequenceMap([1], 2, None, executor="threads")  # wrong
SequenceMap([1], 2, None, max_queue_sise=3)  # wrong
for batch in Crops().prefetch(2):
    batch.shape  # wrong
"""

CHECKERS = {
    "mypy": ["mypy", "--strict-equality", "--no-incremental", "--show-error-codes"],
    "pyright": ["basedpyright", "--level", "error", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", list(CHECKERS))
def test_a_users_file(checker: str, tmp_path: Path) -> None:
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text(WRONG)
    command = [sys.executable, "-m", *CHECKERS[checker], "right.py", "wrong.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"(right|wrong)\.py:(\d+)(?::\d+)*(?: -)?:? error", ran.stdout)
    lines = {(file, int(line)) for file, line in found}
    expected = {("wrong", at) for at, line in enumerate(WRONG.splitlines(), 1) if line.endswith("# wrong")}
    assert lines == expected, ran.stdout + ran.stderr
