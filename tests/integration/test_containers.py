"""Containers of every kind through the engine: what arrives keeps its type, on any number of workers."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from containers import MAKE, ReadOnly, about, parts, same

from workers import Sequence, prefetch
from workers.batch.nodes import is_list, leaves

NAMES = list(MAKE)
SUPPORT = Path(__file__).resolve().parents[1] / "support" / "containers.py"


class Of(Sequence):
    """One batch, or sample, of each of ``names``."""

    def __init__(self, names: list[str], size: int = 20_000) -> None:
        super().__init__()
        self.names, self.size = names, size

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Any:
        return MAKE[self.names[index]](np.full(self.size, index), f"n{index}")


@pytest.mark.parametrize(
    ("nb_workers", "executor"), [(0, "process"), (2, "process"), (2, "thread"), ("auto", "process")]
)
def test_every_kind_arrives(nb_workers: Any, executor: Any) -> None:
    source = Of(NAMES)
    with prefetch(source, nb_workers, executor=executor) as batches:
        for index, batch in enumerate(batches):
            assert same(batch, source[index]), NAMES[index]


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_every_kind_with_tensors(nb_workers: int, caplog: Any) -> None:
    """Nothing is left out, so nothing is named."""
    source = Of(NAMES)
    for device in (None, "cpu"):
        with prefetch(source, nb_workers, output="torch") as batches:
            for index, batch in enumerate(batches if device is None else batches.to_device(device)):
                assert about(batch) == about(source[index])
                assert [type(leaf) for _, leaf in leaves(batch)].count(torch.Tensor) == 1, NAMES[index]
    assert not caplog.records


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_what_gets_no_tensors_is_named_once(nb_workers: int, caplog: Any) -> None:
    """By its type and its place; texts, arrays of texts and other values of no size are not."""
    beside = {
        "text": np.array(["a"]),
        "path": Path("a"),
        "number": np.float32(1),
        "enum": Color.RED,
        "kind": int,
        "objects": np.array([{}]),
    }
    with prefetch(list(range(4)), nb_workers, output="torch").map(
        lambda i: {"a": (i, ReadOnly(np.full(3, i), i)), "masked": np.ma.masked_array([i], [True]), **beside}
    ) as batches:
        for _ in range(2):
            for index, batch in enumerate(batches):
                assert type(batch["a"][1]) is ReadOnly
                assert batch["a"][1]["x"].tolist() == [index] * 3
                assert batch["masked"].mask.tolist() == [True]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, told
    assert "batch['a'][1] is a " in told[0]
    assert "ReadOnly, which is delivered as it is" in told[0]
    assert "batch['masked'] is a numpy.ma" in told[1]


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_samples_of_every_kind(nb_workers: int) -> None:
    """Batches of samples, and smaller batches that are cut from these."""
    names = [name for name in NAMES if not is_list(MAKE[name](0, 0))]
    source = Of([name for name in names for _ in range(4)], size=5)
    with prefetch(source, nb_workers, batch_size=4) as of_four, of_four.rebatch(2) as of_two:
        for batches, size in ((of_four, 4), (of_two, 2)):
            for at, batch in enumerate(batches):
                rows = range(at * size, at * size + size)
                expected = MAKE[names[rows[0] // 4]](np.repeat(rows, 5).reshape(-1, 5), [f"n{row}" for row in rows])
                assert about(batch)[:4] == about(expected)[:4]
                assert repr(parts(batch)) == repr(parts(expected))


KEYS: list[Any] = [1, True, 1.0, np.int64(1), 0, False, 0.0, -0.0, "a", np.str_("a"), (1, "a"), (True, "a")]


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_keys_that_are_equal_stay_as_they_are(nb_workers: int) -> None:
    """Whichever kind has come before: in batches and samples, stacked, cut, and with tensors."""
    wanted = [repr(key) for key in KEYS]
    samples = [{key: np.zeros(3)} for key in KEYS for _ in range(2)]
    with prefetch(samples, nb_workers) as batches:
        assert [repr(*batch) for batch in batches] == [each for each in wanted for _ in range(2)]
    with prefetch(samples, nb_workers, batch_size=2, output="torch") as of_two, of_two.rebatch(1) as of_one:
        assert [repr(*batch) for batch in of_two] == wanted
        assert [repr(*batch) for batch in of_one] == [each for each in wanted for _ in range(2)]
        assert [repr(*batch) for batch in of_two.to_device("cpu")] == wanted


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_masks_and_large_numbers_of_samples(nb_workers: int) -> None:
    samples = [{"m": np.ma.masked_array([at, 1], [at == 1, False]), "id": 2**63 if at == 1 else at} for at in range(4)]
    with prefetch(samples, nb_workers, batch_size=2) as batches:
        first, second = batches
        assert first["m"].mask.tolist() == [[False, False], [True, False]]
        assert (first["id"].dtype, first["id"].tolist()) == (np.uint64, [0, 2**63])
        assert second["id"].dtype == np.int64
    with (
        prefetch([{"id": -1}, {"id": 2**63}], nb_workers, batch_size=2) as batches,
        pytest.raises(TypeError, match=r"samples\['id'\] are of int64 and uint64"),
    ):
        next(iter(batches))


class Color(enum.Enum):
    RED = 1


class Kept(Sequence):
    """Batches whose arrays, objects and bytes it keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.data = [
            {"objects": np.array([np.zeros(2), [1]], object), "bytes": bytearray(b"ab"), "masked": np.ma.zeros(3)}
            for _ in range(20)
        ]

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


