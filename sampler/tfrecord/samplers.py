"""Balanced batches from TFRecord shards, as a ``tf.data.Dataset`` and as a Sequence.

A batch consists of *blocks* of ``example_per_class`` consecutive records of one class, each from a different shard.

Source: TensorFlow Similarity API, ``TFSimilarity.samplers.TFRecordDatasetSampler``, for the arguments.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from workers import Sequence
from workers.batch.tree import as_numpy, flatten, unflattener
from workers.checks import check_choice, check_int

from .reader import Reader, check_deserialiser
from .rows import Rows
from .shards import Shard, find_shards, part_of

logger = logging.getLogger("sampler")

_AT_ONCE_NBYTES = 4 << 20  # of batches, read at once
_MAX_AT_ONCE = 16


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
    """Return a ``tf.data.Dataset`` of balanced batches from TFRecord files, made of tf.data operations alone.

    Every batch consists of ``batch_size // example_per_class`` blocks of ``example_per_class`` consecutive records,
    each from a different shard. The blocks are of different classes too if each shard is of one class, ``index.json``
    says which, and no class has more than 1 / ``shards_per_cycle`` of all blocks.

    Args:
        shard_path: the folder of the shards, whose blocks :func:`sampler.verify_shards` accepts.
        deserialization_fn: ``record -> (x, y)`` for one record (a scalar string tensor), in TensorFlow operations.
        example_per_class: the number of records in a block.
        batch_size: the number of records in a batch, a multiple of ``example_per_class``.
        shards_per_cycle: how many files are open at a time, at least the blocks in a batch; None: as many as these.
        compression: that of the files: None, ``"GZIP"`` or ``"ZLIB"``.
        parallelism: how many calls of the function run at a time; None: ``tf.data.AUTOTUNE``.
        async_cycle: True: read all open files in parallel, which suits remote files. False: as many as tf.data chooses.
        prefetch_size: how many batches are ready in advance; None: 10.
        shard_suffix: the pattern of the names of shards.
        num_repeat: the number of passes over the data; -1: endless.
        batch_deserialization_fn: ``records -> (x, y)`` for a vector of any number of records, for example with
            ``tf.io.parse_example``; replaces ``deserialization_fn``, and is faster. Each row of ``x`` and ``y`` must
            depend on its record alone. Operations that mix the records of a batch belong in a ``map`` of the result.
        seed: the seed of the order of shards and blocks, which differs in each pass; None: drawn once, and logged.
        shuffle_blocks: True: shuffle the blocks of a shard too, among those read at once (8 MB of all open shards).
            False: shuffle only the shards.
        on_error: ``"raise"``: an error names the shard that is cut short, corrupt, empty or missing, and the place.
            ``"skip"``: all shards are read once in advance; such shards are left out, counted and logged.
        service: the address of a tf.data service, such as ``"grpc://localhost:5000"``, whose workers make the batches.
        shard: (rank, world): use only every ``world``-th shard, starting with number ``rank``.

    Returns:
        A data set of the stacked results of the function, ``(x, y)`` of ``batch_size`` records each.

    Raises:
        ValueError, TypeError: an argument has the wrong type or is out of range; raised before any batch is read.
    """
    import tensorflow as tf

    num_repeat = check_int("num_repeat", num_repeat, -1, "-1 or an integer >= 1")
    if num_repeat == 0:
        raise ValueError("num_repeat must be -1 or an integer >= 1, not 0")
    sequence = TFRecordSequence(
        shard_path,
        deserialization_fn,
        example_per_class,
        batch_size,
        shards_per_cycle,
        compression,
        parallelism,
        async_cycle,
        prefetch_size,
        shard_suffix,
        batch_deserialization_fn=batch_deserialization_fn,
        seed=seed,
        shuffle_blocks=shuffle_blocks,
        on_error=on_error,
        shard=shard,
    )
    reader, prefetch_size = sequence._reader, sequence.prefetch_size
    num_passes = None if num_repeat < 0 else num_repeat
    if service is not None:
        # Workers get whole passes, so batches stay balanced, and every block comes once in a pass.
        passes = tf.data.Dataset.range(np.iinfo(np.int64).max if num_passes is None else num_passes)
        batches = passes.flat_map(lambda number: reader.batches(1, number))
        dynamic = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        batches = batches.apply(tf.data.experimental.service.distribute(dynamic, service))
    else:
        batches = reader.batches(num_passes)
        length = tf.data.INFINITE_CARDINALITY if num_passes is None else num_passes * reader.rows.num_batches
        batches = batches.apply(tf.data.experimental.assert_cardinality(length))
    return batches.prefetch(prefetch_size) if prefetch_size else batches


class TFRecordSequence(Sequence):
    """Balanced batches from TFRecord files, as :func:`TFRecordDatasetSampler` makes them, in a Sequence.

    They are numpy arrays; an epoch is one pass over the files.

    tf.data reads them in this process, in an order that is already shuffled. So :meth:`map` sends the batches to
    workers, and ``model.fit`` gets them in this order, whatever its ``shuffle``. ``sequence[i]`` in any other order is
    possible, but slow. With ``shard``, all ranks (processes) have as many batches as the one with the fewest.

    The arguments are those of :func:`TFRecordDatasetSampler`, except ``num_repeat`` and ``service``.

    >>> sequence = TFRecordSequence("shards", batch_deserialization_fn=parse)  # doctest: +SKIP
    >>> with sequence.map(augment, nb_workers=4) as batches:  # doctest: +SKIP
    ...     for x, y in batches: ...
    """

    is_stream = True

    def __init__(
        self,
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
        *,
        batch_deserialization_fn: Callable[[Any], Any] | None = None,
        seed: int | None = None,
        shuffle_blocks: bool = True,
        on_error: str = "raise",
        shard: tuple[int, int] | None = None,
    ) -> None:
        import tensorflow as tf

        super().__init__(seed=seed)
        self.prefetch_size = 10 if prefetch_size is None else check_int("prefetch_size", prefetch_size, 0)
        self.example_per_class = example_per_class = check_int("example_per_class", example_per_class, 1)
        self.batch_size = batch_size = check_int("batch_size", batch_size, 1)
        if batch_size % example_per_class:
            raise ValueError(
                f"batch_size must be a multiple of example_per_class ({example_per_class}), not {batch_size}"
            )
        self.on_error = check_choice("on_error", on_error, ("raise", "skip"))
        deserialiser = check_deserialiser(deserialization_fn, batch_deserialization_fn, batch_size)
        shards = find_shards(shard_path, shard_suffix, compression, on_error, example_per_class)

        def rows_of(shards: list[Shard]) -> Rows:
            return Rows(shards, example_per_class, batch_size // example_per_class, shards_per_cycle)

        if shard is None:
            rows = rows_of(shards)
            self._length = rows.num_batches
        else:
            rows = rows_of(part_of(shards, shard))
            _, world = shard
            self._length = min(rows_of(part_of(shards, (rank, world))).num_batches for rank in range(world))
        self.parallelism = tf.data.AUTOTUNE if parallelism is None else check_int("parallelism", parallelism, -1)
        self._reader = Reader(
            rows,
            deserialiser,
            self.seed,
            compression=compression,
            shuffle=shuffle_blocks,
            calls=rows.num_rows if async_cycle else tf.data.AUTOTUNE,
            parallelism=self.parallelism,
        )
        self.shard_path, self.shard_suffix, self.compression = shard_path, shard_suffix, compression
        self.deserialization_fn, self.batch_deserialization_fn = deserialization_fn, batch_deserialization_fn
        self.shards_per_cycle, self.async_cycle = rows.num_rows, bool(async_cycle)
        self.shuffle_blocks = self._reader.shuffle  # ``shard`` is not kept, because a method has this name
        self._start: Any = None  # a tf.Variable: (epoch, index) at which an iterator starts
        self._datasets: dict[int, Any] = {}  # {number of batches in an element: data set}
        nbytes = deserialiser.nbytes * batch_size
        self._at_once = int(max(1, min(_MAX_AT_ONCE, _AT_ONCE_NBYTES / max(nbytes, 1))))
        self._batches: Iterator[Any] = iter(())
        self._place = (-1, -1)  # (epoch, index) of the next of ``_batches``

    def __len__(self) -> int:
        """Return the number of batches in an epoch; with ``shard``, those of this rank, which all ranks have."""
        return self._length

    def __getitem__(self, index: int) -> Any:
        """Return batch ``index`` of the current epoch, (x, y) as numpy arrays."""
        epoch = self.epoch
        if self._place != (epoch, index) or self._reader.seed != self.seed:
            self._batches = self._from(epoch, index)
        self._place = (-1, -1)
        batch = next(self._batches)
        self._place = self._behind(epoch, index)
        return batch

    def _identity(self) -> list[Any]:
        return [*super()._identity(), self._reader.rows.digest, self._reader.shuffle]

    def _from(self, epoch: int, index: int) -> Iterator[Any]:
        """Yield the batches of the pass from ``index`` of ``epoch`` on, and of later epochs. Several are read at a
        time, as each tensor takes 0.1 ms on its way to Python; after an error one at a time, so that the error is
        raised for its own batch."""
        if self._at_once > 1:
            try:
                for some in self._read(epoch, index, self._at_once):
                    arrays: list[Any] = []
                    others: list[Any] = []
                    build = unflattener(flatten(as_numpy(some), arrays, others))
                    if others:  # strings, which are not plain arrays
                        self._at_once = 1
                        break
                    for at in range(len(arrays[0])):
                        yield build(iter([array[at] for array in arrays]), iter(()))
                        epoch, index = self._behind(epoch, index)
            except Exception:  # it is raised again, for its own batch
                logger.debug("from batch %d of epoch %d on, one batch is read at a time", index, epoch, exc_info=True)
        yield from map(as_numpy, self._read(epoch, index, 1))

    def _behind(self, epoch: int, index: int) -> tuple[int, int]:
        return (epoch, index + 1) if index + 1 < self._reader.rows.num_batches else (epoch + 1, 0)

    def _read(self, epoch: int, index: int, at_once: int) -> Iterator[Any]:
        import tensorflow as tf

        if self._reader.seed != self.seed:  # the seed of a front-end, or one set since
            self._reader, self._datasets = self._reader.with_seed(self.seed), {}
        if at_once not in self._datasets:
            if self._start is None:
                self._start = tf.Variable([0, 0], dtype=tf.int64)
            # The start is a variable, because tracing a data set for each start would take a second.
            start = self._start
            place = tf.data.Dataset.from_tensors(0).map(lambda _: (start[0], start[1]))
            dataset = place.flat_map(lambda epoch, index: self._reader.batches(None, epoch, index))
            dataset = dataset.batch(at_once) if at_once > 1 else dataset
            num_ahead = -(-self.prefetch_size // at_once)
            self._datasets[at_once] = dataset.prefetch(num_ahead) if num_ahead else dataset
        self._start.assign([epoch, index])
        batches: Iterator[Any] = iter(self._datasets[at_once])
        return batches

    def _may_draw(self) -> bool:
        return type(self).__getitem__ is not TFRecordSequence.__getitem__

    def close(self) -> None:
        """Close the sequence, and release its files."""
        super().close()
        self._batches, self._place = iter(()), (-1, -1)
