"""Balanced batches from TFRecord shards, by tf.data operations alone.

A batch is made of *blocks*: ``example_per_class`` consecutive records of one class, each block from another shard.
That a batch has none twice is seen to before anything is read: the shards are laid, in the random order of the pass, on
a line that is cut into ``shards_per_cycle`` rows of equal length T. Batches are read across the rows::

    row 0    a a a a a b b        a shard of at most T blocks that goes on in the next row (b, c) begins there in
    row 1    b b c c c c c        columns which it has not in the row before: no column has a shard twice
    row 2    c d d d d d d

Shards of one class lie side by side on the line, so the same is true of classes, unless one has more than T blocks. Of
a shard that is longer than T, T blocks are read, beginning elsewhere in each pass. What is left over at the end of the
line are fewer blocks than there are rows, others each time.

Source: McNaughton (1959), "Scheduling with deadlines and loss functions", for the rule of the line; TensorFlow
Similarity API, ``TFSimilarity.samplers.TFRecordDatasetSampler``, for the arguments.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from workers import seeding
from workers.errors import check_choice, check_int

from .shards import Shard, find_shards

logger = logging.getLogger("sampler")

_READ_NBYTES = 16 << 20  # of all rows together, at once: within these, blocks are shuffled
_MAX_READ = 256  # blocks of a row at once
_BUFFER_NBYTES = 128 << 10  # of each open file
_MAX_UNROLLED = 128  # records


def TFRecordDatasetSampler(  # its name in TensorFlow Similarity
    shard_path: str | os.PathLike[str],
    deserialization_fn: Callable[[Any], Any] | None = None,
    example_per_class: int = 2,
    batch_size: int = 32,
    shards_per_cycle: int | None = None,
    compression: str | None = None,
    parallelism: int | None = None,
    async_cycle: bool = False,
    prefetch_size: int | None = None,
    shard_suffix: str = "*.tfrec",
    num_repeat: int = -1,
    *,
    batch_deserialization_fn: Callable[[Any], Any] | None = None,
    seed: int | None = None,
    shuffle_blocks: bool = True,
    on_error: str = "raise",
    service: str | None = None,
    shard: tuple[int, int] | None = None,
) -> Any:
    """A ``tf.data.Dataset`` of balanced batches from a folder of shards.

    Every batch is ``batch_size // example_per_class`` blocks, each of ``example_per_class`` consecutive records, from
    as many shards; of as many classes, where the shards are of one class each and ``index.json`` is there to tell.

    Args:
        shard_path: folder of the shards, whose blocks :func:`sampler.verify_shards` accepts.
        deserialization_fn: ``record -> (x, y)``, of one record (a scalar string tensor), in TensorFlow operations.
        example_per_class: records in a block.
        batch_size: records in a batch, a multiple of ``example_per_class``.
        shards_per_cycle: files that are open at a time, at least the blocks in a batch; None: as many as these.
        compression: of the files: None, ``"GZIP"`` or ``"ZLIB"``.
        parallelism: how many batches are deserialised at a time; None: ``tf.data.AUTOTUNE``.
        async_cycle: read the open files in parallel: for remote ones.
        prefetch_size: batches that are ready ahead; None: 10.
        shard_suffix: pattern of the names of shards.
        num_repeat: passes over the data; -1: endless.
        batch_deserialization_fn: ``records -> (x, y)``, of a whole batch (a vector of strings), such as by
            ``tf.io.parse_example``; in place of ``deserialization_fn``, and faster.
        seed: what the order of shards and blocks depends on, another one in each pass; None: drawn once, and logged.
        shuffle_blocks: shuffle the blocks of a shard too (those that are read at once: 16 MB), not only the order of
            the shards.
        on_error: ``"raise"`` at a shard that is cut short or corrupt, with its name and where; ``"skip"``: all shards
            are read once before, and such are left out, counted and logged.
        service: address of a tf.data service, such as ``"grpc://localhost:5000"``, whose workers do the work.
        shard: (rank, world): use every ``world``-th shard only, beginning with number ``rank``.

    Returns:
        Its elements are what the function returns, stacked: ``(x, y)`` of ``batch_size`` records each.

    Raises:
        ValueError, TypeError: an argument is not of its kind or out of its range, before anything is read.
    """
    import tensorflow as tf

    example_per_class = check_int("example_per_class", example_per_class, 1)
    batch_size = check_int("batch_size", batch_size, 1)
    if batch_size % example_per_class:
        raise ValueError(f"batch_size must be a multiple of example_per_class ({example_per_class}), not {batch_size}")
    num_repeat = check_int("num_repeat", num_repeat, -1, "-1 or an integer >= 1")
    check_choice("on_error", on_error, ("raise", "skip"))
    prefetch_size = 10 if prefetch_size is None else check_int("prefetch_size", prefetch_size, 0)
    if parallelism is None:
        parallelism = tf.data.AUTOTUNE
    deserialise = _deserialiser(deserialization_fn, batch_deserialization_fn, batch_size)
    shards = find_shards(shard_path, shard_suffix, compression)
    if shard is not None:
        shards = _part(shards, shard)
    if on_error == "skip":
        shards = _readable(shards, compression)
    checked = seeding.check_seed(seed)
    if checked is None:
        checked = seeding.draw_seed()
        logger.info("TFRecordDatasetSampler draws from seed %d", checked)
    plan = Plan(shards, example_per_class, batch_size // example_per_class, shards_per_cycle)
    calls = plan.num_rows if async_cycle else None
    passes = tf.data.Dataset.range(num_repeat if num_repeat > 0 else np.iinfo(np.int64).max)
    blocks = passes.flat_map(lambda number: _pass(plan, number, checked, compression, shuffle_blocks, calls))
    dataset = deserialise(blocks, parallelism)
    if service is not None:
        # A pass is what is given to a worker: so its batches stay balanced and every block comes once.
        dynamic = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        dataset = dataset.apply(tf.data.experimental.service.distribute(dynamic, service))
    elif num_repeat > 0:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(num_repeat * plan.num_batches))
    else:
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return dataset.prefetch(prefetch_size) if prefetch_size else dataset


class Plan:
    """How the blocks of some shards are laid on rows: the same in each pass but for the order of the shards.

    Attributes:
        num_rows: files that are open at a time.
        length: T, the blocks in a row.
        num_batches: whole batches in a pass.
    """

    def __init__(
        self, shards: list[Shard], example_per_class: int, blocks_per_batch: int, shards_per_cycle: int | None
    ) -> None:
        shards = [shard for shard in shards if shard.num_records >= example_per_class]
        if len(shards) < blocks_per_batch:
            raise ValueError(
                f"there must be at least {blocks_per_batch} shards, for as many classes are in a batch "
                f"(batch_size / example_per_class), not {len(shards)}"
            )
        if shards_per_cycle is None:
            shards_per_cycle = blocks_per_batch
        self.num_rows = check_int(
            "shards_per_cycle", shards_per_cycle, blocks_per_batch, f"None or an integer >= {blocks_per_batch}"
        )
        self.num_rows = min(self.num_rows, len(shards))
        self.example_per_class = example_per_class
        self.blocks_per_batch = blocks_per_batch
        self.paths = [shard.path for shard in shards]
        self.blocks = np.array([shard.num_records // example_per_class for shard in shards])
        self.groups = _groups(shards)
        self.length = self._length()
        self.taken = np.minimum(self.blocks, self.length)
        self.num_batches = self.length * self.num_rows // blocks_per_batch
        record_nbytes = sum(shard.nbytes for shard in shards) / max(1, sum(shard.num_records for shard in shards))
        self.block_nbytes = max(1.0, record_nbytes * example_per_class)

    def _length(self) -> int:
        """The greatest T for which there are T blocks for each row, none of a shard more than T."""
        least, most = 1, int(self.blocks.sum()) // self.num_rows
        while least < most:
            middle = (least + most + 1) // 2
            if int(np.minimum(self.blocks, middle).sum()) >= middle * self.num_rows:
                least = middle
            else:
                most = middle - 1
        return least

    def at_once(self) -> int:
        """How many blocks of each row to read at once."""
        return int(max(1, min(_MAX_READ, self.length, _READ_NBYTES / (self.block_nbytes * self.num_rows))))


def _groups(shards: list[Shard]) -> Any:
    """A number for each shard: the same for those of the same single class."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(s.classes if len(s.classes) == 1 else s.path, len(numbers)) for s in shards])