@pytest.mark.parametrize(
    ("nb_workers", "executor", "is_mapped"),
    [
        (0, "process", False),
        (0, "process", True),
        (2, "process", False),
        (2, "thread", True),
        ("auto", "process", True),
        ("auto", "thread", False),
    ],
)
def test_the_data_set_is_not_written_into(nb_workers: Any, executor: Any, is_mapped: bool) -> None:
    source: Any = Kept()
    with prefetch(source, nb_workers, executor=executor) as front:
        batches = front.map(lambda batch: batch, nb_workers) if is_mapped else front
        for _ in range(2):
            for batch in batches:
                assert batch["objects"][0].tolist() == [0, 0]
                assert (batch["objects"][1], bytes(batch["bytes"]), batch["masked"].tolist()) == ([1], b"ab", [0, 0, 0])
                batch["objects"][0][:] = 9
                batch["objects"][1].append(2)
                batch["bytes"][:] = b"zz"
                batch["masked"][:] = np.ma.masked
    assert all(bytes(item["bytes"]) == b"ab" and item["objects"][1] == [1] for item in source.data)


@pytest.mark.parametrize("nb_workers", [1, "auto"])
def test_kinds_of_the_users_script(nb_workers: Any, tmp_path: Path) -> None:
    """Their classes, also those of slots, go to the workers by value; what comes back is of the script's own."""
    script = tmp_path / "script.py"
    script.write_text(
        SUPPORT.read_text()
        + f"""

from workers import prefetch

def job(index):
    return MAKE[list(MAKE)[index % len(MAKE)]](np.full(20_000, index), f"n{{index}}")

if __name__ == "__main__":
    with prefetch(list(range(2 * len(MAKE))), 0).map(job, {nb_workers!r}, as_items=False) as batches:
        for index, batch in enumerate(batches):
            assert same(batch, job(index)), (index, batch)
    with prefetch(list(range(4)), 0).map(lambda i: Slotted(i, str(i)), {nb_workers!r}).batch(2) as batches:
        assert [(type(batch) is Slotted, batch.x.tolist(), batch.y) for batch in batches] == [
            (True, [0, 1], ["0", "1"]), (True, [2, 3], ["2", "3"])
        ]
    print("done")
"""
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
