"""The memory of the processes while a loop runs, and the cost of starting them if the sequence's module imports much.

Each page counts once: a page shared by n processes counts 1/n in each. ``at most``: the sum of the peaks of all
processes, with shared pages counted in each.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import command, core
from benchmarks.core import Numbers, Round, Settings, Target, Way
from benchmarks.processes import megabytes_of_processes

HELD = 400_000_000  # bytes
_PATHS = 1_000_000
_KEPT = 1_000  # batches
_IMPORTS = "tensorflow", "torch", "albumentations"
_MANY = 4  # workers, for modules that import much


def _held() -> Any:
    return np.ones((HELD // 4000, 1000), np.float32)


def _mb(before: float = 0.0) -> Numbers:
    me = psutil.Process()
    numbers = megabytes_of_processes(me.pid, HELD)
    most = 0
    for process in (me, *me.children(recursive=True)):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                most += 1024 * int(line.split()[1])
    return {
        "all_mb": numbers["all_mb"] - before,
        "workers_uss_mb": numbers["workers_uss_mb"],
        "in_shared_mb": numbers["arrays_in_shared_memory"] * HELD / 1e6,
        "most_mb": most / 1e6,
    }


def _read(batches: Any, number: int = 300) -> None:
    for _ in itertools.islice(batches, number):
        pass


def _sampler() -> Any:
    from sampler import SingleShotMemorySampler

    return SingleShotMemorySampler(_held(), None, class_per_batch=8, steps_per_epoch=300, seed=1)


def two_front_ends(settings: Settings) -> Numbers:
    """Measure two front-ends of a sampler that holds an array, and what is left once they are closed."""
    import workers

    with workers.prefetch(range(100), 1) as batches:  # imports everything
        _read(batches)
    before = _mb()["all_mb"]
    sampler = _sampler()
    with sampler.prefetch(2) as one, sampler.prefetch(2) as other:
        _read(one)
        _read(other)
        numbers = _mb()
    del one, other
    return {**numbers, "after_close_mb": _mb()["all_mb"] - before - HELD / 1e6}


def shared(settings: Settings) -> Numbers:
    """Measure a user's sequence that holds an array of ``workers.share``."""
    import workers
    from benchmarks.jobs import Holding

    job = Holding(300)
    job.held = workers.share(job.held)
    with workers.prefetch(job, 2) as one, workers.prefetch(job, 2) as other:
        _read(one)
        _read(other)
        return _mb()


def forked_loader(settings: Settings) -> Numbers:
    """Measure a DataLoader with forked workers, which read the array in their parent's memory."""
    from torch.utils.data import DataLoader

    x = _held()

    class Rows:
        def __len__(self) -> int:
            return 300

        def __getitem__(self, index: int) -> Any:
            return x[32 * index : 32 * index + 32]

    loader: Any = DataLoader(Rows(), batch_size=None, num_workers=2, persistent_workers=True)  # type: ignore[arg-type,unused-ignore]
    loop = iter(loader)
    _read(loop, 250)
    return _mb()


def _paths() -> list[str]:
    return [f"/data/imagenet/train/n{at % 1000:08d}/n{at % 1000:08d}_{at}.JPEG" for at in range(_PATHS)]


def _length(path: Any) -> Any:
    return np.full(4, len(path))


