"""The loaders of photos: each as its manual says, with the same function of a photo.

An adapter is a context manager ``open(paths, num_workers, folder)``. It returns a function that starts an epoch: an
iterator over (images, their indices).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from benchmarks import peers
from benchmarks.peers import epochs_of_grain
from benchmarks.photo_jobs import (
    BATCH,
    SIZE,
    crop_of,
    decoded,
    decoded_bytes,
    finished,
    only_one_thread,
    plain,
    with_load_image,
)

Epoch = Callable[[], Iterator[Any]]
Open = Callable[[list[str], int, str], AbstractContextManager[Epoch]]


class Photos:
    """A dataset of single photos, for all loaders that index."""

    def __init__(self, paths: list[str], load: Callable[[str, int], Any] = plain) -> None:
        self.paths, self.load = paths, load

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self.load(self.paths[index], index), index


@functools.cache
def _once() -> None:
    only_one_thread()


def _by_one_thread(path: str, index: int) -> Any:
    """Return :func:`plain` in a process for which no function of ours is called when it starts."""
    _once()
    return plain(path, index)


def init(worker: int) -> None:
    only_one_thread()


@contextmanager
def serial(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
    photos = Photos(paths)

    def epoch() -> Iterator[Any]:
        for start in range(0, len(paths), BATCH):
            some = [photos[index] for index in range(start, min(start + BATCH, len(paths)))]
            yield np.stack([image for image, _ in some]), np.array([index for _, index in some])

    yield epoch


def ours(load: Callable[[str, int], Any] = plain, **options: Any) -> Open:
    @contextmanager
    def open_ours(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
        import workers

        made = workers.prefetch(
            Photos(paths, load), num_workers, batch_size=BATCH, worker_init_fn=init, seed=1, **options
        )
        with made as batches:
            yield lambda: iter(batches)

    return open_ours


def ours_in_place() -> Open:
    @contextmanager
    def open_in_place(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
        import workers

        with workers.prefetch(_batches(paths, True), num_workers, worker_init_fn=init, seed=1) as batches:
            yield lambda: iter(batches)

    return open_in_place


def ours_by_batch(**options: Any) -> Open:
    @contextmanager
    def open_by_batch(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
        import workers

        with workers.prefetch(_batches(paths, False), num_workers, worker_init_fn=init, seed=1, **options) as batches:
            yield lambda: iter(batches)

    return open_by_batch


def _batches(paths: list[str], in_place: bool) -> Any:
    import workers

    class Batches(workers.Sequence[Any]):
        def __len__(self) -> int:
            return (len(paths) + BATCH - 1) // BATCH

        def __getitem__(self, index: int) -> Any:
            some = range(index * BATCH, min((index + 1) * BATCH, len(paths)))
            if not in_place:
                return np.stack([plain(paths[at], at) for at in some]), np.array(some)
            images = workers.empty((len(some), SIZE, SIZE, 3), np.uint8)
            for row, at in enumerate(some):
                images[row] = plain(paths[at], at)
            return images, np.array(some)

    return Batches()


def _numbered(pair: Any) -> Any:
    path, index = pair
    return decoded(path), index


def _finished(pair: Any) -> Any:
    photo, index = pair
    return finished(photo, index), index


def ours_cached(where: str = "memory", **options: Any) -> Open:
    @contextmanager
    def open_cached(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
        import workers

        pairs = [(path, index) for index, path in enumerate(paths)]
        kept = os.path.join(folder, "cache") if where == "folder" else None
        source = workers.prefetch(pairs, 0, seed=1, worker_init_fn=init)
        chain = source.map(_numbered).cache(kept).map(_finished).batch(BATCH)
        with chain.prefetch(num_workers, **options) as batches:
            yield lambda: iter(batches)

    return open_cached


def _collated(some: list[Any]) -> Any:
    return np.stack([image for image, _ in some]), np.array([index for _, index in some])


def _data_loader(dataset: Any, num_workers: int, collate_fn: Callable[[Any], Any]) -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=num_workers,
        collate_fn=collate_fn,
        persistent_workers=True,
        worker_init_fn=init,
    )


@contextmanager
def torch(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
    loader = _data_loader(Photos(paths), num_workers, _collated)
    yield lambda: iter(loader)


def grain(with_threads: bool) -> Open:
    @contextmanager
    def open_grain(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
        import grain
        from absl import flags

        flags.FLAGS(["benchmark"])
        only_one_thread()
        reading = grain.ReadOptions(num_threads=num_workers if with_threads else 0, prefetch_buffer_size=2 * BATCH)
        photos: Any = grain.MapDataset.source(Photos(paths, _by_one_thread))
        dataset = photos.to_iter_dataset(reading).batch(BATCH, batch_fn=_collated)
        if not with_threads:
            dataset = dataset.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2)
            )
        with epochs_of_grain(dataset) as epoch:
            yield epoch

    return open_grain


@contextmanager
def spdl(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
    from spdl.pipeline import PipelineBuilder

    only_one_thread()

    def load(index: int) -> Any:
        return plain(paths[index], index), index

    def epoch() -> Iterator[Any]:
        builder: Any = PipelineBuilder()
        builder.add_source(range(len(paths)))
        builder.pipe(load, concurrency=num_workers, output_order="input")
        pipeline = builder.aggregate(BATCH).pipe(_collated).add_sink(3).build(num_threads=num_workers)
        with pipeline.auto_stop():
            yield from pipeline

    yield epoch


@contextmanager
def webdataset(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
    import webdataset as wds

    def load(sample: Any) -> Any:
        index = int(sample["__key__"])
        return finished(decoded_bytes(sample["jpg"]), index), index

    shards = [os.path.join(folder, f"shard-{shard}.tar") for shard in range(8)]
    dataset = wds.WebDataset(shards, shardshuffle=False).map(load).batched(BATCH, collation_fn=_collated)
    loader = wds.WebLoader(
        dataset, batch_size=None, num_workers=num_workers, worker_init_fn=init, persistent_workers=True
    )
    yield lambda: iter(loader)


@contextmanager
def hugging_face(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
    import datasets

    table = datasets.Dataset.from_dict({"path": paths, "index": list(range(len(paths)))})

    def load(rows: Any) -> Any:
        return {"image": list(map(plain, rows["path"], rows["index"])), "index": rows["index"]}

    def collate(rows: Any) -> Any:
        return np.stack([row["image"] for row in rows]), np.array([row["index"] for row in rows])

    loader = _data_loader(table.with_transform(load), num_workers, collate)
    yield lambda: iter(loader)


@contextmanager
def keras(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
    only_one_thread()
    with peers.keras(_batches(paths, False), num_workers) as epoch:
        yield epoch


def tensorflow(is_cached: bool) -> Open:
    @contextmanager
    def open_tensorflow(paths: list[str], num_workers: int, folder: str) -> Iterator[Epoch]:
        import tensorflow as tf

        from sampler import image_size

        tf.config.threading.set_intra_op_parallelism_threads(1)
        crops = [crop_of(index, *image_size(path)) for index, path in enumerate(paths)]
        boxes, mirrored = [box for box, _ in crops], [is_mirrored for _, is_mirrored in crops]
        dataset: Any = tf.data.Dataset.from_tensor_slices((paths, list(range(len(paths))), boxes, mirrored))

        def resized(part: Any, index: Any, is_mirrored: Any) -> Any:
            found = tf.image.resize(part, (SIZE, SIZE))
            found = tf.cast(tf.round(found), tf.uint8)
            return tf.cond(is_mirrored, lambda: tf.image.flip_left_right(found), lambda: found), index

        def crop_alone(path: Any, index: Any, box: Any, is_mirrored: Any) -> Any:
            return resized(tf.io.decode_and_crop_jpeg(tf.io.read_file(path), box, 3), index, is_mirrored)

        def whole(path: Any, index: Any, box: Any, is_mirrored: Any) -> Any:
            return tf.io.decode_jpeg(tf.io.read_file(path), 3), index, box, is_mirrored

        def crop(photo: Any, index: Any, box: Any, is_mirrored: Any) -> Any:
            return resized(tf.slice(photo, [box[0], box[1], 0], [box[2], box[3], 3]), index, is_mirrored)

        if is_cached:
            dataset = dataset.map(whole, num_workers).cache().map(crop, num_workers)
        else:
            dataset = dataset.map(crop_alone, num_workers)
        options = tf.data.Options()
        options.threading.private_threadpool_size = num_workers
        dataset = dataset.batch(BATCH).prefetch(2).with_options(options)
        yield dataset.as_numpy_iterator

    return open_tensorflow


LOAD_IMAGE = with_load_image
LOAD_IMAGE_TENSORFLOW = functools.partial(with_load_image, backend="tensorflow")
LOAD_IMAGE_FAST = functools.partial(with_load_image, fast=True)
LOAD_IMAGE_FAST_TENSORFLOW = functools.partial(with_load_image, fast=True, backend="tensorflow")
