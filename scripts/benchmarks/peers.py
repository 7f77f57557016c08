"""The loaders: a small adapter for each, set up as in its manual and used as its users would.

An adapter is a context manager ``open(job, num_workers)`` that returns a function, which starts a new epoch in each
call. All loaders deliver in order. Their packages are imported before any clock starts.
"""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from benchmarks.jobs import Job

Epoch = Callable[[], Iterator[Any]]
Open = Callable[[Job, int], AbstractContextManager[Epoch]]


@dataclass(frozen=True)
class Loader:
    """A row of the tables."""

    key: str
    label: str
    open: Open
    packages: tuple[str, ...] = ()  # the modules that it needs, e.g. ("torch", "torch.utils.data")

    def load(self) -> None:
        for name in self.packages:
            importlib.import_module(name)


@contextmanager
def serial(job: Job, num_workers: int) -> Iterator[Epoch]:
    yield lambda: (job[i] for i in range(len(job)))


def ours(
    executor: Literal["process", "thread"], num_workers_always: int | None = None, seed: int | None = None
) -> Open:
    @contextmanager
    def open_prefetch(job: Job, num_workers: int) -> Iterator[Epoch]:
        import workers

        count = num_workers if num_workers_always is None else num_workers_always
        with workers.prefetch(job, nb_workers=count, executor=executor, seed=seed) as batches:
            yield lambda: iter(batches)

    return open_prefetch


_held: Job  # in a process of multiprocessing.Pool


def _hold(job: Job) -> None:
    global _held
    _held = job


def _fetch(index: int) -> Any:
    return _held[index]


def pool(chunksize: int) -> Open:
    @contextmanager
    def open_pool(job: Job, num_workers: int) -> Iterator[Epoch]:
        with multiprocessing.Pool(num_workers, initializer=_hold, initargs=(job,)) as processes:
            yield lambda: processes.imap(_fetch, range(len(job)), chunksize)

    return open_pool


def _as_it_is(batch: Any) -> Any:
    return batch


def torch(collate_fn: Callable[[Any], Any] | None) -> Open:
    """Return the adapter of a DataLoader of ready batches (``batch_size=None``). Without ``collate_fn``: of tensors."""

    @contextmanager
    def open_torch(job: Job, num_workers: int) -> Iterator[Epoch]:
        from torch.utils.data import DataLoader

        loader: Any = DataLoader(
            job,  # type: ignore[arg-type,unused-ignore]  # torch asks for a subclass, but needs none
            batch_size=None,
            num_workers=num_workers,
            collate_fn=collate_fn,
            persistent_workers=True,
        )
        yield lambda: iter(loader)

    return open_torch


@contextmanager
def grain(job: Job, num_workers: int) -> Iterator[Epoch]:
    import grain
    from absl import flags

    flags.FLAGS(["benchmark"])  # Grain needs absl's flags to be parsed
    # No threads, and no buffer of 500 elements in each worker, as its manual recommends for data in memory.
    reading = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    dataset = grain.MapDataset.source(job).to_iter_dataset(reading)
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=2))
    with epochs_of_grain(dataset) as epoch:
        yield epoch


@contextmanager
def epochs_of_grain(dataset: Any) -> Iterator[Epoch]:
    """Open epochs of ``dataset`` one after the other, and close each before the next begins."""
    started: list[Any] = []

    def epoch() -> Iterator[Any]:
        for old in started:
            old.close()
        started[:] = [iter(dataset)]
        return started[0]  # type: ignore[no-any-return]

    yield epoch
    for last in started:
        last.close()


@contextmanager
def keras(job: Any, num_workers: int) -> Iterator[Epoch]:
    """Open the enqueuer that ``fit`` uses for ``workers=2, use_multiprocessing=True``, without a model."""
    from keras.src.trainers.data_adapters import py_dataset_adapter as adapter

    class Dataset(adapter.PyDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(job)

        def __getitem__(self, index: int) -> Any:
            return job[index]

    dataset = Dataset(workers=num_workers, use_multiprocessing=True)
    enqueuer = adapter.OrderedEnqueuer(dataset, workers=num_workers, use_multiprocessing=True)

    def epoch() -> Iterator[Any]:
        enqueuer.stop()
        enqueuer.start()
        return islice(enqueuer.get(), len(job))

    yield epoch
    enqueuer.stop()


CHUNK = 64

LOADERS = {
    loader.key: loader
    for loader in (
        Loader("serial", "serial loop", serial),
        Loader("process", "workers.prefetch, processes", ours("process"), ("workers",)),
        Loader("seeded", "workers.prefetch, processes", ours("process", seed=1), ("workers",)),
        Loader("thread", "workers.prefetch, threads", ours("thread"), ("workers",)),
        Loader("zero", "workers.prefetch, 0 workers", ours("process", 0), ("workers",)),
        Loader("pool", "multiprocessing.Pool.imap", pool(1)),
        Loader("pool_chunks", f"multiprocessing.Pool.imap, chunksize {CHUNK}", pool(CHUNK)),
        Loader("torch", "PyTorch DataLoader, numpy", torch(_as_it_is), ("torch.utils.data",)),
        Loader("torch_tensors", "PyTorch DataLoader, tensors", torch(None), ("torch.utils.data",)),
        Loader("grain", "Grain mp_prefetch", grain, ("grain",)),
        Loader("keras", "Keras OrderedEnqueuer, processes", keras, ("keras",)),
    )
}
