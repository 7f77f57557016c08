"""The time of the samplers for a batch and for their creation, beside TensorFlow Similarity; and of ``model.fit``.

The two need different versions of TensorFlow: ``--theirs`` names a Python with tensorflow-similarity 0.17
(``python3.11 -m venv t; t/bin/pip install tensorflow-cpu==2.15.* tensorflow-similarity==0.17.*
tensorflow-datasets==4.9.4 "tensorflow-metadata<1.16"``). Each is measured in a fresh process, in turn, round after
round.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import command, core
from benchmarks.core import Numbers, Round, Settings, Target, Way

STEPS_OF_FIT = 300


def data() -> tuple[Any, Any]:
    """Return 60,000 images in 10 classes."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (60_000, 28, 28), np.uint8), rng.permutation(np.arange(60_000) % 10)


def per_call_us(generate_batch: Callable[[int], Any], seconds: float) -> float:
    """Return the microseconds a call for batch after batch, as the median of ten stretches."""
    generate_batch(0)
    stretches, batch_id = [], 0
    for _ in range(10):
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds / 10:
            batch_id = (batch_id + 1) % 1000
            generate_batch(batch_id)
            calls += 1
        stretches.append((time.perf_counter() - start) / calls)
    return 1e6 * statistics.median(stretches)


