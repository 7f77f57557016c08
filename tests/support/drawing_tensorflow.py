"""Draws of TensorFlow: eager, from generators, stateless, and in traced functions."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from drawing import IMAGES, Drawing

from workers import current_seed


@tf.function
def draw_at_module_level() -> Any:
    return tf.random.uniform([])


@tf.function(jit_compile=True)
def traced_by_xla() -> Any:
    return tf.random.uniform([])


@tf.function
def stateless(seed: Any) -> Any:
    return tf.random.stateless_uniform([], seed)


@tf.function
def flip_and_crop(images: Any) -> Any:
    return tf.map_fn(
        lambda image: tf.image.random_crop(tf.image.random_flip_left_right(image), [6, 6, 3]),
        images,
        parallel_iterations=4,
    )


@tf.function
def image_and_mask() -> Any:
    """Drawn with equal seeds, so equal."""
    return tf.random.uniform([], seed=7), tf.random.uniform([], seed=7)


class OfTensorFlow(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.generator = tf.random.Generator.from_seed(1)
        self.split = tf.random.Generator.from_seed(2).split(2)
        self.of_function = tf.random.Generator.from_seed(3)

    @tf.function
    def traced(self) -> Any:
        return tf.random.uniform([])

    @tf.function
    def from_generators(self) -> Any:
        return self.of_function.normal([3]), tf.random.get_global_generator().normal([3])

    def image_and_mask(self) -> Any:
        image, mask = image_and_mask()
        assert image == mask
        return image

    def kinds(self) -> dict[str, Any]:
        return {
            "uniform": lambda: tf.random.uniform([3]),
            "uniform again": lambda: tf.random.uniform([3]),
            "integers": lambda: tf.random.uniform([3], 0, 2**31 - 1, tf.int32),
            "normal": lambda: tf.random.normal([3], 5.0),
            "truncated normal": lambda: tf.random.truncated_normal([3]),
            "gamma": lambda: tf.random.gamma([3], [1.0, 2.0]),
            "poisson": lambda: tf.random.poisson([30], [10.0, 20.0]),
            "categorical": lambda: tf.random.categorical([[1.0, 1.0, 1.0]], 60),
            "shuffle": lambda: tf.random.shuffle(tf.range(50)),
            "with a seed": lambda: tf.random.uniform([3], seed=5),
            "with the same seed": lambda: tf.random.uniform([3], seed=5),
            "box": lambda: tf.image.sample_distorted_bounding_box([99, 99, 3], [[[0.0, 0.0, 1.0, 1.0]]]).begin,
            "image": lambda: tf.image.random_crop(tf.image.random_hue(IMAGES, 0.5), [4, 5, 5, 3]),
            "dropout": lambda: tf.nn.dropout(tf.ones(50), 0.5),
            "dataset": lambda: list(tf.data.Dataset.range(50).shuffle(50).as_numpy_iterator()),
            "global generator": lambda: tf.random.get_global_generator().normal([3]),
            "generator": lambda: self.generator.normal([3]),
            "split generator": lambda: self.split[1].normal([3]),
            "generators in a function": lambda: tf.concat(self.from_generators(), 0),
            "stateless": lambda: tf.random.stateless_uniform([3], current_seed()),
            "stateless in a function": lambda: stateless(current_seed()),
            "stateless image": lambda: tf.image.stateless_random_brightness(IMAGES, 0.5, current_seed()),
            "traced method": self.traced,
            "traced at module level": draw_at_module_level,
            "traced with a seed": self.image_and_mask,
            "traced by XLA": traced_by_xla,
            "traced map_fn": lambda: flip_and_crop(IMAGES),
            "traces": stateless.experimental_get_tracing_count,
        }

    #: What TensorFlow cannot give the same numbers again.
    only_alive = "traced method", "traced at module level", "traced with a seed", "traced map_fn"
    no_draws = ("traces",)
