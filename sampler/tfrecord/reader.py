"""The tf.data pipeline that reads blocks of shards across rows.

Many columns (a column is one block of each row) are read, and usually deserialised, at once, because single records
are slow in tf.data::

    row 0   shard -> chunk of records -+
    row 1   shard -> chunk of records -+-> deserialise -> columns in random order -> batches
    row 2   shard -> chunk of records -+

Rows are explained in :mod:`sampler.tfrecord.rows`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .rows import Pieces, Rows, mixed, pieces_of_pass

_MAX_UNROLLED = 128  # records
_MAX_GROWTH = 8  # times the bytes of a record; if the result is larger, it is deserialised batch by batch


class Deserialiser(NamedTuple):
    """The user's function that makes ``(x, y)`` of records, and what is known of it."""

    function: Callable[[Any], Any]
    is_batch: bool  # True if it takes a vector of records, False if it takes one
    nbytes: float  # of its result for one record; infinite if it cannot take any number of records


class Chunk(NamedTuple):
    """Consecutive blocks (groups of records of one class) of one row, or of all rows, as tensors."""

    records: Any  # (..., blocks, records in a block)
    piece: Any  # (..., blocks): the number of its piece of a shard; -1 - that number if records are missing


class Reader:
    """The tf.data pipeline that reads the batches of ``rows``, a layout of shards (TFRecord files).

    ``calls``: how many rows are read in parallel.
    """

    def __init__(
        self,
        rows: Rows,
        deserialiser: Deserialiser,
        seed: int,
        *,
        compression: str | None,
        shuffle: bool,
        calls: int,
        parallelism: int,
    ) -> None:
        self.rows = rows
        self._deserialise = deserialiser
        self.seed = seed
        self._compression = compression or ""
        self.shuffle = bool(shuffle)
        self._calls = calls
        self._parallelism = parallelism
        self._batch_size = rows.blocks_per_batch * rows.example_per_class
        self._is_early = deserialiser.nbytes <= _MAX_GROWTH * rows.record_nbytes

    def with_seed(self, seed: int) -> Reader:
        """Return a copy of this reader whose order of shards and blocks is drawn by another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def batches(self, num_passes: int | None, first_pass: Any = 0, first_batch: int = 0) -> Any:
        """Return a data set of the batches of ``num_passes`` passes over the shards; None: endless.

        It starts at batch ``first_batch`` of pass ``first_pass``.
        """
        import tensorflow as tf

        rows, deserialise = self.rows, self._deserialise
        first_pass, first_batch = (tf.convert_to_tensor(each, tf.int64) for each in (first_pass, first_batch))
        first_block = first_batch * rows.blocks_per_batch
        first_chunk = first_block // (rows.num_rows * rows.at_once)
        first_column = first_chunk * rows.at_once
        last = np.iinfo(np.int64).max if num_passes is None else first_pass + num_passes
        passes = tf.data.Dataset.range(first_pass, last)
        chunks_per_pass = -(-rows.length // rows.at_once)
        is_direct = rows.num_rows == rows.blocks_per_batch  # a column is a batch
        too_many = rows.length * rows.num_rows - rows.num_batches * rows.blocks_per_batch

        def pieces(number: Any) -> Pieces:
            return pieces_of_pass(rows, number, self.seed, tf.where(number == first_pass, first_column, 0))

        def row(at: Any) -> Any:
            return passes.flat_map(lambda number: self._row(at, pieces(number)))

        def reshaped(parts: Any, front: list[int]) -> Any:
            return tf.nest.map_structure(lambda part: tf.reshape(part, [*front, *part.shape[2:]]), parts)

        def across(at: Any, chunk: Chunk) -> Any:
            number, which = at // chunks_per_pass, at % chunks_per_pass
            is_broken = tf.reduce_min(chunk.piece) < 0
            piece = tf.cond(is_broken, lambda: self._broken(pieces(number), chunk), lambda: chunk.piece)
            blocks = self._order(number, which, piece)
            begin = tf.where(at == first, first_block - first_column * rows.num_rows, 0)
            end = tf.size(blocks, tf.int64) - tf.where(which == chunks_per_pass - 1, tf.constant(too_many, tf.int64), 0)
            blocks = blocks[begin:end]
            with tf.control_dependencies([piece]):
                parts = tf.reshape(chunk.records, [-1])
            parts = deserialise.function(parts) if self._is_early else parts

            def ordered(part: Any) -> Any:
                shape = part.shape[1:] if self._is_early else []
                part = tf.reshape(part, [-1, rows.example_per_class, *shape])
                return tf.gather(part, blocks)  # half the time of gather_nd

            parts = tf.nest.map_structure(ordered, parts)
            return reshaped(parts, [-1, self._batch_size]) if is_direct else parts

        chunks = tf.data.Dataset.range(rows.num_rows).interleave(
            row, cycle_length=rows.num_rows, block_length=1, num_parallel_calls=self._calls, deterministic=True
        )
        first = first_pass * chunks_per_pass + first_chunk
        chunks = chunks.batch(rows.num_rows, drop_remainder=True).prefetch(1).enumerate(first)
        if self._is_early:
            batches = chunks.map(across, num_parallel_calls=self._parallelism, deterministic=True)
        else:
            batches = chunks.map(across).prefetch(1)
        if is_direct:
            batches = batches.unbatch()
        else:
            batches = batches.rebatch(rows.blocks_per_batch, drop_remainder=True)
            batches = batches.map(lambda *parts: reshaped(parts, [self._batch_size]))
        return batches if self._is_early else self._deserialised(batches)

    def _row(self, row: Any, pieces: Pieces) -> Any:
        """Return a data set of the chunks (consecutive blocks) of row number ``row`` in the pass with ``pieces``."""
        import tensorflow as tf

        size, at_once = self.rows.example_per_class, self.rows.at_once

        def chunks(at: Any) -> Any:
            with tf.control_dependencies([_opened(pieces.path[at])]):
                records = tf.data.TFRecordDataset(tf.identity(pieces.path[at]), self._compression)
            records = records.skip(pieces.first[at] * size).batch(at_once * size).ignore_errors()
            missing = tf.data.Dataset.from_tensors(tf.fill([0], "")).repeat()
            numbers = tf.data.Dataset.range(-(-pieces.count[at] // at_once))
            return tf.data.Dataset.zip(tf.data.Dataset.from_tensors(at).repeat(), numbers, records.concatenate(missing))

        def whole(at: Any, number: Any, records: Any) -> Chunk:
            """Return chunk ``number`` of piece ``at``, of ``records``, with empty ones in place of missing ones."""
            count = tf.minimum(pieces.count[at] - number * at_once, at_once)
            missing = count * size - tf.size(records, tf.int64)

            def made_whole() -> Any:  # copies, as an error is logged for each slice that shares memory
                there = tf.gather(records, tf.range(tf.minimum(count * size, tf.size(records, tf.int64))))
                return tf.concat([there, tf.fill([tf.maximum(missing, 0)], "")], 0)

            records = tf.cond(missing == 0, lambda: records, made_whole)
            piece = tf.where(missing <= 0, at, -1 - at)
            return Chunk(tf.reshape(records, [-1, size]), tf.fill([count], piece))

        of_row = tf.searchsorted(pieces.row, tf.stack([row, row + 1]), out_type=tf.int64)
        return tf.data.Dataset.range(of_row[0], of_row[1]).flat_map(chunks).map(whole).rebatch(at_once)

    def _order(self, number: Any, which: Any, piece: Any) -> Any:
        """Return the order in which blocks of chunk ``which`` of pass ``number`` are used, as indices by column.

        If ``shuffle``, the blocks of a piece are shuffled within its columns of the row, where no other row has the
        same shard. ``piece``: the number of each block's piece, by row and column.
        """
        import tensorflow as tf

        num_rows, how_many = self.rows.num_rows, tf.shape(piece)[1]
        columns = tf.tile(tf.range(how_many)[None, :], [num_rows, 1])
        if self.shuffle:
            keys = tf.random.stateless_uniform(tf.shape(piece), seed=tf.stack([mixed(self.seed, number, which), 4]))
            # In float64, the sums are exact, so the order does not depend on where the pass started.
            columns = tf.argsort(tf.cast(piece, tf.float64) + tf.cast(keys, tf.float64), axis=1, stable=True)
        return tf.reshape(tf.transpose(tf.range(num_rows)[:, None] * how_many + columns), [-1])

    def _broken(self, pieces: Pieces, chunk: Chunk) -> Any:
        """Raise, when the data set runs, an error that names the broken file and its first unreadable record."""
        import tensorflow as tf

        path = pieces.path[-1 - tf.reduce_min(chunk.piece)]
        records = tf.data.TFRecordDataset(path, self._compression).ignore_errors()
        count, offset = records.reduce(
            (tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
            lambda state, record: (state[0] + 1, state[1] + 16 + tf.cast(tf.strings.length(record), tf.int64)),
        )
        byte = ", byte (of the uncompressed data) " if self._compression else ", byte "
        where = [tf.strings.as_string(count), byte, tf.strings.as_string(offset)]
        where = tf.strings.join(["shard ", path, " is cut short or corrupt at record ", *where])
        with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [where])]):
            return tf.identity(chunk.piece)

    def _deserialised(self, records: Any) -> Any:
        """Return a data set of the batches (x, y) made from ``records``, a data set of vectors of records."""
        import tensorflow as tf

        function = self._deserialise.function
        if self._deserialise.is_batch:
            return records.map(function, num_parallel_calls=self._parallelism, deterministic=True)

        def unrolled(records: Any) -> Any:
            each = [function(record) for record in tf.unstack(records)]
            return tf.nest.map_structure(lambda *parts: tf.stack(parts), *each)

        # One function that handles many single records takes a third of the time of a data set that maps each record.
        at_once = max(size for size in range(1, _MAX_UNROLLED + 1) if self._batch_size % size == 0)
        if at_once != self._batch_size:
            records = records.rebatch(at_once)
        records = records.map(unrolled, num_parallel_calls=self._parallelism, deterministic=True)
        return records if at_once == self._batch_size else records.rebatch(self._batch_size)


def _opened(path: Any) -> Any:
    """Return the first byte of a file, or raise an error, when the data set runs, if it cannot be opened:
    ``ignore_errors`` would try again forever."""
    import tensorflow as tf

    some = tf.data.FixedLengthRecordDataset(path, record_bytes=1, buffer_size=16)
    return some.concatenate(tf.data.Dataset.from_tensors("")).take(1).get_single_element()


def check_deserialiser(deserialization_fn: Any, batch_deserialization_fn: Any, batch_size: int) -> Deserialiser:
    """Return the Deserialiser for the one of the two functions that is given (the other is None), after trying it.

    Raises:
        ValueError, TypeError: none or both are given, or the function does not return a pair.
    """
    import tensorflow as tf

    functions = {"deserialization_fn": deserialization_fn, "batch_deserialization_fn": batch_deserialization_fn}
    given = {name: function for name, function in functions.items() if function is not None}
    if len(given) != 1:
        raise ValueError(f"one of {' and '.join(functions)} must be given, not {'both' if given else 'none'}")
    ((name, function),) = given.items()
    if not callable(function):
        raise TypeError(f"{name} must be callable, not {function!r:.200}")
    is_batch = name == "batch_deserialization_fn"
    records = tf.fill([batch_size], "")
    one = tf.data.Dataset.from_tensors(records if is_batch else records[0])
    spec = one.map(function).element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"{name} must return a pair (x, y), not {spec!r:.200}")
    return Deserialiser(function, is_batch, _nbytes_of_each(function, one) if is_batch else np.inf)


def _nbytes_of_each(function: Callable[[Any], Any], records: Any) -> float:
    """Return the bytes of the function's result for one record; infinite if they vary, or it needs a fixed number."""
    import tensorflow as tf

    try:
        spec = records.unbatch().batch(2).map(function).element_spec
    except Exception:  # a user's function may raise anything for an unknown number of records
        return np.inf
    nbytes = 0.0
    for part in tf.nest.flatten(spec):
        if not isinstance(part, tf.TensorSpec) or not part.shape.rank or part.shape[0] is not None:
            return np.inf
        if not part.shape[1:].is_fully_defined():
            return np.inf
        nbytes += part.shape[1:].num_elements() * max(1, part.dtype.size)
    return nbytes