def paths(number: int, settings: Settings) -> Numbers:
    """Measure ``number`` paths in a sampler: the median start of ten epochs, and the memory of the processes."""
    from sampler import SingleShotMemorySampler

    names = _paths()[:number]
    sampler = SingleShotMemorySampler(names, None, 4, 100, load_example_fn=_length, seed=1)
    with sampler.prefetch(2) as batches:
        starts = []
        for _ in range(10):
            _read(batches)
            start = time.perf_counter()
            next(iter(batches))
            starts.append(time.perf_counter() - start)
            batches.epoch += 1
        return {"epoch_start_ms": 1e3 * sorted(starts)[len(starts) // 2], **_mb()}


def paths_forked(settings: Settings) -> Numbers:
    from torch.utils.data import DataLoader

    names = _paths()

    class Lengths:
        def __len__(self) -> int:
            return _PATHS

        def __getitem__(self, index: int) -> Any:
            return _length(names[index])

    loader: Any = DataLoader(Lengths(), batch_size=1000, num_workers=2, shuffle=True)  # type: ignore[arg-type,unused-ignore]
    loop = iter(loader)
    _read(loop, 500)
    return _mb()


class Labelled:
    """Batches of 10 MB of images and 512 bytes of labels."""

    def __len__(self) -> int:
        return _KEPT

    def __getitem__(self, index: int) -> Any:
        return np.full((64, 156_250), index % 200, np.uint8), np.full(64, index)


def labels_kept(make: Callable[[], Any], settings: Settings) -> Numbers:
    """Measure how much the memory grows during a loop that keeps the labels of each batch."""
    labels, loop = [], iter(make())
    before = 0.0
    for number in range(_KEPT):
        labels.append(next(loop)[1])
        if number == 50:
            before = _mb()["all_mb"]
    return {"kept_mb": _mb()["all_mb"] - before}


def _labelled_here() -> Any:
    import workers

    return workers.prefetch(Labelled(), 2)


def _labelled_loader() -> Any:
    from torch.utils.data import DataLoader

    return DataLoader(Labelled(), batch_size=None, num_workers=2)  # type: ignore[arg-type,unused-ignore]


class Pairs:
    """The samples of an array or a tensor, and their labels."""

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index], self.y[index]


def _rows(number: int = HELD // 4000) -> Pairs:
    return Pairs(np.ones((number, 1000), np.float32), np.arange(number))


def _tensors(number: int = HELD // 4000) -> Pairs:
    import torch

    rows = _rows(number)
    return Pairs(torch.from_numpy(rows.x), torch.from_numpy(rows.y))


def samples(make: Callable[[], Pairs], settings: Settings) -> Numbers:
    """Measure the first batch of a loop over samples, those of later epochs, and the memory of the processes."""
    import workers

    with workers.prefetch(_tensors(100), 1) as batches:  # imports everything, also in the server
        _read(batches)
    pairs, start = make(), time.perf_counter()
    with workers.prefetch(pairs, 2, batch_size=32) as batches:
        return _epochs(batches, start)


def samples_of_loader(settings: Settings) -> Numbers:
    from torch.utils.data import DataLoader

    pairs, start = _tensors(), time.perf_counter()
    loader: Any = DataLoader(pairs, 32, num_workers=2, persistent_workers=True)  # type: ignore[arg-type,unused-ignore]
    return _epochs(loader, start)


def _epochs(batches: Any, start: float) -> Numbers:
    gaps = []
    for _ in range(8):
        loop = iter(batches)
        next(loop)
        gaps.append(time.perf_counter() - start)
        _read(loop, 100)
        del loop
        start = time.perf_counter()
    loop = iter(batches)
    _read(loop, 100)
    return {"first_s": gaps[0], "epoch_start_ms": 1e3 * sorted(gaps[1:])[len(gaps) // 2], **_mb()}


def imports(name: str, settings: Settings) -> Numbers:
    """Measure a sequence whose module imports ``name``: first batches, and the private memory of a worker."""
    import workers

    folder = settings.given["folder"]
    Path(folder, f"imports_{name}.py").write_text(
        f"import numpy as np\nimport {name}\n\n\nclass Job:\n    def __len__(self):\n        return 1000\n\n"
        "    def __getitem__(self, index):\n        return np.full(1000, index)\n"
    )
    sys.path.insert(0, folder)
    start = time.perf_counter()
    module = importlib.import_module(f"imports_{name}")
    numbers = {"one_import_s": time.perf_counter() - start}
    for which in ("first", "second"):
        start = time.perf_counter()
        with workers.prefetch(module.Job(), _MANY) as batches:
            loop = iter(batches)
            next(loop)
            numbers[f"{which}_pool_s"] = time.perf_counter() - start
            _read(loop, 100)
            (server,) = psutil.Process().children()
            before = {worker.pid for worker in server.children()}
            numbers["private_mb"] = max(worker.memory_full_info().uss for worker in server.children()) / 1e6
            start = time.perf_counter()
            server.children()[0].kill()
            while not ({worker.pid for worker in server.children()} - before):
                time.sleep(0.001)
            _read(loop, 100)
            numbers["successor_s"] = time.perf_counter() - start
    return numbers


def _way(label: str, measure: Callable[[Settings], Numbers], *packages: str) -> Way:
    return Way(label, measure, packages)


JOBS = {
    "array": core.Job(
        "400 MB",
        {
            "sampler": _way("a sampler, two front-ends, 2 workers each", two_front_ends),
            "share": _way("workers.share, two front-ends, 2 workers each", shared),
            "fork": _way("DataLoader, forked, 2 workers", forked_loader, "torch"),
        },
    ),
    "paths": core.Job(
        "1,000,000 paths",
        {
            "few": _way("a sampler of 500", functools.partial(paths, 500)),
            "sampler": _way("a sampler", functools.partial(paths, _PATHS)),
            "fork": _way("DataLoader, forked", paths_forked, "torch"),
        },
    ),
    "labels": core.Job(
        f"labels of {_KEPT:,} batches of 10 MB are kept",
        {
            "here": _way("here", functools.partial(labels_kept, _labelled_here)),
            "loader": _way("PyTorch DataLoader", functools.partial(labels_kept, _labelled_loader), "torch"),
        },
    ),
    "samples": core.Job(
        "samples of 400 MB",
        {
            "numpy": _way("of an array", functools.partial(samples, _rows)),
            "torch": _way("of a tensor", functools.partial(samples, _tensors), "torch"),
            "fork": _way("of a tensor, PyTorch DataLoader, forked", samples_of_loader, "torch"),
        },
    ),
    "imports": core.Job(
        f"a module that imports, {_MANY} workers",
        {name: _way(name, functools.partial(imports, name), name) for name in _IMPORTS},
    ),
}
NAMES = {
    "all_mb": "all, MB",
    "workers_uss_mb": "private to workers, MB",
    "in_shared_mb": "in shared memory, MB",
    "most_mb": "at most, MB",
    "after_close_mb": "after close(), beside the array, MB",
    "kept_mb": "more at the end, MB",
    "first_s": "first batch, s",
    "epoch_start_ms": "an epoch's first batch, ms",
    "one_import_s": "one import, s",
    "first_pool_s": "first batch, s",
    "second_pool_s": "of a second pool, s",
    "private_mb": "private to a worker, at most, MB",
    "successor_s": "after a kill, s",
}


def _imports(name: str) -> tuple[Target, ...]:
    def first(r: Round) -> float:
        return r("imports", name, "first_pool_s") - 1.2 * r("imports", name, "one_import_s")

    def of(number: str) -> Callable[[Round], float]:
        return lambda r: r("imports", name, number)

    return (
        Target(f"{name}: private to a worker, MB", of("private_mb"), "<=", 60),
        Target(f"{name}: first batch less 1.2 x one import, s", first, "<=", 0.5),
        Target(f"{name}: first batch of a second pool, s", of("second_pool_s"), "<=", 0.5),
        Target(f"{name}: after a kill, s", of("successor_s"), "<=", 0.5),
    )


def _of_array(number: str, r: Round) -> float:
    return r("samples", "torch", number) / r("samples", "numpy", number)


TARGETS = (
    Target("400 MB, two front-ends, all, MB", lambda r: r("array", "sampler", "all_mb"), "<=", 560),
    Target("400 MB, after close(), MB", lambda r: r("array", "sampler", "after_close_mb"), "<=", 15),
    Target("1,000,000 paths, an epoch's first batch, ms", lambda r: r("paths", "sampler", "epoch_start_ms"), "<=", 5),
    Target(
        "1,000,000 paths, private to a worker, more than for 500, MB",
        lambda r: (r("paths", "sampler", "workers_uss_mb") - r("paths", "few", "workers_uss_mb")) / 2,
        "<=",
        15,
    ),
    Target("labels of 1,000 batches of 10 MB, MB", lambda r: r("labels", "here", "kept_mb"), "<=", 20),
    *[
        Target(f"samples of a tensor, of those of an array: {name}", functools.partial(_of_array, number), "<=", 1.2)
        for number, name in {"first_s": "first batch", "epoch_start_ms": "an epoch's first", "all_mb": "memory"}.items()
    ],
    *[target for name in _IMPORTS for target in _imports(name)],
)

SUITE = core.Suite(__file__, JOBS, NAMES, TARGETS)

if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    command.main(SUITE, command.parser_of(SUITE, __doc__, seconds=1.0, deadline_s=300.0))