def built_s(build: Callable[[], Any]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        build()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def identity(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    return x, y


def ours(settings: Settings) -> Numbers:
    from sampler import MultiShotMemorySampler, SingleShotMemorySampler

    x, y = data()

    def build() -> Any:
        return MultiShotMemorySampler(x, y, 10, 8, seed=1)

    built = built_s(build)
    tracemalloc.start()
    multi = build()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    single = SingleShotMemorySampler(x, identity, class_per_batch=64, seed=1)
    return {
        "single_us": per_call_us(single.generate_batch, settings.seconds),
        "multi_us": per_call_us(multi.generate_batch, settings.seconds),
        "build_s": built,
        "peak": peak / x.nbytes,
    }


def theirs(settings: Settings) -> Numbers:
    from tensorflow_similarity.samplers import MultiShotMemorySampler, SingleShotMemorySampler

    x, y = data()

    def build() -> Any:
        return MultiShotMemorySampler(x, y, classes_per_batch=10, examples_per_class_per_batch=8)

    built = built_s(build)
    single = SingleShotMemorySampler(x, identity, 64)
    return {
        "single_us": per_call_us(single.generate_batch, settings.seconds),
        "multi_us": per_call_us(build().generate_batch, settings.seconds),
        "build_s": built,
    }


def augment(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    """Augment like the job CPU-heavy of ``scripts/benchmark``, in 5 ms of scipy."""
    from scipy import ndimage

    from workers import current_rng

    rng = current_rng()
    batch = x + 0.05 * rng.standard_normal(x.shape, np.float32)
    for i in range(0, len(batch), 8):
        batch[i] = ndimage.rotate(batch[i], rng.uniform(-20, 20), reshape=False, order=1)
        batch[i + 1] = ndimage.zoom(batch[i + 1], (*rng.uniform(1, 1.2, 2), 1), order=1)[:48, :48]
        batch[i + 2] = ndimage.shift(batch[i + 2], (*rng.uniform(-3, 3, 2), 0), order=1)
        batch[i + 3] = ndimage.gaussian_filter(batch[i + 3], (1, 1, 0))
    return batch, y


def fit(settings: Settings) -> Numbers:
    """Time epochs of the same small model in turn: a plain loop, ``fit``, and ``fit`` with Keras's own processes."""
    import keras

    from sampler import SingleShotMemorySampler

    x = np.random.default_rng(0).random((1000, 48, 48, 3), np.float32)
    sampler = SingleShotMemorySampler(x, augment, 16, STEPS_OF_FIT, seed=1)

    class Own(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(workers=2, use_multiprocessing=True)

        def __len__(self) -> int:
            return len(sampler)

        def __getitem__(self, index: int) -> Any:
            return sampler[index]

    layers = keras.layers
    model = keras.Sequential([keras.Input((48, 48, 3)), layers.GlobalAveragePooling2D(), layers.Dense(1)])
    model.compile("sgd", "mse")

    def batches_per_s(epoch: Callable[[], Any]) -> float:
        start = time.perf_counter()
        epoch()
        return STEPS_OF_FIT / (time.perf_counter() - start)

    with sampler.prefetch(nb_workers=2) as batches:

        def loop() -> None:
            for x, y in batches:
                model.train_on_batch(x, y)

        ways = {"loop": loop, "fit": lambda: model.fit(batches, verbose=0), "own": lambda: model.fit(Own(), verbose=0)}
        batches_per_s(loop)
        batches_per_s(ways["fit"])
        return {f"{name}_per_s": batches_per_s(way) for name, way in ways.items()}


ORDERS: dict[str, Callable[[Any], Any]] = {
    "C": lambda x: x,
    "channels last": lambda x: np.moveaxis(x.reshape(len(x), 4, 14, 14), 1, -1),
    "slice": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "Fortran": np.asfortranarray,
}


def of_order(order: str, settings: Settings) -> Numbers:
    """Time a batch of 64 from an array of this memory order, and numpy's own indexing."""
    from sampler import MultiShotMemorySampler, SingleShotMemorySampler

    x, y = data()
    x = ORDERS[order](x)
    positions = np.random.default_rng(0).integers(0, len(x), (1000, 64))
    single = SingleShotMemorySampler(x, None, class_per_batch=64, seed=1)
    multi = MultiShotMemorySampler(x, y, 8, 8, seed=1)
    return {
        "indexing_us": per_call_us(lambda at: x[positions[at]], settings.seconds),
        "single_us": per_call_us(single.generate_batch, settings.seconds),
        "multi_us": per_call_us(multi.generate_batch, settings.seconds),
    }


JOBS = {
    "orders": core.Job(
        "64 of 60,000 images", {order: Way(order, functools.partial(of_order, order)) for order in ORDERS}
    ),
    "samplers": core.Job(
        "60,000 images of 28 x 28",
        {"ours": Way("here", ours), "theirs": Way("TensorFlow Similarity", theirs, python="theirs")},
    ),
    "fit": core.Job("model.fit, CPU-heavy augmenter", {"fit": Way("2 workers", fit, ("keras", "scipy"))}),
}
NAMES = {
    "indexing_us": "numpy's indexing, us",
    "single_us": "SingleShot, 64: us a batch",
    "multi_us": "MultiShot, 10 classes x 8: us a batch",
    "build_s": "building MultiShot, s",
    "peak": "memory for it, of that of x",
    "loop_per_s": "plain loop with train_on_batch, batches/s",
    "fit_per_s": "fit, batches/s",
    "own_per_s": "fit with Keras's own 2 processes, batches/s",
}


def _times(name: str) -> Callable[[Round], float]:
    return lambda r: r("samplers", "theirs", name) / r("samplers", "ours", name)


def _beyond(order: str, name: str) -> Callable[[Round], float]:
    return lambda r: r("orders", order, name) - 1.5 * r("orders", order, "indexing_us")


TARGETS = (
    *[
        Target(f"{order}, {label}: us beyond 1.5 x indexing", _beyond(order, name), "<=", 60)
        for order in ORDERS
        for name, label in (("single_us", "SingleShot"), ("multi_us", "MultiShot"))
    ],
    Target("SingleShot, times theirs", _times("single_us"), ">=", 300),
    Target("MultiShot, times theirs", _times("multi_us"), ">=", 5),
    Target("building MultiShot, times theirs", _times("build_s"), ">=", 10),
    Target("memory while building, of that of x", lambda r: r("samplers", "ours", "peak"), "<=", 1.1),
    Target("fit, of a plain loop", lambda r: r("fit", "fit", "fit_per_s") / r("fit", "fit", "loop_per_s"), ">=", 0.9),
    Target(
        "fit, of Keras's own processes",
        lambda r: r("fit", "fit", "fit_per_s") / r("fit", "fit", "own_per_s"),
        ">=",
        1.3,
    ),
)
SUITE = core.Suite(__file__, JOBS, NAMES, TARGETS)

if __name__ == "__main__":
    parser = command.parser_of(SUITE, __doc__, seconds=1.0, deadline_s=600.0)
    parser.add_argument("--theirs", metavar="PYTHON", default=sys.executable, help="one with tensorflow-similarity")
    command.main(SUITE, parser, given=["theirs"])