def _pass(plan: Plan, number: Any, seed: int, compression: str | None, shuffle: bool, calls: int | None) -> Any:
    """The records of the batches of one pass: vectors of batch_size strings."""
    import tensorflow as tf

    size, num_rows = plan.example_per_class, plan.num_rows
    paths, firsts, counts, rows = _pieces(plan, number, seed)
    bounds = tf.searchsorted(rows, tf.range(num_rows + 1, dtype=tf.int64))
    ends = tf.cumsum(counts)  # on the line
    at_once = plan.at_once()

    def piece(at: Any) -> Any:
        path, count = paths[at], counts[at]
        records = tf.data.TFRecordDataset(path, compression or "", buffer_size=_BUFFER_NBYTES)
        broken = tf.data.Dataset.from_tensors(path).map(lambda path: _broken(path, compression, size))
        blocks = records.batch(size, drop_remainder=True).ignore_errors()
        return blocks.skip(firsts[at]).concatenate(broken).take(count)

    def row(at: Any) -> Any:
        pieces = tf.data.Dataset.range(tf.cast(bounds[at], tf.int64), tf.cast(bounds[at + 1], tf.int64))
        return pieces.flat_map(piece).batch(at_once)

    def across(which: Any, blocks: Any) -> Any:
        # (row, column, record) -> one column after the other, each of num_rows blocks.
        columns = tf.range(tf.shape(blocks)[1])[None, :] + tf.zeros([num_rows, 1], tf.int32)
        if shuffle:  # among themselves those of the same piece, whose columns no other row has its shard in
            begin = tf.range(num_rows, dtype=tf.int64)[:, None] * plan.length + which * at_once
            on_line = tf.cast(columns, tf.int64) + begin
            of_piece = tf.reshape(tf.searchsorted(ends, tf.reshape(on_line, [-1]), side="right"), tf.shape(columns))
            drawn = tf.stack([_mixed(seed, number, which), 4])
            keys = tf.random.stateless_uniform(tf.shape(columns), seed=drawn, dtype=tf.float64)
            columns = tf.argsort(tf.cast(of_piece, tf.float64) + keys, axis=1)
        how_many = tf.shape(blocks)[1]
        order = tf.transpose(tf.range(num_rows)[:, None] * how_many + columns)
        return tf.gather(tf.reshape(blocks, [-1, size]), order)  # half the time of gather_nd

    dataset = tf.data.Dataset.range(num_rows).interleave(
        row, cycle_length=num_rows, block_length=1, num_parallel_calls=calls
    )
    dataset = dataset.batch(num_rows, drop_remainder=True).prefetch(1).enumerate().map(across).prefetch(1).unbatch()
    if num_rows != plan.blocks_per_batch:
        dataset = dataset.unbatch().batch(plan.blocks_per_batch, drop_remainder=True)
    return dataset.map(lambda blocks: tf.reshape(blocks, [plan.blocks_per_batch * size]))


