"""The speed of TFRecordDatasetSampler: 40 shards of 5,000 records of 28 x 28 bytes, batch 128, 4 records a block.

It is compared with the same pipeline by hand, as in TensorFlow Similarity (interleave, map record by record, repeat,
batch, prefetch), and with the interleaved read alone.

With --limits instead: 5,000 shards of 20 records with default arguments, and the memory that writing 1 GB takes.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import command, core
from benchmarks.core import Numbers, Round, Settings, Target, Way

NUM_SHARDS, RECORDS, BATCH, BLOCK = 40, 5000, 128, 4


def _path(folder: str, shard: int) -> str:
    return os.path.join(folder, f"{shard:02}.tfrec")


def write(folder: str) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for shard in range(NUM_SHARDS):
        with tf.io.TFRecordWriter(_path(folder, shard)) as file:
            for _ in range(RECORDS):
                image = tf.train.BytesList(value=[rng.integers(0, 255, 784, np.uint8).tobytes()])
                values = {
                    "image": tf.train.Feature(bytes_list=image),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[shard])),
                }
                file.write(tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString())


def dataset(way: str, folder: str) -> Any:
    """Return the batches as read by ``way``."""
    import tensorflow as tf

    from sampler import TFRecordDatasetSampler, TFRecordSequence

    spec = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def one(record: Any) -> Any:
        example = tf.io.parse_single_example(record, spec)
        return tf.reshape(tf.io.decode_raw(example["image"], tf.uint8), (28, 28)), example["label"]

    def many(records: Any) -> Any:
        examples = tf.io.parse_example(records, spec)
        return tf.reshape(tf.io.decode_raw(examples["image"], tf.uint8), (-1, 28, 28)), examples["label"]

    auto = tf.data.AUTOTUNE
    read = tf.data.Dataset.from_tensor_slices([_path(folder, shard) for shard in range(NUM_SHARDS)]).shuffle(NUM_SHARDS)
    read = read.interleave(tf.data.TFRecordDataset, cycle_length=NUM_SHARDS, block_length=BLOCK)
    options: dict[str, Any] = {"example_per_class": BLOCK, "batch_size": BATCH, "seed": 1}
    make: dict[str, Callable[[], Any]] = {
        "by_hand": lambda: read.map(one, num_parallel_calls=auto).repeat().batch(BATCH).prefetch(10),
        "read": lambda: read.repeat().batch(BATCH).prefetch(10),
        "records": lambda: TFRecordDatasetSampler(folder, one, **options),
        "batches": lambda: TFRecordDatasetSampler(folder, batch_deserialization_fn=many, **options),
        "sequence": lambda: TFRecordSequence(folder, batch_deserialization_fn=many, **options),
    }
    return make[way]()


def in_a_python_loop(dataset: Any, seconds: float) -> float:
    """Return the records a second."""
    batches = iter(dataset)
    warm = time.perf_counter() + 0.5
    while time.perf_counter() < warm:
        next(batches)
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        next(batches)
        count += BATCH
    return count / (time.perf_counter() - start)


def in_a_tf_function(dataset: Any, seconds: float) -> float:
    """Return the records a second if they are read as in model.fit."""
    import tensorflow as tf

    @tf.function  # type: ignore[untyped-decorator]
    def read(batches: Any, count: Any) -> Any:
        total = tf.constant(0, tf.int64)
        for _ in tf.range(count):
            total += tf.shape(tf.nest.flatten(next(batches))[-1], tf.int64)[0]
        return total

    batches, some = iter(dataset), tf.constant(200)
    warm = time.perf_counter() + 0.5
    while time.perf_counter() < warm:
        read(batches, some)
    count, start = 0, time.perf_counter()
    while time.perf_counter() < start + seconds:
        count += int(read(batches, some))
    return count / (time.perf_counter() - start)


def limits() -> None:
    import resource

    import psutil
    import tensorflow as tf

    from sampler import TFRecordDatasetSampler, write_class_shards

    classes, per_shard, record = 10, 100, np.random.default_rng(0).bytes(100_000)
    labels = (number % classes for number in range(10_000))
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        write_class_shards(
            range(10_000), labels, folder, lambda *_: bytes(bytearray(record)), examples_per_shard=per_shard
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    print(
        f"writing 1,000 MB in 10 classes: {peak:.0f} MB; one shard of each class is {classes * per_shard / 10:.0f} MB"
    )
    with tempfile.TemporaryDirectory() as folder:
        for shard in range(5000):
            with tf.io.TFRecordWriter(os.path.join(folder, f"{shard:04}.tfrec")) as file:
                for number in range(20):
                    file.write(f"{shard} {number}")

        def parse(text: Any) -> Any:
            values = tf.strings.to_number(tf.strings.split(text, " "), tf.int64)
            return values[1], values[0]

        start = time.perf_counter()
        dataset = TFRecordDatasetSampler(folder, parse)
        batches = iter(dataset)
        next(batches)
        first, most, count = time.perf_counter() - start, 0, 0
        for _ in range(2 * 3125 - 1):
            next(batches)
            count += 1
            if count % 50 == 0:
                files = [file.path for file in psutil.Process().open_files()]
                most = max(most, sum(path.startswith(folder) for path in files))
        rate = count * 32 / (time.perf_counter() - start - first)
    print(f"5,000 shards of 20 records: the first batch after {first:.1f} s, {rate:,.0f} records/s, {most} files open")


def measure(way: str, settings: Settings) -> Numbers:
    batches = dataset(way, settings.given["folder"])
    if way == "sequence":  # numpy arrays
        return {
            "python_loop": in_a_python_loop(itertools.chain.from_iterable(itertools.repeat(batches)), settings.seconds)
        }
    return {
        "python_loop": in_a_python_loop(batches, settings.seconds),
        "tf_function": in_a_tf_function(batches, settings.seconds),
    }


LABELS = {
    "by_hand": "by hand",
    "read": "the read alone",
    "records": "deserialization_fn",
    "batches": "batch_deserialization_fn",
    "sequence": "TFRecordSequence",
}
NAMES = {"python_loop": "Python loop, records/s", "tf_function": "tf.function, records/s"}
JOBS = {
    "tfrecords": core.Job(
        f"{NUM_SHARDS} shards of {RECORDS:,} records",
        {key: Way(label, functools.partial(measure, key), ("tensorflow",)) for key, label in LABELS.items()},
    )
}


def _ratio(way: str, of: str, name: str) -> Callable[[Round], float]:
    return lambda r: r("tfrecords", way, name) / r("tfrecords", of, name)


TARGETS = tuple(
    Target(f"{NAMES[name].split(',')[0]}: {LABELS[way]}, of {LABELS[of]}", _ratio(way, of, name), ">=", bound)
    for name, way, of, bound in [
        *[(name, "records", "by_hand", 3) for name in NAMES],
        *[(name, "batches", "by_hand", 9) for name in NAMES],
        *[(name, "batches", "read", 0.9) for name in NAMES],
        ("python_loop", "sequence", "read", 0.9),
    ]
)
SUITE = core.Suite(__file__, JOBS, NAMES, TARGETS, prepare=write)

if __name__ == "__main__":
    parser = command.parser_of(SUITE, __doc__, seconds=3.0, deadline_s=120.0)
    parser.add_argument("--limits", action="store_true")
    if parser.parse_args().limits:
        limits()
    else:
        command.main(SUITE, parser)
