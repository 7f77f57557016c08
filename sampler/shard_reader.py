"""The tf.data pipeline that reads blocks of shards across rows.

Many columns of all rows are read, and mostly deserialised, at once: single records are what costs in tf.data::

    row 0   shard -> chunk of records -+
    row 1   shard -> chunk of records -+-> deserialise -> columns in random order -> batches
    row 2   shard -> chunk of records -+

See :mod:`sampler.shard_rows` for what a row is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .shard_rows import Rows, mixed, pieces_of_pass

_BUFFER_NBYTES = 128 << 10  # of each open file
_MAX_UNROLLED = 128  # records
_MAX_GROWTH = 8  # times the bytes of a record: what is larger is deserialised batch by batch


class Deserialiser(NamedTuple):
    """What makes ``(x, y)`` of records."""

    function: Callable[[Any], Any]
    is_batch: bool  # it is given a vector of records
    nbytes: float  # of what it makes of one record, if of any number of them; else infinite


class Reader:
    """Batches from some place on, of passes over ``rows``. ``calls``: how many rows are read at a time."""

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
        self._seed = seed
        self._compression = compression or ""
        self._shuffle = shuffle
        self._calls = calls
        self._parallelism = parallelism
        self._size = rows.example_per_class
        self._batch_size = rows.blocks_per_batch * self._size
        self._is_early = deserialiser.nbytes <= _MAX_GROWTH * rows.record_nbytes

    def batches(self, num_passes: int | None, first_pass: int = 0, first_batch: int = 0) -> Any:
        """A data set of the batches of ``num_passes`` passes (None: endless), from ``first_batch`` of the first on."""
        import tensorflow as tf

        last = np.iinfo(np.int64).max if num_passes is None else first_pass + num_passes
        passes = tf.data.Dataset.range(first_pass, last)
        first_batch = tf.constant(first_batch, tf.int64)
        batches = passes.flat_map(lambda number: self._pass(number, tf.where(number == first_pass, first_batch, 0)))
        return batches if self._is_early else self._deserialised(batches)

    def _pass(self, number: Any, first_batch: Any) -> Any:
        """One pass: its batches, or, where they are deserialised later, vectors of as many records."""
        import tensorflow as tf

        rows, size = self.rows, self._size
        first_block = first_batch * rows.blocks_per_batch
        first_chunk = first_block // (rows.num_rows * rows.at_once)
        column = first_chunk * rows.at_once
        pieces = pieces_of_pass(rows, number, self._seed, column)
        bounds = tf.searchsorted(pieces.row, tf.range(rows.num_rows + 1, dtype=tf.int64), out_type=tf.int64)
        ends = tf.cumsum(pieces.count)

        def row(at: Any) -> Any:
            of_row = tf.data.Dataset.range(bounds[at], bounds[at + 1])
            chunks = of_row.flat_map(lambda at: self._chunks(pieces.path[at], pieces.first[at], pieces.count[at]))
            return chunks.rebatch(rows.at_once)

        def order(chunk: Any, how_many: Any) -> Any:
            """Of the blocks of a chunk, which are ``how_many`` of each row: one column after the other."""
            columns = tf.tile(tf.range(how_many)[None, :], [rows.num_rows, 1])
            if self._shuffle:  # among themselves those of a piece, whose columns no other row has its shard in
                begin = tf.range(rows.num_rows, dtype=tf.int64)[:, None] * (rows.length - column)
                begin += (chunk - first_chunk) * rows.at_once
                on_line = tf.reshape(tf.cast(columns, tf.int64) + begin, [-1])
                of_piece = tf.reshape(tf.searchsorted(ends, on_line, side="right"), tf.shape(columns))
                drawn = tf.stack([mixed(self._seed, number, chunk), 4])
                keys = tf.random.stateless_uniform(tf.shape(columns), seed=drawn)
                # As float64 their sums are exact: the same order wherever the pass was begun.
                keys = tf.cast(of_piece, tf.float64) + tf.cast(keys, tf.float64)
                columns = tf.argsort(keys, axis=1, stable=True)
            blocks = tf.reshape(tf.transpose(tf.range(rows.num_rows)[:, None] * how_many + columns), [-1])
            passed_by = first_block - column * rows.num_rows
            return blocks[tf.where(chunk == first_chunk, passed_by, 0) :]

        is_direct = rows.num_rows == rows.blocks_per_batch  # a column is a batch

        def reshaped(parts: Any, front: list[int]) -> Any:
            return tf.nest.map_structure(lambda part: tf.reshape(part, [*front, *part.shape[2:]]), parts)

        def across(chunk: Any, records: Any) -> Any:
            blocks = order(chunk, tf.shape(records)[1])
            parts = self._deserialise.function(tf.reshape(records, [-1])) if self._is_early else records

            def ordered(part: Any) -> Any:
                shape = part.shape[1:] if self._is_early else []
                return tf.gather(tf.reshape(part, [-1, size, *shape]), blocks)  # half the time of gather_nd

            parts = tf.nest.map_structure(ordered, parts)
            return reshaped(parts, [-1, self._batch_size]) if is_direct else parts

        chunks = tf.data.Dataset.range(rows.num_rows).interleave(
            row, cycle_length=rows.num_rows, block_length=1, num_parallel_calls=self._calls, deterministic=True
        )
        chunks = chunks.batch(rows.num_rows, drop_remainder=True).prefetch(1).enumerate(first_chunk)
        if self._is_early:
            chunks = chunks.map(across, num_parallel_calls=self._parallelism, deterministic=True)
        else:
            chunks = chunks.map(across).prefetch(1)
        if is_direct:
            return chunks.unbatch()
        batches = chunks.rebatch(rows.blocks_per_batch, drop_remainder=True)
        return batches.map(lambda *parts: reshaped(parts, [self._batch_size]))

    def _chunks(self, path: Any, first: Any, count: Any) -> Any:
        """The ``count`` blocks of a shard from ``first`` on, ``at_once`` of them together."""
        import tensorflow as tf

        size, at_once = self._size, self.rows.at_once
        records = tf.data.TFRecordDataset(path, self._compression, buffer_size=_BUFFER_NBYTES)
        chunks = records.skip(first * size).take(count * size).batch(at_once * size).ignore_errors()
        missing = tf.data.Dataset.from_tensors(tf.fill([0], "")).repeat()

        def checked(number: Any, records: Any) -> Any:
            is_whole = tf.size(records, tf.int64) == tf.minimum(count - number * at_once, at_once) * size
            return tf.reshape(tf.cond(is_whole, lambda: records, lambda: self._broken(path)), [-1, size])

        return chunks.concatenate(missing).take(-(-count // at_once)).enumerate().map(checked)

    def _broken(self, path: Any) -> Any:
        """Fails, with where the file cannot be read any more."""
        import tensorflow as tf

        records = tf.data.TFRecordDataset(path, self._compression).ignore_errors()
        count, offset = records.reduce(
            (tf.constant(0, tf.int64), tf.constant(0, tf.int64)),
            lambda state, record: (state[0] + 1, state[1] + 16 + tf.cast(tf.strings.length(record), tf.int64)),
        )
        where = ["shard ", path, " is cut short or corrupt at record ", tf.strings.as_string(count)]
        where += [", byte (of what is compressed) " if self._compression else ", byte ", tf.strings.as_string(offset)]
        with tf.control_dependencies([tf.debugging.Assert(tf.constant(False), [tf.strings.join(where)])]):
            return tf.fill([0], tf.identity(path))

    def _deserialised(self, records: Any) -> Any:
        """Batches of vectors of as many records."""
        import tensorflow as tf

        function = self._deserialise.function
        if self._deserialise.is_batch:
            return records.map(function, num_parallel_calls=self._parallelism, deterministic=True)

        def unrolled(records: Any) -> Any:
            each = [function(record) for record in tf.unstack(records)]
            return tf.nest.map_structure(lambda *parts: tf.stack(parts), *each)

        # Operations on single records within one function: a third of the time of as many elements of a data set.
        at_once = max(size for size in range(1, _MAX_UNROLLED + 1) if self._batch_size % size == 0)
        if at_once != self._batch_size:
            records = records.rebatch(at_once)
        records = records.map(unrolled, num_parallel_calls=self._parallelism, deterministic=True)
        return records if at_once == self._batch_size else records.rebatch(self._batch_size)


def check_deserialiser(deserialization_fn: Any, batch_deserialization_fn: Any, batch_size: int) -> Deserialiser:
    """The one of the two that is given.

    Raises:
        ValueError, TypeError: it is not one, or does not return a pair.
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
    """The bytes it makes of each record; infinite if that depends on the records, or it wants a certain number."""
    import tensorflow as tf

    try:
        spec = records.unbatch().batch(2).map(function).element_spec
    except Exception:  # whatever the user's function raises for a number of records that is not known
        return np.inf
    nbytes = 0.0
    for part in tf.nest.flatten(spec):
        if not isinstance(part, tf.TensorSpec) or not part.shape.rank or part.shape[0] is not None:
            return np.inf
        if not part.shape[1:].is_fully_defined():
            return np.inf
        nbytes += part.shape[1:].num_elements() * max(1, part.dtype.size)
    return nbytes