def _pieces(plan: Plan, number: Any, seed: int) -> tuple[Any, Any, Any, Any]:
    """Of one pass: (path, first block, number of blocks, row) of each piece of a shard, in the order of the line."""
    import tensorflow as tf

    blocks, taken = tf.constant(plan.blocks, tf.int64), tf.constant(plan.taken, tf.int64)
    groups = tf.constant(plan.groups, tf.int32)

    def uniform(count: int, of: int) -> Any:
        return tf.random.stateless_uniform(
            [count], seed=tf.stack([_mixed(seed, number, of), tf.constant(of, tf.int64)])
        )

    order = tf.argsort(uniform(len(plan.paths), 1))
    of_groups = tf.gather(uniform(int(plan.groups.max()) + 1, 2), groups)
    order = tf.gather(order, tf.argsort(tf.gather(of_groups, order), stable=True))
    spare = tf.cast(blocks - taken + 1, tf.float32)
    begin = tf.cast(tf.floor(uniform(len(plan.paths), 3) * spare), tf.int64)
    begin = tf.gather(tf.minimum(begin, blocks - taken), order)
    taken = tf.gather(taken, order)
    start = tf.cumsum(taken, exclusive=True)
    row = start // plan.length
    here = tf.minimum(taken, (row + 1) * plan.length - start)

    def both(one: Any, other: Any) -> Any:
        return tf.reshape(tf.stack([one, other], 1), [-1])

    counts, rows = both(here, taken - here), both(row, row + 1)
    is_there = (counts > 0) & (rows < plan.num_rows)
    columns = both(order, order), both(begin, begin + here), counts, rows
    at, first, counts, rows = (tf.boolean_mask(column, is_there) for column in columns)
    return tf.gather(tf.constant(plan.paths), at), first, counts, rows


