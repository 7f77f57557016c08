"""The cost of random functions of TensorFlow, Keras, torch and JAX in a worker, compared with a plain loop.

Each function computes the same batch over and over: in a plain loop without this project, with nb_workers=0, and in 1
and 2 workers. A row for each function, in milliseconds a batch; all ways in turn, in one process a round. The
functions:

- SimCLR: TensorFlow Similarity's augmenter, a view of 32 images of 32 x 32 x 3 (``--similarity``: the folder made by
  ``pip download --no-deps tensorflow-similarity`` and ``unzip``; without it, the row is left out).
- the same augmentations, stateless, with ``current_seed()``, so with the same numbers on any number of workers.
- a traced function that draws nothing.
- 32 eager draws of TensorFlow.
- layers of Keras, in a traced function.
- torch: crops and noise. JAX: a compiled function with a key.
"""

from __future__ import annotations

import functools
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np

from benchmarks import command, core
from benchmarks.core import Numbers, Settings, Way
from workers import Sequence, current_seed

IMAGES = np.random.default_rng(0).integers(0, 255, (32, 32, 32, 3), np.uint8)


def simclr(folder: str) -> Callable[[], Any]:
    """Return SimCLR from the augmenter's own modules alone, because the whole package needs an older Keras."""
    import tensorflow as tf

    for name in ("", ".augmenters", ".augmenters.augmentation_utils", ".types"):
        module: Any = types.ModuleType(f"tensorflow_similarity{name}")
        module.__path__ = [str(Path(folder, *module.__name__.split(".")))]
        module.Augmenter, module.Tensor = object, tf.Tensor
        sys.modules[module.__name__] = module
    from tensorflow_similarity.augmenters.simclr import SimCLRAugmenter

    for name, module in list(sys.modules.items()):
        if name.startswith("tensorflow_similarity"):
            cloudpickle.register_pickle_by_value(module)  # workers cannot import it either
    augmenter = SimCLRAugmenter(32, 32)
    return lambda: augmenter.augment(IMAGES, None, 1, False)


def stateless() -> Callable[[], Any]:
    """Return the augmentations of SimCLR, by operations that take their seed from the job."""
    import tensorflow as tf

    def view(arguments: Any) -> Any:
        image, seed = arguments
        seeds = tf.unstack(tf.random.split(seed, 6))
        image = tf.image.stateless_random_crop(image, [24, 24, 3], seeds[0])
        image = tf.image.resize(image, [32, 32])
        image = tf.image.stateless_random_flip_left_right(image, seeds[1])
        image = tf.image.stateless_random_brightness(image, 0.4, seeds[2])
        image = tf.image.stateless_random_contrast(image, 0.6, 1.4, seeds[3])
        image = tf.image.stateless_random_saturation(image, 0.6, 1.4, seeds[4])
        return tf.clip_by_value(tf.image.stateless_random_hue(image, 0.1, seeds[5]), 0.0, 1.0)

    @tf.function  # type: ignore[untyped-decorator]
    def views(images: Any, seed: Any) -> Any:
        images = tf.cast(images, tf.float32) / 255.0
        seeds = tf.random.split(seed, tf.shape(images)[0])
        return tf.map_fn(view, (images, seeds), fn_output_signature=tf.float32, parallel_iterations=os.cpu_count())

    return lambda: views(IMAGES, current_seed())


def no_draws() -> Callable[[], Any]:
    import tensorflow as tf

    @tf.function  # type: ignore[untyped-decorator]
    def resized(images: Any) -> Any:
        return tf.image.adjust_contrast(tf.image.resize(images, [48, 48]), 1.2)

    return lambda: resized(IMAGES)


def eager() -> Callable[[], Any]:
    import tensorflow as tf

    return lambda: [tf.random.uniform([4]) for _ in range(32)]


