"""The choices of ``nb_workers="auto"``, compared with the best fixed number of workers, found by trying all.

Each loop is timed as a whole, from the creation of the pool on, and in its second half, when everything has settled.
The plain loop calls the sequence's own method for each index.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks import command, core
from benchmarks.core import Numbers, Round, Settings, Target, Way
from sampler import load_image
from workers import limits

_FIXED = ("0", "1", "2", "4", "8")
_LENGTH = 10**7


class Work(NamedTuple):
    """The jobs and the loop of a workload; times in seconds."""

    job: float = 0.0  # a job computes
    kind: str = ""  # what a job does besides: see ``KINDS``
    tenth: float = 0.0  # every tenth job computes, instead of ``job``
    after: int = 0  # from the batch of this number on, a job computes ten times as long; 0: never
    blas: bool = False  # the loop multiplies two matrices in each step
    waiting: float = 0.0  # a job waits for something else
    step: float = 0.0  # the loop computes
    pause: float = 0.0  # the loop waits for an accelerator
    burst: int = 1  # batches between two pauses
    shape: tuple[int, ...] = (1024,)
    epoch: int = _LENGTH  # batches in an epoch
    module: str = ""  # imported by the sequence's module
    cores: int = 0  # cores that the program may use; 0: all
    is_fit: bool = False  # model.fit of a small model instead of the loop
    keeps: int = 0  # bytes held by each process that runs jobs
    memory: int = 0  # bytes that all processes may use; 0: no limit


WORKLOADS = {
    "light": ("light jobs: 1 ms, and a step of 4 ms", Work(job=0.001, step=0.004)),
    "heavy": ("heavy jobs: 10 ms, and a step of 1 ms", Work(job=0.01, step=0.001)),
    "even": ("as long as each other: 5 ms and 5 ms", Work(job=0.005, step=0.005)),
    "bursty": ("50 batches at once, then 0.2 s of pause", Work(job=0.004, pause=0.2, burst=50)),
    "slow": ("a slow loop: jobs of 5 ms, an accelerator for 50 ms", Work(job=0.005, pause=0.05)),
    "tiny": ("tiny batches: 4 KB that take 5 us", Work()),
    "small": ("small jobs: 0.2 ms", Work(job=0.0002)),
    "waiting": ("jobs that wait 20 ms for a network", Work(waiting=0.02, step=0.001)),
    "large": ("38.5 MB", Work(shape=(64, 224, 224, 3))),
    "short": ("short epochs: 20 batches of 2 ms", Work(job=0.002, step=0.001, epoch=20)),
    "tensorflow": ("a module that imports TensorFlow: jobs of 5 ms", Work(job=0.005, module="tensorflow")),
    "core": ("one core: jobs of 5 ms, an accelerator for 5 ms", Work(job=0.005, pause=0.005, cores=1)),
    "crowded": ("one core: jobs of 5 ms, a step of 5 ms", Work(job=0.005, step=0.005, cores=1)),
    "memory": (
        "1.5 GB of memory, 200 MB a worker: jobs that wait 20 ms",
        Work(waiting=0.02, step=0.001, keeps=200 << 20, memory=1500 << 20),
    ),
    "view": ("4 KB that take 1 us, no step", Work(kind="view")),
    "equal": ("3 ms of Python beside 3 ms of Python", Work(job=0.003, step=0.003)),
    "tenth": ("every tenth job 50 ms, others 1 ms, a step of 2 ms", Work(job=0.001, tenth=0.05, step=0.002)),
    "growing": ("jobs of 1 ms that become 10 ms after 300", Work(job=0.001, after=300)),
    "five": ("epochs of 5 batches of 5 ms", Work(job=0.005, epoch=5)),
    "waits": ("waits of 5 ms", Work(waiting=0.005)),
    "photos": ("8 photos", Work(kind="photo")),
    "gather": ("gather of 4 MB", Work(kind="gather")),
    "pauses": ("jobs of 5 ms, and after 100 batches a pause of 1 s", Work(job=0.005, pause=1.0, burst=100)),
    "zlib": ("1 MB packed by zlib", Work(kind="zlib")),
    "blas": ("BLAS beside BLAS", Work(kind="blas", blas=True)),
    "fit": ("model.fit of a small model: jobs of 3 ms", Work(job=0.003, is_fit=True, shape=(32, 64), epoch=200)),
}


_SIZE = 600  # of the matrices of "blas"
_PART = 1 << 20  # bytes that "zlib" packs, and items that "gather" picks


@functools.cache
def _data(kind: str) -> Any:
    rng = np.random.default_rng(0)
    if kind == "zlib":
        return rng.integers(0, 9, _PART, np.uint8).tobytes()
    if kind == "gather":
        return rng.random(8 * _PART).astype(np.float32), rng.integers(0, 8 * _PART, (16, _PART))
    if kind == "blas":
        return rng.random((_SIZE, _SIZE)).astype(np.float32)
    if kind == "photo":
        pixels = np.kron(rng.integers(0, 256, (12, 16, 3)), np.ones((32, 32, 1))).astype(np.uint8)
        packed = io.BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=95)
        return packed.getvalue()
    return np.zeros(1024, np.float32)


def _photos() -> Any:
    return np.stack([load_image(_data("photo"), size=(224, 224)) for _ in range(8)])


#: {what a job can do: a function of its index}.
KINDS: dict[str, Callable[[int], Any]] = {
    "view": lambda index: _data("view"),
    "zlib": lambda index: np.frombuffer(zlib.compress(_data("zlib"), 1), np.uint8),
    "gather": lambda index: _data("gather")[0][_data("gather")[1][index % 16]],
    "blas": lambda index: _data("blas") @ _data("blas"),
    "photo": lambda index: _photos(),
}


def compute(seconds: float) -> None:
    """Keep a core busy for this time."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def sequence(work: Work) -> Any:
    """Return the workload as a Sequence."""
    from workers import Sequence

    class Workload(Sequence[Any]):
        kept: Any = None

        def __getstate__(self) -> dict[str, Any]:
            return {**self.__dict__, "kept": None}

        def __len__(self) -> int:
            return work.epoch

        def __getitem__(self, index: int) -> Any:
            if work.keeps and self.kept is None:
                self.kept = np.ones(work.keeps, np.uint8)
            grown = 10 if work.after and index >= work.after else 1
            if work.job:
                compute(work.tenth if work.tenth and index % 10 == 0 else grown * work.job)
            if work.waiting:
                time.sleep(work.waiting)
            if work.kind:
                return KINDS[work.kind](index)
            batch = np.full(work.shape, index, np.float32)
            return (batch, np.zeros(len(batch), np.int32)) if work.is_fit else batch

    if work.module:
        importlib.import_module(work.module)
        Workload.module = importlib.import_module(work.module)  # type: ignore[attr-defined]
    return Workload(seed=1)