def _mixed(seed: int, number: Any, at: Any) -> Any:
    """A seed for each (seed, pass, position): the finaliser of splitmix64 over all three."""
    import tensorflow as tf

    def folded(value: Any, by: int) -> Any:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(by, tf.uint64)))

    def mix(value: Any) -> Any:
        value = tf.bitcast(value, tf.uint64)
        for by, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = folded(value, by) * tf.constant(factor, tf.uint64)
        return tf.bitcast(folded(value, 31), tf.int64)

    return mix(mix(tf.constant(seed, tf.int64) + mix(tf.cast(number, tf.int64))) + tf.cast(at, tf.int64))


def _broken(path: Any, compression: str | None, size: int) -> Any:
    """Fails, with where the file cannot be read any more. What is computed when blocks are missing."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset(path, compression or "").ignore_errors()
    count, offset = records.reduce(
        (tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
        lambda state, record: (state[0] + 1, state[1] + 16 + tf.cast(tf.strings.length(record), tf.int64)),
    )
    where = ["shard ", path, " is cut short or corrupt at record ", tf.strings.as_string(count)]
    where += [", byte " if not compression else ", byte (of what is compressed) ", tf.strings.as_string(offset)]
    with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [tf.strings.join(where)])]):
        return tf.fill([size], tf.identity(path))


def _deserialiser(deserialization_fn: Any, batch_deserialization_fn: Any, batch_size: int) -> Callable[[Any, int], Any]:
    """What makes batches of vectors of records."""
    import tensorflow as tf

    functions = {"deserialization_fn": deserialization_fn, "batch_deserialization_fn": batch_deserialization_fn}
    given = {name: function for name, function in functions.items() if function is not None}
    if len(given) != 1:
        raise ValueError(f"one of {' and '.join(functions)} must be given, not {'both' if given else 'none'}")
    ((name, function),) = given.items()
    if not callable(function):
        raise TypeError(f"{name} must be callable, not {function!r:.200}")
    is_batch = name == "batch_deserialization_fn"
    like = tf.data.Dataset.from_tensors(tf.fill([batch_size], "") if is_batch else tf.constant(""))
    spec = like.map(function).element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"{name} must return a pair (x, y), not {spec!r:.200}")
    if is_batch:
        return lambda records, parallelism: records.map(function, num_parallel_calls=parallelism, deterministic=True)

    def unrolled(records: Any) -> Any:
        each = [function(record) for record in tf.unstack(records)]
        return tf.nest.map_structure(lambda *parts: tf.stack(parts), *each)

    def by_record(records: Any, parallelism: int) -> Any:
        # Operations on single records within one function: a third of the time of as many elements of a data set.
        at_once = max(size for size in range(1, _MAX_UNROLLED + 1) if batch_size % size == 0)
        if at_once != batch_size:
            records = records.rebatch(at_once)
        records = records.map(unrolled, num_parallel_calls=parallelism, deterministic=True)
        return records if at_once == batch_size else records.rebatch(batch_size)

    return by_record


def _part(shards: list[Shard], shard: tuple[int, int]) -> list[Shard]:
    if not isinstance(shard, (tuple, list)) or len(shard) != 2:
        raise TypeError(f"shard must be None or (rank, world), not {shard!r}")
    world = check_int("world of shard", shard[1], 1)
    rank = check_int("rank of shard", shard[0], 0)
    if rank >= world:
        raise ValueError(f"rank of shard must be 0 to {world - 1}, not {rank}")
    return shards[rank::world]


def _readable(shards: list[Shard], compression: str | None) -> list[Shard]:
    """Those that can be read to their ends; what cannot is counted and logged."""
    import tensorflow as tf

    numbers = tf.data.Dataset.range(len(shards))
    paths = tf.constant([shard.path for shard in shards])

    def count(number: Any) -> Any:
        records = tf.data.TFRecordDataset(paths[number], compression or "").ignore_errors()
        return records.reduce(tf.constant(0, tf.int64), lambda total, _: total + 1)

    counts = list(numbers.map(count, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).as_numpy_iterator())
    bad = [shard for shard, found in zip(shards, counts, strict=True) if found != shard.num_records]
    if bad:
        logger.error(
            "%d of %d shards are left out, for they are cut short or corrupt: %s",
            len(bad),
            len(shards),
            ", ".join(shard.path for shard in bad),
        )
    return [shard for shard in shards if shard not in bad]
