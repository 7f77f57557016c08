#!/usr/bin/env python3
"""Trains an encoder of handwritten digits on batches that worker processes augment in the background.

The 1,797 digits come with scikit-learn; nothing is downloaded. Two augmented views of each digit are pulled together
(contrastive learning, without labels); what that is worth shows in the accuracy of a 5-nearest-neighbour classifier.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from tqdm import tqdm

from sampler import Augmenter, SingleShotMemorySampler
from workers import current_rng

SIZE = 32  # of a view, in pixels
NUM_DIGITS = 64  # in a batch; two views of each
STEPS_PER_EPOCH = 60
EPOCHS = 8
NUM_LABELLED = 200  # digits whose labels the classifier may see
TEMPERATURE = 0.2


class Views(Augmenter):
    """Random views of a digit: rotated, zoomed, shifted, blurred, with noise."""

    def augment(
        self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        rng = current_rng()  # the same draws for this batch, on whatever worker it is made
        views = [self.view(image, rng) for _ in range(num_augmentations_per_example) for image in x]
        return np.stack(views), np.tile(y, num_augmentations_per_example)

    @staticmethod
    def view(image: np.ndarray[Any, Any], rng: np.random.Generator) -> Any:
        image = upright(image)
        image = ndimage.rotate(image, rng.uniform(-15, 15), reshape=False, order=1)
        height, width = rng.uniform(0.85, 1.15, 2)
        centre = (SIZE - 1) / 2
        offset = (centre - centre / height, centre - centre / width)
        image = ndimage.affine_transform(image, (1 / height, 1 / width), offset, order=1)
        image = ndimage.shift(image, rng.uniform(-2.5, 2.5, 2), order=1)
        image = ndimage.gaussian_filter(image, rng.uniform(0.0, 1.0))
        return image + 0.05 * rng.standard_normal(image.shape, np.float32)


def upright(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An 8 x 8 digit at the size of a view."""
    return ndimage.zoom(image, SIZE / 8, order=1)


def make_encoder() -> keras.Model:
    layers = [keras.Input((SIZE, SIZE, 1))]
    for filters in (16, 32, 64):
        layers += [keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(64)])


def make_train_step(encoder: keras.Model) -> Any:
    optimizer = keras.optimizers.Adam(1e-3)

    @tf.function(jit_compile=False)  # type: ignore[untyped-decorator]
    def train_step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            z = tf.math.l2_normalize(encoder(x, training=True), axis=1)
            similarity = tf.matmul(z, z, transpose_b=True) / TEMPERATURE - 1e9 * tf.eye(len(z))
            # y says which views are of the same digit.
            positive = tf.cast(y[:, None] == y[None, :], tf.float32) - tf.eye(len(z))
            loss = -tf.reduce_mean(tf.reduce_sum(positive * tf.nn.log_softmax(similarity), axis=1))
        gradients = tape.gradient(loss, encoder.trainable_variables)
        optimizer.apply_gradients(zip(gradients, encoder.trainable_variables, strict=True))
        return loss

    return lambda x, y: train_step(tf.constant(x[..., None]), tf.constant(y))


class Stopwatch:
    """Goes through batches and notes how long it had to wait for them."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.num_batches = 0
        self.waited_s = 0.0
        self.start = time.perf_counter()

    def __iter__(self) -> Iterator[Any]:
        asked = time.perf_counter()
        for batch in self.batches:
            self.waited_s += time.perf_counter() - asked
            self.num_batches += 1
            yield batch
            asked = time.perf_counter()

    def report(self, name: str) -> None:
        seconds = time.perf_counter() - self.start
        waiting = self.waited_s / seconds
        rate = self.num_batches / seconds
        print(f"{name:<12} {rate:6.1f} batches a second, {waiting:4.0%} of the time waiting for data")


def accuracy(features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], known: Any, asked: Any) -> float:
    classifier = KNeighborsClassifier(5).fit(features[known], labels[known])
    return float(classifier.score(features[asked], labels[asked]))


def main() -> None:
    keras.utils.set_random_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 8, 8)
    order = np.random.default_rng(0).permutation(len(images))
    train, held_out = order[:1400], order[1400:]

    sampler = SingleShotMemorySampler(
        images[train], Views(), class_per_batch=NUM_DIGITS, steps_per_epoch=STEPS_PER_EPOCH, seed=0
    )
    encoder = make_encoder()
    train_step = make_train_step(encoder)
    train_step(*sampler[0])  # TensorFlow compiles the step

    print(
        f"{len(train)} digits to train on, {len(held_out)} held out; {2 * NUM_DIGITS} views of {SIZE} x {SIZE} a batch"
    )
    with sampler.prefetch(nb_workers=0) as batches:
        watch = Stopwatch(batches)
        for x, y in watch:
            train_step(x, y)
        watch.report("0 workers:")

    with sampler.prefetch(nb_workers=len(os.sched_getaffinity(0))) as batches:
        for _ in zip(range(4), batches, strict=False):
            pass  # the workers start
        watch = Stopwatch(batches)
        for x, y in watch:
            train_step(x, y)
        watch.report(f"{batches.nb_workers} workers:")

        for epoch in range(EPOCHS):
            progress = tqdm(batches, desc=f"epoch {epoch + 1}/{EPOCHS}", unit="batch")
            for step, (x, y) in enumerate(progress):
                loss = train_step(x, y)
                if step % 10 == 0:
                    progress.set_postfix(loss=f"{float(loss):.3f}")

    views = np.stack([upright(image) for image in images])
    embedding = encoder.predict(views[..., None], batch_size=256, verbose=0)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    pixels = images.reshape(len(images), -1)
    for known, what in ((train[:NUM_LABELLED], "labels known"), (train, "labels known")):
        raw, embedded = (accuracy(features, labels, known, held_out) for features in (pixels, embedding))
        print(f"5-NN accuracy, {len(known):4} {what}: raw pixels {raw:.1%}, embedding {embedded:.1%}")


if __name__ == "__main__":
    main()