def _loop(batches: Any, work: Work, until: float) -> Iterator[float]:
    """Yield the time at which each batch was received and processed."""
    number = 0
    while True:
        for _ in batches:
            number += 1
            if work.step:
                compute(work.step)
            if work.blas:
                _data("blas") @ _data("blas")
            if work.pause and number % work.burst == 0:
                time.sleep(work.pause)
            now = time.perf_counter()
            yield now
            if now > until:
                return


class _Over(Exception):
    """Raised when the time of a fit is over."""


def _fit(batches: Any, until: float) -> list[float]:
    """Return the time at which each step of a fit ended."""
    import keras

    times: list[float] = []

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            times.append(time.perf_counter())
            if times[-1] > until:
                raise _Over

    layers = keras.layers
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with contextlib.suppress(_Over):
        model.fit(batches, epochs=1000, verbose=0, callbacks=[Clock()], shuffle=False)
    return times


class Plain:
    """The plain loop: the sequence's own method, called for one index after the other, and nothing else."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        source = self.source
        get = type(source).__getitem__.__wrapped__
        return (get(source, index) for index in range(len(source)))


def _serial(source: Any, work: Work) -> Any:
    """Return the plain loop; for fit, which would start workers, a front-end without workers."""
    return source.prefetch(nb_workers=0) if work.is_fit else Plain(source)


def _group(nbytes: int) -> Path:
    """Make a control group with a memory limit of ``nbytes``."""
    for parent in limits.groups("memory"):
        group = Path(parent) / f"prefetch-benchmark-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            for name in ("memory.max", "memory.limit_in_bytes"):
                if (group / name).exists():
                    (group / name).write_text(str(nbytes))
                    return group
            group.rmdir()
    raise OSError("this user may make no control group whose memory is limited")


def _within(nbytes: int, measure: Callable[[], Numbers]) -> Numbers:
    """Return ``measure()`` in a control group of ``nbytes``. A fork runs it, so that the group can be removed."""
    group = _group(nbytes)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            (group / "cgroup.procs").write_text("0")
            os.write(writer, json.dumps(measure()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    for _ in range(100):  # the processes that it started end after it
        with contextlib.suppress(OSError):
            group.rmdir()
            break
        time.sleep(0.1)
    return dict(json.loads(text))


def _measure(work: Work, way: str, settings: Settings) -> Numbers:
    if not work.memory:
        return _measured(work, way, settings)
    return _within(work.memory, functools.partial(_measured, work, way, settings))


def _measured(work: Work, way: str, settings: Settings) -> Numbers:
    if work.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: work.cores])
    if work.is_fit:
        importlib.import_module("keras")
    source = sequence(work)
    start = time.perf_counter()
    until = start + settings.seconds
    if way == "plain":
        batches = _serial(source, work)
    else:
        batches = source.prefetch(nb_workers="auto" if way == "auto" else int(way))
    times = _fit(batches, until) if work.is_fit else list(_loop(batches, work, until))
    numbers = {"whole": len(times) / (times[-1] - start)}
    half = start + settings.seconds / 2
    late = [each for each in times if each >= half]
    numbers["settled"] = (len(late) - 1) / (late[-1] - late[0]) if len(late) > 1 else 0.0
    if way != "plain":
        numbers["workers"] = batches.report().nb_workers
        batches.close()
    return numbers


def _job(key: str, label: str, work: Work) -> core.Job:
    labels = {"plain": "plain loop", **{each: f"nb_workers={each}" for each in _FIXED}, "auto": 'nb_workers="auto"'}
    ways = {way: Way(text, functools.partial(_measure, work, way)) for way, text in labels.items()}
    return core.Job(label, ways)


JOBS = {key: _job(key, label, work) for key, (label, work) in WORKLOADS.items()}
NAMES = {"whole": "batches/s, whole loop", "settled": "second half", "workers": "workers at the end"}


def _of_best(job: str) -> Callable[[Round], float]:
    return lambda r: r(job, "auto", "settled") / r.best(job, _FIXED, "settled")


def _of_best_whole(job: str) -> Callable[[Round], float]:
    return lambda r: r(job, "auto", "whole") / r.best(job, _FIXED, "whole")


def _of_plain(job: str) -> Callable[[Round], float]:
    return lambda r: r(job, "auto", "whole") / r(job, "plain", "whole")


def _more(job: str) -> Callable[[Round], float]:
    """Return how many workers auto has more than the least fixed number within 5 % of the best rate."""

    def more(r: Round) -> float:
        best = r.best(job, _FIXED, "settled")
        enough = [int(way) for way in _FIXED if r(job, way, "settled") >= 0.95 * best]
        return r(job, "auto", "workers") - min(enough)

    return more


_LEAST = {"view": 0.3}  # of the plain loop
TARGETS = (
    *[Target(f"{key}: settled, x the best fixed number", _of_best(key), ">=", 0.95) for key in WORKLOADS],
    *[Target(f"{key}: whole, x the best fixed number", _of_best_whole(key), ">=", 0.95) for key in WORKLOADS],
    *[Target(f"{key}: whole, x the plain loop", _of_plain(key), ">=", _LEAST.get(key, 1.0)) for key in WORKLOADS],
    *[Target(f"{key}: workers more than the best fixed number", _more(key), "<=", 0) for key in WORKLOADS],
)

SUITE = core.Suite(__file__, JOBS, NAMES, TARGETS)

if __name__ == "__main__":
    command.main(SUITE, command.parser_of(SUITE, __doc__, seconds=8.0, deadline_s=120.0))
