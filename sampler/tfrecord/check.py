"""Checks of TFRecord shards (files of records), which find their problems before a training does."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workers.checks import check_choice, check_int

from .shards import COMPRESSIONS, INDEX, check_is_file, find_paths, read_index


class Problem(NamedTuple):
    """A problem of a shard (a TFRecord file), and its place in the file."""

    path: str
    record: int  # the number of the record in the file, from 0
    offset: int  # the byte at which the record starts (in the uncompressed data, if the file is compressed)
    what: str

    def __str__(self) -> str:
        return f"{self.path}: record {self.record}, byte {self.offset}: {self.what}"


def verify_shards(
    path: str | os.PathLike[str],
    example_per_class: int,
    deserialization_fn: Callable[[Any], Any] | None = None,
    compression: str | None = None,
    *,
    shard_suffix: str = "*.tfrec",
) -> list[Problem]:
    """Return the problems of the TFRecord files in a folder; [] if there are none. Reads all of these files (shards).

    Checks that all checksums are right, that each file can be read to its end with ``compression``, that it consists of
    one or more whole blocks of ``example_per_class`` records, and that ``index.json``, if it exists, names existing
    files and the right numbers of records. With ``deserialization_fn``, also checks that each block is of one class.

    Args:
        path: the folder of the shards.
        example_per_class: the number of records in a block.
        deserialization_fn: ``record -> (x, y)``, in TensorFlow operations; y is the label. None: labels are not
            checked.
        compression: None, ``"GZIP"`` or ``"ZLIB"``.
        shard_suffix: the pattern of the names of shards.

    Returns:
        The first problem of each shard that has one, and of ``index.json``.

    Raises:
        ValueError, TypeError: an argument has the wrong type or is out of range, or no file matches.
    """
    from workers.sequence.progress import Bar

    check_choice("compression", compression, COMPRESSIONS)
    block = check_int("example_per_class", example_per_class, 1)
    folder = os.fspath(path)
    paths = find_paths(folder, shard_suffix)
    problems: list[Problem] = []
    known: dict[str, Any] = {}
    try:
        known = read_index(folder)
    except ValueError as error:
        problems.append(Problem(os.path.join(folder, INDEX), 0, 0, str(error)))
    shards = Bar(paths, desc="verifying", unit=" shards")
    checked = (_check(each, block, deserialization_fn, compression, known) for each in shards)
    problems += [problem for problem in checked if problem is not None]
    missing = sorted(set(known) - {os.path.basename(each) for each in paths})
    return [
        *problems,
        *(Problem(os.path.join(folder, each), 0, 0, "is in index.json, but does not exist") for each in missing),
    ]


def _check(
    path: str, block: int, deserialization_fn: Any, compression: str | None, known: dict[str, Any]
) -> Problem | None:
    import tensorflow as tf

    try:
        check_is_file(path)
    except ValueError as error:
        return Problem(path, 0, 0, str(error))
    records = tf.data.TFRecordDataset(path, compression or "").batch(1024 // block * block or block)

    def with_labels(some: Any) -> Any:
        lengths = tf.strings.length(some)
        if deserialization_fn is None:
            return lengths, tf.zeros_like(lengths)
        return lengths, tf.map_fn(
            lambda record: tf.as_string(deserialization_fn(record)[1]), some, fn_output_signature=tf.string
        )

    count, offset = 0, 0
    labels = records.map(with_labels, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    try:
        for some_lengths, some_labels in labels.as_numpy_iterator():
            starts = offset + np.concatenate(([0], np.cumsum(some_lengths + 16)))
            whole = len(some_labels) // block * block
            blocks = some_labels[:whole].reshape(-1, block)
            mixed = np.flatnonzero((blocks != blocks[:, :1]).any(1))
            if len(mixed):
                within = int(mixed[0]) * block + int(np.flatnonzero(blocks[mixed[0]] != blocks[mixed[0], 0])[0])
                what = f"is of class {_text(some_labels[within])} in a block of class {_text(blocks[mixed[0], 0])}"
                return Problem(path, count + within, int(starts[within]), what)
            count += len(some_lengths)
            offset = int(starts[-1])
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.OutOfRangeError) as error:
        return _where(path, compression, str(error.message))
    if count == 0:
        return Problem(path, 0, 0, "the file has no records")
    if count % block:
        what = f"the file ends within a block: it has {count} records, not a multiple of {block}"
        return Problem(path, count, offset, what)
    said = known.get(os.path.basename(path))
    if said is not None and said["records"] != count:
        return Problem(path, count, offset, f"the file has {count} records, not {said['records']} as index.json says")
    return None


def _where(path: str, compression: str | None, message: str) -> Problem:
    """Return the Problem of a file that TensorFlow, as ``message`` says, cannot read: its first unreadable record."""
    import tensorflow as tf

    lengths = tf.data.TFRecordDataset(path, compression or "").map(tf.strings.length).ignore_errors()
    good = [int(length) for length in lengths.as_numpy_iterator()]
    what = re.sub(r"\{\{.*?\}\} ?|\[Op:.*", "", message).strip()
    return Problem(path, len(good), sum(good) + 16 * len(good), f"cannot be read: {what}")


def _text(label: Any) -> str:
    return label.decode() if isinstance(label, bytes) else str(label)
