"""Draws of Keras: its augmentation layers, called as they are and in a traced function."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from drawing import IMAGES, Drawing

layer = keras.layers.RandomFlip()


class OfKeras(Drawing):
    def __init__(self) -> None:
        super().__init__()
        self.flip = keras.layers.RandomFlip()
        self.model = keras.Sequential([keras.layers.RandomTranslation(0.5, 0.5), keras.layers.RandomContrast(0.5)])
        self.image, self.mask = keras.layers.RandomRotation(0.3, seed=4), keras.layers.RandomRotation(0.3, seed=4)
        self.generator = keras.random.SeedGenerator(5)
        self.traced = tf.function(lambda images: self.model(images, training=True))

    def kinds(self) -> dict[str, Any]:
        images = np.concatenate([IMAGES] * 8)
        return {
            "layer": lambda: self.flip(images),
            "layer of a module": lambda: layer(images),
            "model": lambda: self.model(images, training=True),
            "model in a function": lambda: self.traced(images),
            "image": lambda: self.image(images),
            "image, then mask": lambda: self.mask(images),
            "generator": lambda: keras.random.normal([3], seed=self.generator),
            "global generator": lambda: keras.random.normal([3]),
        }

    #: Layers of the same seed.
    twins = (("image", "image, then mask"),)
