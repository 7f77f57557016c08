"""What takes long shows bars: in a terminal, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from terminals import shown, terminal, written

from workers.sequence.progress import Bar

LOADS = """
import numpy as np
from sampler import SingleShotMemorySampler

sampler = SingleShotMemorySampler(list(range(30)), None, 4, 5, load_example_fn=np.full(8, 1).__mul__, seed=1)
assert len(sampler.get_slice()[0]) == 30
for batch in sampler.prefetch(nb_workers=1):
    pass
"""

RECORDS = """
import sys
import numpy as np
from sampler import TFRecordSequence, verify_shards, write_class_shards

def serialize(example, label):
    return bytes([example, label])

folder = sys.argv[1]
write_class_shards(np.arange(30), np.arange(30) % 3, folder, serialize, example_per_class=2, examples_per_shard=4)
assert verify_shards(folder, example_per_class=2) == []
TFRecordSequence(folder, example_per_class=2, batch_size=4, batch_deserialization_fn=lambda records: (records, records))
"""

TFDS = """
import sys
sys.path.append(sys.argv[2])
from optical_digits import prepare
from sampler import TFDatasetMultiShotMemorySampler

prepare(sys.argv[1], "array_record")
for in_memory in (True, False):
    TFDatasetMultiShotMemorySampler("optical_digits", 4, data_dir=sys.argv[1], in_memory=in_memory, seed=1)
"""

SCRIPTS = str(Path(__file__).resolve().parents[2] / "scripts")
PROGRAMS = [
    pytest.param(LOADS, ["loading: 100%.* 30/30 .* examples/s"], id="loads"),
    pytest.param(
        RECORDS,
        [
            "writing shards: 100%.* 30/30 .* examples/s",
            "writing the last shards: 100%.* 3/3 .* classes/s",
            "verifying: 100%.* 9/9 .* shards/s",
            "counting records: 100%.* 9/9 .* shards/s",
        ],
        id="records",
        marks=pytest.mark.needs("tensorflow"),
    ),
    pytest.param(
        TFDS,
        ["reading optical_digits: 100%.* 1797/1797 .* examples/s", "reading optical_digits: 100%.* labels/s"],
        id="tfds",
        marks=pytest.mark.needs("tensorflow_datasets", "sklearn"),
    ),
]


@pytest.mark.parametrize(("program", "bars"), PROGRAMS)
def test_in_a_terminal_bars_are_shown(program: str, bars: list[str], tmp_path: Path) -> None:
    text = shown(program, str(tmp_path), SCRIPTS, TQDM_DELAY="0")  # as if it had taken a second
    for bar in bars:
        assert len(re.findall(bar, text)) == 1, text


@pytest.mark.parametrize(("program", "bars"), PROGRAMS[:2])
def test_elsewhere_none_is(program: str, bars: list[str], tmp_path: Path) -> None:
    text = written(program, str(tmp_path), SCRIPTS, TQDM_DELAY="0")
    for bar in bars:
        assert bar.partition(":")[0] not in text


def test_what_is_quick_shows_none() -> None:
    assert shown(LOADS) == ""


def test_what_the_environment_says_holds() -> None:
    assert shown(LOADS, TQDM_DELAY="0", TQDM_DISABLE="1") == ""
    assert "loading" in written(LOADS, TQDM_DELAY="0", TQDM_DISABLE="")


def test_a_bar_ends_with_its_loop() -> None:
    with terminal() as file:
        bar = Bar(range(3), file=file, delay=0)
        for _ in bar:
            break
        assert bar.disable
