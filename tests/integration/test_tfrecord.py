"""Balanced batches from TFRecord shards; and the shards: written, checked, broken."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from shards import parse, parse_all, record, write

from sampler import TFRecordDatasetSampler, TFRecordSequence, verify_shards, write_class_shards
from sampler.tfrecord.shards import find_shards

tf: Any = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module", autouse=True)
def _tensorflow_is_started() -> None:
    """So that its descriptors are there before the police look."""
    list(tf.data.Dataset.range(3).interleave(tf.data.Dataset.range, num_parallel_calls=2))
    gc.freeze()


def batches(folder: Path, **options: Any) -> list[Any]:
    options = {"deserialization_fn": None, "batch_deserialization_fn": parse_all, "num_repeat": 1, "seed": 1, **options}
    return [(x, y) for x, y in TFRecordDatasetSampler(folder, **options).as_numpy_iterator()]


def check(found: list[Any], size: int, batch_size: int) -> list[tuple[int, int]]:
    """Every batch is of whole blocks of different shards. Returns: (shard, number) of each block."""
    blocks = []
    for x, _ in found:
        assert x.shape == (batch_size, 2)
        of_batch = x.reshape(-1, size, 2)
        assert (of_batch[:, :, 0] == of_batch[:, :1, 0]).all()
        assert (of_batch[:, :, 1] == of_batch[:, :1, 1] + np.arange(size)).all()
        assert (of_batch[:, 0, 1] % size == 0).all()
        assert len(set(of_batch[:, 0, 0].tolist())) == batch_size // size
        blocks += [(int(shard), int(number) // size) for shard, number in of_batch[:, 0]]
    return blocks


@pytest.mark.parametrize("case", range(5))
def test_balanced_to_the_end(tmp_path: Path, case: int) -> None:
    """Shards of any lengths: no block twice in a pass, and no more left out than must be."""
    draw = random.Random(case)
    size, per_batch = draw.randint(1, 3), draw.randint(1, 5)
    lengths = [draw.choice([1, 2, 3, 7, 40]) for _ in range(per_batch + draw.randint(0, 6))]
    rows = draw.choice([None, per_batch, per_batch + 1, 20])
    folder = write(tmp_path / "s", lengths, size)
    found = batches(folder, example_per_class=size, batch_size=size * per_batch, shards_per_cycle=rows, num_repeat=2)
    blocks = check(found, size, size * per_batch)
    num_rows = min(len(lengths), rows or per_batch)
    best = max(t for t in range(1, sum(lengths) + 1) if sum(min(each, t) for each in lengths) >= t * num_rows)
    expected = best * num_rows // per_batch
    assert len(found) == 2 * expected
    for pass_ in (blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]):
        assert len(set(pass_)) == len(pass_)
        for shard, length in enumerate(lengths):
            assert sum(1 for each, _ in pass_ if each == shard) <= length


def test_all_is_read_where_it_can_be(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [8, 9, 7, 8, 8], 2)
    assert len(set(check(batches(folder, batch_size=8), 2, 8))) == 40


def test_different_classes(tmp_path: Path) -> None:
    """Where index.json tells the class of each shard: 4 classes of 3 shards, 4 blocks a batch."""
    folder = write(tmp_path / "s", [4] * 12, 2, classes=[at % 4 for at in range(12)])
    for _, y in batches(folder, batch_size=8, num_repeat=5):
        assert len(set(y.tolist())) == 4


def test_the_order(tmp_path: Path) -> None:
    """By the seed, anew in each pass; also the blocks of a shard."""
    folder = write(tmp_path / "s", [16] * 6, 2)

    def told(**options: Any) -> list[bytes]:
        return [x.tobytes() for x, _ in batches(folder, batch_size=8, num_repeat=2, **options)]

    one = told()
    assert told() == one
    assert told(seed=2) != one
    assert one[:24] != one[24:]
    of_first = [block for block in check(batches(folder, batch_size=8), 2, 8) if block[0] == 0]
    assert of_first != sorted(of_first)
    unshuffled = check(batches(folder, batch_size=8, shuffle_blocks=False), 2, 8)
    assert [block for block in unshuffled if block[0] == 1] == sorted(block for block in unshuffled if block[0] == 1)


@pytest.mark.parametrize("batch_size", [8, 260])
def test_one_by_one_or_all_at_once(tmp_path: Path, batch_size: int) -> None:
    folder = write(tmp_path / "s", [7] * 140, 2)
    together = batches(folder, batch_size=batch_size)
    single = batches(folder, batch_size=batch_size, deserialization_fn=parse, batch_deserialization_fn=None)
    assert len(together) == len(single) > 0
    for (x, y), (x_2, y_2) in zip(together, single, strict=True):
        assert (x == x_2).all()
        assert (y == y_2).all()


@pytest.mark.parametrize(("compression", "async_cycle"), [("GZIP", True), ("ZLIB", False)])
def test_compressed(tmp_path: Path, compression: str, async_cycle: bool) -> None:
    folder = write(tmp_path / "s", [3, 4, 5], 2, options=compression)
    assert len(check(batches(folder, batch_size=4, compression=compression, async_cycle=async_cycle), 2, 4)) == 12


def test_many_shards(tmp_path: Path) -> None:
    """Thousands of them, and a bounded number of open files."""
    folder = write(tmp_path / "s", [2] * 3000, 2)
    dataset = iter(TFRecordDatasetSampler(folder, batch_deserialization_fn=parse_all, seed=1))
    most = 0
    for _ in range(200):
        next(dataset)
        open_files = [file.path for file in psutil.Process().open_files()]
        most = max(most, sum(path.startswith(str(folder)) for path in open_files))
    assert most <= 2 * 16


def test_parts_for_several_machines(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [3] * 10, 2)
    shards = [{shard for shard, _ in check(batches(folder, batch_size=4, shard=(rank, 3)), 2, 4)} for rank in range(3)]
    assert [len(each) for each in shards] == [4, 3, 3]
    assert set.union(*shards) == set(range(10))


def test_service(tmp_path: Path) -> None:
    """A dispatcher and two workers: each block of each pass arrives once, in balanced batches."""
    folder = write(tmp_path / "s", [6] * 8, 2)
    dispatcher = tf.data.experimental.service.DispatchServer()
    address = dispatcher.target.split("://")[1]
    config = tf.data.experimental.service.WorkerConfig(dispatcher_address=address)
    workers = [tf.data.experimental.service.WorkerServer(config) for _ in range(2)]
    blocks = check(batches(folder, batch_size=8, num_repeat=4, service=dispatcher.target), 2, 8)
    assert sorted(blocks) == sorted(list(itertools.product(range(8), range(6))) * 4)
    del workers, dispatcher


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_corrupt_shard(tmp_path: Path, caplog: Any) -> None:
    """Stops the pass with its name and the place; or is left out, counted and logged."""
    folder = write(tmp_path / "s", [10] * 6, 2)
    bad = folder / "0002.tfrec"
    offset = sum(16 + len(record(2, number, 2)) for number in range(7))
    flip(bad, offset + 13)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=f"{bad} is cut short or corrupt at record 7, byte {offset}"
    ):
        batches(folder, batch_size=8)
    with caplog.at_level(logging.ERROR, "sampler"):
        blocks = check(batches(folder, batch_size=8, on_error="skip"), 2, 8)
    assert {shard for shard, _ in blocks} == {0, 1, 3, 4, 5}
    assert f"1 of 6 shards are cut short, corrupt or missing, and are left out: {bad}" in caplog.text
    (problem,) = verify_shards(folder, 2)
    assert (problem.path, problem.record, problem.offset) == (str(bad), 7, offset)


def test_a_shard_that_is_cut_short(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [10] * 6, 2)
    bad = folder / "0002.tfrec"
    bad.write_bytes(bad.read_bytes()[:-3])
    with pytest.raises(ValueError, match=f"{bad}' is cut short, or not a TFRecord file: record 19"):
        batches(folder, batch_size=8)
    (problem,) = verify_shards(folder, 2)
    assert (problem.path, problem.record) == (str(bad), 19)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def too_short(path: Path) -> None:
    with tf.io.TFRecordWriter(str(path)) as file:
        file.write(record(2, 0, 2))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


UNUSABLE: dict[Any, str] = {
    empty: "has no records, fewer than the 2 of a block",
    too_short: "has 1 records .*, fewer than the 2 of a block",
    fifo: "is a named pipe, a socket or a device, not a file",
    folder_instead: "is a folder, not a file",
    Path.unlink: "is in index.json, but does not exist",
}


@pytest.mark.parametrize("spoil", UNUSABLE, ids=lambda spoil: spoil.__name__)
@pytest.mark.parametrize("has_index", [True, False])
def test_a_shard_that_cannot_be_used(tmp_path: Path, caplog: Any, spoil: Any, has_index: bool) -> None:
    """Is named, when the sampler is made, before anything is read; or it is left out, and named in the log."""
    folder = write(tmp_path / "s", [10] * 6, 2, [*range(6)] if has_index else None)
    bad = folder / "0002.tfrec"
    spoil(bad)
    is_known = has_index or bad.exists()
    options: dict[str, Any] = {"batch_deserialization_fn": parse_all, "batch_size": 8, "seed": 1}
    if is_known:
        for make in (TFRecordDatasetSampler, TFRecordSequence):
            with pytest.raises(ValueError, match=f"{bad}' {UNUSABLE[spoil]}"):
                make(folder, **options)
        problems = verify_shards(folder, 2)
        assert [problem.path for problem in problems] == [str(bad)]
    caplog.clear()
    left = find_shards(folder, "*.tfrec", None, "skip", 2)
    assert [Path(shard.path).name for shard in left] == [f"000{at}.tfrec" for at in (0, 1, 3, 4, 5)]
    assert (f"1 of 6 shards are cut short, corrupt or missing, and are left out: {bad}" in caplog.text) is is_known


@pytest.mark.parametrize("shard_suffix", ["000[0-3].tfrec", "*[0-3].tfrec"])
def test_shards_that_the_pattern_leaves_out_are_not_missing(tmp_path: Path, shard_suffix: str) -> None:
    folder = write(tmp_path / "s", [10] * 6, 2, [*range(6)])
    (folder / "0004.tfrec").unlink()
    assert len(find_shards(folder, shard_suffix, None)) == 4


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b'{"shards": []}',
    b'{"shards": {"0000.tfrec": {}}}',
    b'{"shards": {"0000.tfrec": {"records": "6", "nbytes": 3, "classes": {}}}}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("content", DAMAGED)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_index_that_is_damaged(tmp_path: Path, content: bytes, on_error: str) -> None:
    folder = write(tmp_path / "s", [10] * 6, 2)
    index = folder / "index.json"
    index.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{index}' is damaged \(.*\): copy it again, or remove it"):
        TFRecordSequence(folder, batch_deserialization_fn=parse_all, batch_size=8, on_error=on_error)
    (problem,) = verify_shards(folder, 2)
    assert problem.path == str(index)
    assert "is damaged" in problem.what


def test_an_index_that_is_a_pipe(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [10] * 6, 2)
    os.mkfifo(folder / "index.json")
    with pytest.raises(ValueError, match=r"index\.json' is a named pipe"):
        TFRecordSequence(folder, batch_deserialization_fn=parse_all, batch_size=8)


def test_an_index_of_another_file(tmp_path: Path, caplog: Any) -> None:
    """Of a shard that was written anew, the records are counted, and that is said."""
    folder = write(tmp_path / "s", [10] * 6, 2, [*range(6)])
    whole = (folder / "0002.tfrec").read_bytes()
    (folder / "0002.tfrec").write_bytes(whole[: 10 * (16 + len(record(2, 0, 2)))])
    shards = find_shards(folder, "*.tfrec", None)
    assert [shard.num_records for shard in shards] == [20, 20, 10, 20, 20, 20]
    assert f"{shards[2].path} has {shards[2].nbytes} bytes, not {len(whole)} as index.json says" in caplog.text


def test_a_shard_that_vanishes(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [10] * 6, 2)
    dataset = TFRecordDatasetSampler(folder, batch_deserialization_fn=parse_all, batch_size=8)
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(tf.errors.NotFoundError, match=f"{folder}.*tfrec; No such file"):
        list(dataset)


def test_write_and_read_again(tmp_path: Path) -> None:
    """From a generator, in any order; whole blocks; an index."""
    labels = np.random.default_rng(0).permutation(np.repeat(["cat", "dog", "owl"], [25, 31, 8]))
    stream = (np.full(4, at, np.uint8) for at in range(64))
    index = write_class_shards(
        stream, iter(labels), tmp_path, lambda x, y: bytes(x) + y.encode(), example_per_class=4, examples_per_shard=10
    )
    assert not list(tmp_path.glob("*.incomplete"))
    assert json.loads((tmp_path / "index.json").read_text()) == index
    shards = find_shards(tmp_path, "*.tfrec", None)
    assert {shard.classes for shard in shards} == {("cat",), ("dog",), ("owl",)}
    assert {of: sum(s.num_records for s in shards if s.classes == (of,)) for of in ("cat", "dog", "owl")} == {
        "cat": 28, "dog": 32, "owl": 8,
    }  # fmt: skip
    written = [bytes(r) for s in shards for r in tf.data.TFRecordDataset(s.path).as_numpy_iterator()]
    assert {(r[0], r[4:].decode()) for r in written} == set(enumerate(labels.tolist()))
    assert verify_shards(tmp_path, 4, lambda r: (r, tf.strings.substr(r, 4, 3))) == []
    with pytest.raises(FileExistsError, match="has shards already"):
        write_class_shards([], [], tmp_path, bytes)


@pytest.mark.parametrize("remainder", ["pad", "drop"])
def test_the_remainder(tmp_path: Path, remainder: str, caplog: Any) -> None:
    index = write_class_shards(
        range(7), [3] * 7, tmp_path, lambda x, y: bytes([x]), example_per_class=4, remainder=remainder
    )
    assert [shard["records"] for shard in index["shards"].values()] == [8 if remainder == "pad" else 4]
    assert ("3 examples of class 3 are dropped" in caplog.text) is (remainder == "drop")


def test_as_many_shards_as_asked(tmp_path: Path) -> None:
    labels = [0] * 40 + [1] * 20 + [2] * 4
    index = write_class_shards(range(64), labels, tmp_path, lambda x, y: bytes([x]), shards=8)
    assert len(index["shards"]) == 8
    assert sum(shard["records"] for shard in index["shards"].values()) == 64


def test_what_verify_finds(tmp_path: Path) -> None:
    folder = write(tmp_path / "s", [3, 4, 5], 2)
    assert verify_shards(folder, 2, parse) == []
    found = [(Path(each.path).name, each.record, each.offset) for each in verify_shards(folder, 4, parse)]
    assert found == [("0000.tfrec", 6, 126), ("0002.tfrec", 10, 210)]
    with tf.io.TFRecordWriter(str(folder / "0001.tfrec")) as file:
        for number, label in enumerate([1, 1, 1, 2, 2, 2]):
            file.write(record(1, number, label))
    (problem,) = verify_shards(folder, 2, parse)
    assert str(problem) == f"{folder}/0001.tfrec: record 3, byte 63: is of class 2 in a block of class 1"
    assert len(verify_shards(folder, 2, parse, "GZIP")) == 3


WRONG: list[tuple[type[Exception], dict[str, Any], str]] = [
    (ValueError, {"shard_suffix": "*.rec"}, r"no file matches shard_suffix '\*.rec' in '.*/s', the shard_path"),
    (ValueError, {"batch_size": 7}, r"batch_size must be a multiple of example_per_class \(2\), not 7"),
    (ValueError, {"batch_size": 8}, "there must be at least 4 shards.*not 3"),
    (ValueError, {"compression": "LZ4"}, "compression must be one of"),
    (ValueError, {"batch_deserialization_fn": lambda r: r}, r"batch_deserialization_fn must return a pair \(x, y\)"),
    (ValueError, {"batch_deserialization_fn": None}, "must be given, not none"),
    (ValueError, {"deserialization_fn": parse}, "must be given, not both"),
    (TypeError, {"batch_deserialization_fn": 3}, "batch_deserialization_fn must be callable"),
    (ValueError, {"num_repeat": -2}, "num_repeat must be -1 or"),
    (ValueError, {"shards_per_cycle": 1}, "shards_per_cycle must be None or an integer >= 2"),
    (ValueError, {"shard": (3, 3)}, "rank of shard must be 0 to 2"),
    (TypeError, {"shard": 3}, "shard must be None or"),
    (ValueError, {"on_error": "ignore"}, "on_error must be one of"),
    (ValueError, {"seed": -1}, "seed must be"),
]


@pytest.mark.parametrize(("error", "options", "text"), WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, error: type[Exception], options: dict[str, Any], text: str) -> None:
    folder = write(tmp_path / "s", [1, 2, 3], 2)
    with pytest.raises(error, match=text):
        batches(folder, **{"batch_size": 4, **options})
