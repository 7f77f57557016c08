"""Train an encoder of handwritten digits on batches that worker processes augment in the background.

The 1,797 digits come with scikit-learn, so nothing is downloaded. Contrastive learning (SimCLR) needs no labels: two
random views of a digit are pulled together, views of different digits apart. The quality of the embedding is then
measured with labels, by 5-nearest-neighbour classification of held-out digits, against raw pixels.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import textwrap
from collections.abc import Iterator
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

import workers
from sampler import Augmenter, SingleShotMemorySampler
from workers import Report, current_rng

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Silence file descriptor 2, because TensorFlow writes greetings to it before its log level takes effect."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


with silent_stderr():
    import keras
    import tensorflow as tf

SIZE = 32  # pixels per side of a view; the original digits have 8
DIGITS_PER_BATCH = 64  # two views of each
STEPS_PER_EPOCH = 60
EPOCHS = 12
EPOCHS_COMPARED = 3  # the first is a warm-up, the others are timed
TOLD = ("workers", "first batch")  # findings of workers.check that are shown
TEMPERATURE = 1.0
SEED = 0

Array = NDArray[Any]


class TwoViews(Augmenter):
    """An augmenter that makes random views of digits: rotated, zoomed, shifted, blurred, with noise."""

    def augment(self, x: Array, y: Array, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Array, Array]:
        rng = current_rng()  # the same numbers for this batch in any process
        x = np.repeat(x, num_augmentations_per_example, axis=0)
        return np.stack([view(image, rng) for image in x]), np.repeat(y, num_augmentations_per_example)


def view(image: Array, rng: np.random.Generator) -> Array:
    angle = np.radians(rng.uniform(-15, 15))
    rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    zoom = rng.uniform(0.85, 1.15, (2, 1))
    shift = rng.uniform(-3, 3, 2)
    centre = np.full(2, (SIZE - 1) / 2)
    matrix = rotate / zoom
    image = ndimage.affine_transform(image, matrix, centre - matrix @ (centre + shift), order=1)
    image = ndimage.gaussian_filter(image, rng.uniform(0, 1.2))
    return image + rng.normal(0, 0.05, image.shape).astype(np.float32)


def make_models() -> tuple[Any, Any]:
    """Return (images -> embedding, images -> embedding -> projection, which only training needs)."""
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    encoder = keras.Sequential([keras.Input((SIZE, SIZE)), layers.Reshape((SIZE, SIZE, 1))])
    for filters in (16, 32, 64):
        encoder.add(layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"))
    encoder.add(layers.Flatten())
    encoder.add(layers.Dense(128, activation="relu"))
    return encoder, keras.Sequential([encoder, layers.Dense(128, activation="relu"), layers.Dense(64)])


def contrastive_loss(z: Any, y: Any) -> Any:
    """Return the NT-Xent loss: which of all other views shows the same digit, that is, has the same y?"""
    z = tf.math.l2_normalize(z, axis=1)
    itself = tf.eye(len(z))
    right = tf.cast(y[:, None] == y[None, :], tf.float32) - itself
    logits = tf.matmul(z, z, transpose_b=True) / TEMPERATURE - 1e9 * itself
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(right, logits))


class Run(NamedTuple):
    encoder: Any
    losses: list[float]
    batches_per_second: float
    report: Report


def sampler_of(images: Array) -> SingleShotMemorySampler:
    return SingleShotMemorySampler(
        images, TwoViews(), class_per_batch=DIGITS_PER_BATCH, steps_per_epoch=STEPS_PER_EPOCH, seed=SEED
    )


def checked(images: Array, step_ms: float) -> list[str]:
    """Return a few lines of what ``workers.check`` finds, which prints all of it."""
    with contextlib.redirect_stdout(io.StringIO()):
        report = workers.check(sampler_of(images), step_ms=step_ms)
    lines = [f"check: {report.source}: {'ok' if report.ok else 'not ok'}"]
    return lines + [str(each) for each in report.findings if each.level == "error" or each.kind in TOLD]


def train(images: Array, nb_workers: int | Literal["auto"], epochs: int) -> Run:
    sampler = sampler_of(images)
    encoder, model = make_models()
    optimizer = keras.optimizers.Adam(1e-3)
    optimizer.build(model.trainable_variables)

    @tf.function  # type: ignore[untyped-decorator]
    def train_step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = contrastive_loss(model(x, training=True), y)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    losses, seconds = [], 0.0
    with sampler.prefetch(nb_workers=nb_workers) as batches:
        for epoch in range(epochs):
            start = perf_counter()
            progress = batches.progress(desc=f"nb_workers={nb_workers}, epoch {epoch + 1}/{epochs}", leave=False)
            for x, y in progress:
                losses.append(float(train_step(tf.constant(x), tf.constant(y))))
                progress.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            if 0 < epoch < EPOCHS_COMPARED:
                seconds += perf_counter() - start
        report = batches.report()
    run = Run(encoder, losses, STEPS_PER_EPOCH * (EPOCHS_COMPARED - 1) / seconds, report)
    waiting = report.wait.total / report.seconds
    print(
        f"nb_workers={nb_workers}: {run.batches_per_second:5.1f} batches a second, waiting {waiting:3.0%} of the time"
    )
    for choice in report.choices:
        print(f"  chosen: {choice}")
    return run


def accuracy(known: Array, known_labels: Array, asked: Array, asked_labels: Array, num_labelled: int) -> float:
    """Return the accuracy of 5-NN classification of ``asked``, mean over 10 random choices of the labelled digits."""
    scores = []
    for seed in range(10):
        chosen = np.random.default_rng(seed).permutation(len(known))[:num_labelled]
        classifier = KNeighborsClassifier(5).fit(known[chosen], known_labels[chosen])
        scores.append(classifier.score(asked, asked_labels))
    return float(np.mean(scores))


def main() -> None:
    begin = perf_counter()
    tf.config.experimental.enable_op_determinism()
    digits, labels = load_digits(return_X_y=True)
    digits = (digits / 16).astype(np.float32).reshape(-1, 8, 8)
    images = ndimage.zoom(digits, (1, SIZE / 8, SIZE / 8), order=1)
    order = np.random.default_rng(SEED).permutation(len(images))
    trained, held_out = order[:1400], order[1400:]
    print(f"{len(trained)} digits to train on, {len(held_out)} held out; {2 * DIGITS_PER_BATCH} views a batch")

    serial = train(images[trained], 0, EPOCHS_COMPARED)
    run = train(images[trained], "auto", EPOCHS)
    print(f"{run.batches_per_second / serial.batches_per_second:.2f} times as fast")
    print("same loss at every step:", run.losses[: len(serial.losses)] == serial.losses)

    rng = np.random.default_rng(SEED)
    views = np.stack([view(image, rng) for image in images[held_out]])

    def embed(x: Array) -> Array:
        features = run.encoder.predict(x, batch_size=256, verbose=0)
        return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))

    print(f"\n5-nearest-neighbour accuracy on the {len(held_out)} held-out digits   raw pixels   embedding")
    for num_labelled in (100, len(trained)):
        for asked, name in ((images[held_out], "as they are"), (views, "a random view of each")):
            raw, embedded = (
                accuracy(f(images[trained]), labels[trained], f(asked), labels[held_out], num_labelled)
                for f in (lambda x: x.reshape(len(x), -1), embed)
            )
            print(f"  {num_labelled:4} labelled, {name:<39} {raw:6.1%}      {embedded:6.1%}")
    step = run.report.step
    told = [*checked(images[trained], 1e3 * step.total / step.count), f"report: {run.report.verdict}"]
    print("", *(line for text in told for line in textwrap.wrap(text, 110, subsequent_indent="  ")), sep="\n")
    print(f"Where the time went: {run.report.save('quickstart.html').resolve()}")
    print(f"\n{perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
