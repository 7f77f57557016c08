"""Writes TFRecord files (shards) of one class each, from which balanced batches can be read."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Sized
from typing import Any

import numpy as np

from workers.checks import check_choice, check_int

from .shards import COMPRESSIONS, INDEX

logger = logging.getLogger("sampler")


def write_class_shards(
    examples: Iterable[Any],
    labels: Iterable[Any],
    out_dir: str | os.PathLike[str],
    serialize_fn: Callable[[Any, Any], bytes],
    shards: int | None = None,
    compression: str | None = None,
    *,
    example_per_class: int = 2,
    remainder: str = "pad",
    examples_per_shard: int = 1000,
) -> dict[str, Any]:
    """Write examples to TFRecord files of one class each, in whole blocks of records.

    Args:
        examples, labels: arrays, lists or generators, in any order, read once. Labels are integers or strings.
        out_dir: the folder, which is created if needed; it must not contain shards yet.
        serialize_fn: ``(example, label) -> bytes`` of the record, such as a serialised ``tf.train.Example``.
        shards: the maximum number of files in total, at least one per class; ``labels`` must be an array or a list.
            None: as many as ``examples_per_shard`` gives.
        compression: None, ``"GZIP"`` or ``"ZLIB"``.
        example_per_class: the number of records in a block; each file holds whole blocks.
        remainder: what to do with the last examples of a class if they do not fill a block: ``"pad"`` the block by
            repeating examples of the class, or ``"drop"`` them, which is logged.
        examples_per_shard: the number of records in a file. At most one unfinished file per class is held in memory.

    Returns:
        The content of ``index.json``, ``{"shards": {name: {"records", "nbytes", "classes": {label: count}}}, ...}``.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.
        FileExistsError: ``out_dir`` has shards already.
    """
    import tensorflow as tf

    from workers.sequence.progress import Bar

    check_choice("compression", compression, COMPRESSIONS)
    check_choice("remainder", remainder, ("pad", "drop"))
    block = check_int("example_per_class", example_per_class, 1)
    per_shard = check_int("examples_per_shard", examples_per_shard, 1)
    folder = os.fspath(out_dir)
    tf.io.gfile.makedirs(folder)
    if tf.io.gfile.glob(tf.io.gfile.join(folder, "*.tfrec")):
        raise FileExistsError(f"out_dir {folder!r} has shards already; write to another folder, or remove them")
    sizes: dict[str, int] = {}  # {label: records in each of its files}, e.g. {"cat": 40}; used if ``shards`` is given
    if shards is not None:
        sizes = _sizes(labels, check_int("shards", shards, 1), block)
    writer = _Writer(folder, compression, block)
    buffers: dict[str, list[bytes]] = {}
    total = len(labels) if isinstance(labels, Sized) else None
    for example, label in Bar(zip(examples, labels, strict=True), total=total, desc="writing shards", unit=" examples"):
        name = _name(label)
        record = serialize_fn(example, label)
        if not isinstance(record, bytes):
            raise TypeError(f"serialize_fn must return bytes, not {type(record).__name__}")
        buffer = buffers.setdefault(name, [])
        buffer.append(record)
        if len(buffer) >= max(block, sizes.get(name, per_shard) // block * block):
            writer.write(name, buffer)
            buffers[name] = []
    for name, buffer in Bar(buffers.items(), desc="writing the last shards", unit=" classes"):
        writer.finish(name, buffer, remainder)
    return writer.close()


def _name(label: Any) -> str:
    if isinstance(label, bytes):
        return label.decode()
    if isinstance(label, (str, int, np.integer)) and not isinstance(label, bool):
        return str(label)
    array = np.asarray(label)
    if array.ndim == 0 and array.dtype.kind in "iuSU":
        return _name(array.item())
    raise TypeError(f"labels must be integers or strings, not {label!r} ({type(label).__name__})")


def _sizes(labels: Any, shards: int, block: int) -> dict[str, int]:
    """Return {label: records in each of its files}, e.g. {"cat": 40}, for at most ``shards`` files in total."""
    if not hasattr(labels, "__len__"):
        raise TypeError("with shards, labels must be an array or a list; for a generator, give examples_per_shard")
    names, counts = np.unique([_name(label) for label in labels], return_counts=True)
    if shards < len(names):
        raise ValueError(f"shards must be at least {len(names)}, the number of classes, not {shards}")
    blocks = -(-counts // block)
    files = np.ones(len(names), int)
    while files.sum() < min(shards, blocks.sum()):  # one more for the class with the largest files
        files[np.argmax(np.where(files < blocks, blocks / files, 0))] += 1
    return {str(name): int(-(-each // of) * block) for name, each, of in zip(names, blocks, files, strict=True)}


class _Writer:
    """The writer of the shards (files of records) and at last of ``index.json``, each first under a temporary name."""

    def __init__(self, folder: str, compression: str | None, block: int) -> None:
        self._folder = folder
        self._compression = compression
        self._block = block
        self._numbers: dict[str, int] = {}  # {label: number of its last file}, e.g. {"cat": 2}
        self._classes: list[str] = []
        self._last: dict[str, list[bytes]] = {}  # {label: the first block of its last file}, to pad with
        self._shards: dict[str, Any] = {}

    def write(self, label: str, records: list[bytes]) -> None:
        import tensorflow as tf

        number = self._numbers[label] = self._numbers.get(label, -1) + 1
        if number == 0:
            self._classes.append(label)
        name = f"class-{self._classes.index(label):05d}-{number:05d}.tfrec"
        path = tf.io.gfile.join(self._folder, name)
        with tf.io.TFRecordWriter(path + ".incomplete", self._compression or "") as file:
            for record in records:
                file.write(record)
        tf.io.gfile.rename(path + ".incomplete", path)
        self._last[label] = records[: self._block]
        nbytes = tf.io.gfile.stat(path).length
        self._shards[name] = {"records": len(records), "nbytes": nbytes, "classes": {label: len(records)}}

    def finish(self, label: str, records: list[bytes], remainder: str) -> None:
        """Write the last records of class ``label``. If they fill no block, add or drop some, as ``remainder`` says."""
        missing = -len(records) % self._block
        if missing and remainder == "pad":
            known = [*records, *self._last.get(label, [])]
            records = records + [known[at % len(known)] for at in range(missing)]
        elif missing:
            kept = len(records) // self._block * self._block
            logger.warning("%d examples of class %s are dropped: they do not fill a block", len(records) - kept, label)
            records = records[:kept]
        if records:
            self.write(label, records)

    def close(self) -> dict[str, Any]:
        import tensorflow as tf

        index = {
            "format": 1,
            "compression": self._compression,
            "example_per_class": self._block,
            "shards": dict(sorted(self._shards.items())),
        }
        path = tf.io.gfile.join(self._folder, INDEX)
        with tf.io.gfile.GFile(path + ".incomplete", "w") as file:
            file.write(json.dumps(index, indent=1))
        tf.io.gfile.rename(path + ".incomplete", path)
        return index