def layers() -> Callable[[], Any]:
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.layers.RandomFlip(), keras.layers.RandomContrast(0.3)])

    @tf.function  # type: ignore[untyped-decorator]
    def augmented(images: Any) -> Any:
        return model(tf.cast(images, tf.float32), training=True)

    return lambda: augmented(IMAGES)


def torch() -> Callable[[], Any]:
    import torch

    torch.set_num_threads(1)

    def augmented() -> Any:
        x = torch.tensor(IMAGES, dtype=torch.float32)
        crops = [x[i, a : a + 24, b : b + 24] for i, (a, b) in enumerate(torch.randint(0, 8, (32, 2)).tolist())]
        crop = torch.stack(crops)
        return crop + torch.randn_like(crop)

    return augmented


def jax() -> Callable[[], Any]:
    import jax

    @jax.jit
    def augmented(images: Any, key: Any) -> Any:
        return images / 255 + jax.random.normal(key, images.shape)

    return lambda: augmented(IMAGES, jax.random.key(current_seed()[0]))


class Batches(Sequence):
    """The batches of the function that ``make()`` returns. Each worker makes it once, and keeps it."""

    def __init__(self, make: Callable[[], Callable[[], Any]], length: int) -> None:
        super().__init__(seed=1)
        self.make = make
        self.length = length
        self.compute: Callable[[], Any] | None = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        self.compute = self.compute or self.make()
        return self.compute()


def measure(make: Callable[..., Callable[[], Any]], settings: Settings, *options: str) -> Numbers:
    """Return the milliseconds a batch of each way in turn."""
    made = functools.partial(make, *[settings.given[name] for name in options])
    compute = made()
    compute()
    start = time.perf_counter()
    for _ in range(5):
        compute()
    length = max(20, int(settings.seconds * 5 / (time.perf_counter() - start)))

    def plain() -> None:
        for _ in range(length):
            for each in [compute()]:
                np.asarray(each[0])  # waits until it is computed

    def loop(front: Any) -> None:
        for _ in front:
            pass

    fronts = [Batches(made, length).prefetch(nb_workers) for nb_workers in (0, 1, 2)]
    ways = {"plain_ms": plain}
    ways |= {f"workers{n}_ms": functools.partial(loop, front) for n, front in enumerate(fronts)}
    for way in ways.values():  # starts the workers, and traces
        way()
    found = {}
    for name, way in ways.items():
        start = time.perf_counter()
        way()
        found[name] = 1e3 * (time.perf_counter() - start) / length
    for front in fronts:
        front.close()
    return {**found, "of_plain": found["workers1_ms"] / found["plain_ms"]}


def _similarity(settings: Settings) -> Numbers:
    if not settings.given["similarity"]:
        raise ValueError("--similarity was not given")
    return measure(simclr, settings, "similarity")


JOBS = {
    "frameworks": core.Job(
        "ms a batch",
        {
            "simclr": Way("SimCLR of TensorFlow Similarity", _similarity, ("tensorflow",)),
            **{
                make.__name__: Way(label, functools.partial(measure, make), (package,))
                for make, label, package in (
                    (stateless, "SimCLR, stateless, by current_seed()", "tensorflow"),
                    (no_draws, "tf.function that draws nothing", "tensorflow"),
                    (eager, "32 eager draws of TensorFlow", "tensorflow"),
                    (layers, "Keras layers in a tf.function", "keras"),
                    (torch, "torch", "torch"),
                    (jax, "JAX", "jax"),
                )
            },
        },
    )
}
NAMES = {
    "plain_ms": "plain loop",
    **{f"workers{n}_ms": f"nb_workers={n}" for n in (0, 1, 2)},
    "of_plain": "1 worker / plain loop",
}
SUITE = core.Suite(__file__, JOBS, NAMES)

if __name__ == "__main__":
    parser = command.parser_of(SUITE, __doc__, seconds=1.0, deadline_s=300.0)
    parser.add_argument("--similarity", metavar="FOLDER", help="where tensorflow-similarity was unpacked")
    command.main(SUITE, parser, given=["similarity"])
