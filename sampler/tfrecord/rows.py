"""The layout of shards (TFRecord files) in rows of blocks (records of one class), in which no batch has a shard twice.

The shards form a line, in the random order of the pass (one reading of all of them). The line is cut into ``num_rows``
rows of equal length T, and batches are read across the rows::

    row 0    a a a a a b b        a shard of at most T blocks that continues in the next row (b, c) has other
    row 1    b b c c c c c        columns there than in the row before, so no column has a shard twice
    row 2    c d d d d d d

Shards of one class are neighbours on the line, so the same is true of classes, unless one has more than T blocks. Of a
shard with more than T blocks, T are read, from a different start in each pass. The blocks left over at the end of the
line are fewer than the rows, and different in each pass.

Source: McNaughton (1959), "Scheduling with deadlines and loss functions", for the rule of the line.
"""

from __future__ import annotations

import functools
import hashlib
import os
from typing import Any, NamedTuple

import numpy as np

from workers.checks import check_int

from .shards import Shard

_READ_NBYTES = 8 << 20  # read at once, of all rows together; blocks are shuffled within these
_MAX_READ = 256  # blocks of a row, read at once


class Rows:
    """The layout of the blocks of some shards in rows. The number and length of the rows are the same in each pass.

    A shard is a TFRecord file; a block is ``example_per_class`` consecutive records of it, all of one class.

    Attributes:
        num_rows: the number of rows, and of files open at a time.
        length: T, the number of blocks in a row.
        num_batches: the number of whole batches in a pass.
        at_once: how many blocks of each row are read at once.
    """

    def __init__(
        self, shards: list[Shard], example_per_class: int, blocks_per_batch: int, shards_per_cycle: int | None
    ) -> None:
        shards = [shard for shard in shards if shard.num_records >= example_per_class]
        if len(shards) < blocks_per_batch:
            raise ValueError(
                f"there must be at least {blocks_per_batch} shards, one for each block of a batch "
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
        num_records = sum(shard.num_records for shard in shards)
        self.record_nbytes = max(1.0, sum(shard.nbytes for shard in shards) / num_records)
        fits = _READ_NBYTES / (self.record_nbytes * example_per_class * self.num_rows)
        self.at_once = int(max(1, min(_MAX_READ, self.length, fits)))

    @functools.cached_property
    def digest(self) -> str:
        """The digest that identifies these shards (files) and their layout in a saved state."""
        names = [os.path.basename(path) for path in self.paths]
        what = (
            self.example_per_class,
            self.blocks_per_batch,
            self.num_rows,
            self.at_once,
            names,
            self.blocks.tolist(),
            self.groups.tolist(),
        )
        return hashlib.blake2b(repr(what).encode(), digest_size=8).hexdigest()

    def _length(self) -> int:
        """Return the greatest T for which each row gets T blocks (groups of records), with at most T of each shard."""
        least, most = 1, int(self.blocks.sum()) // self.num_rows
        while least < most:
            middle = (least + most + 1) // 2
            if int(np.minimum(self.blocks, middle).sum()) >= middle * self.num_rows:
                least = middle
            else:
                most = middle - 1
        return least


def _groups(shards: list[Shard]) -> Any:
    """Return an array with a number for each shard (file), the same for shards of the same single class."""
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(s.classes if len(s.classes) == 1 else s.path, len(numbers)) for s in shards])


class Pieces(NamedTuple):
    """The pieces that one pass over the shards reads, in order, as tensors with one element per piece.

    A piece is a run of consecutive blocks of one shard (a TFRecord file) within one row.
    """

    path: Any
    first: Any  # its first block in the shard
    count: Any  # of blocks
    row: Any


def pieces_of_pass(rows: Rows, number: Any, seed: int, column: Any) -> Pieces:
    """Return the pieces that pass ``number`` over the files reads, as TensorFlow tensors.

    A piece is a run of blocks of one shard (file) within a row. ``column``: the first column of each row to read.
    """
    import tensorflow as tf

    blocks, taken = tf.constant(rows.blocks, tf.int64), tf.constant(rows.taken, tf.int64)
    groups = tf.constant(rows.groups, tf.int32)

    def uniform(count: int, of: int) -> Any:
        return tf.random.stateless_uniform([count], seed=tf.stack([mixed(seed, number, of), tf.constant(of, tf.int64)]))

    order = tf.argsort(uniform(len(rows.paths), 1))
    of_groups = tf.gather(uniform(int(rows.groups.max()) + 1, 2), groups)
    order = tf.gather(order, tf.argsort(tf.gather(of_groups, order), stable=True))
    spare = tf.cast(blocks - taken + 1, tf.float32)
    first = tf.cast(tf.floor(uniform(len(rows.paths), 3) * spare), tf.int64)
    first = tf.gather(tf.minimum(first, blocks - taken), order)
    taken = tf.gather(taken, order)
    start = tf.cumsum(taken, exclusive=True)
    row = start // rows.length
    here = tf.minimum(taken, (row + 1) * rows.length - start)

    def both(one: Any, other: Any) -> Any:
        return tf.reshape(tf.stack([one, other], 1), [-1])

    order, row, count = both(order, order), both(row, row + 1), both(here, taken - here)
    first, start = both(first, first + here), both(start, start + here)
    passed_by = tf.clip_by_value(row * rows.length + column - start, 0, count)
    is_there = (count > passed_by) & (row < rows.num_rows)
    columns = order, first + passed_by, count - passed_by, row
    order, first, count, row = (tf.boolean_mask(each, is_there) for each in columns)
    return Pieces(tf.gather(tf.constant(rows.paths), order), first, count, row)


def mixed(seed: int, number: Any, at: Any) -> Any:
    """Return a random seed, an int64 tensor, for ``seed``, pass ``number`` and position ``at``: the finaliser of
    splitmix64 (a hash) over all three."""
    import tensorflow as tf

    def folded(value: Any, by: int) -> Any:
        return tf.bitwise.bitwise_xor(value, tf.bitwise.right_shift(value, tf.constant(by, tf.uint64)))

    def mix(value: Any) -> Any:
        value = tf.bitcast(value, tf.uint64)
        for by, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = folded(value, by) * tf.constant(factor, tf.uint64)
        return tf.bitcast(folded(value, 31), tf.int64)

    return mix(mix(tf.constant(seed, tf.int64) + mix(tf.cast(number, tf.int64))) + tf.cast(at, tf.int64))
