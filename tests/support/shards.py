"""Small TFRecord shards for tests: each record tells its shard, its number and its class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

tf: Any = pytest.importorskip("tensorflow")


def record(shard: int, number: int, label: int) -> bytes:
    return f"{shard} {number} {label}".encode()


def parse(text: Any) -> Any:
    parts = tf.strings.to_number(tf.strings.split(text, " "), tf.int64)
    return parts[:2], parts[2]


def parse_all(texts: Any) -> Any:
    parts = tf.strings.to_number(tf.strings.split(texts, " "), tf.int64).to_tensor(shape=[None, 3])
    return parts[:, :2], parts[:, 2]


def write(folder: Path, blocks: list[int], size: int, classes: list[int] | None = None, options: str = "") -> Path:
    """A shard of ``blocks[i]`` blocks each, all of class ``classes[i]``."""
    folder.mkdir(exist_ok=True)
    index: dict[str, Any] = {}
    for shard, count in enumerate(blocks):
        label = shard if classes is None else classes[shard]
        path = folder / f"{shard:04}.tfrec"
        with tf.io.TFRecordWriter(str(path), options) as file:
            for number in range(count * size):
                file.write(record(shard, number, label))
        index[path.name] = {
            "records": count * size,
            "nbytes": path.stat().st_size,
            "classes": {str(label): count * size},
        }
    if classes is not None:
        (folder / "index.json").write_text(json.dumps({"shards": index}))
    return folder
