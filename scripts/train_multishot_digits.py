"""Train an embedding of digits on seven classes, and use it to tell apart the three that it has never seen.

The digits become a data set of TensorFlow Datasets, which is loaded by its name. Each batch holds 7 classes with 16
examples of each, augmented in worker processes; ``model.fit`` pulls the embeddings of a class together. Its quality is
measured on held-out digits by nearest neighbours, with 5 labelled examples of each class, against raw pixels.
"""

from __future__ import annotations

import argparse
import tempfile
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from quickstart_digits import silent_stderr
from scipy import ndimage
from sklearn.neighbors import KNeighborsClassifier

from sampler import Augmenter, TFDatasetMultiShotMemorySampler, select_examples
from workers import current_rng

with silent_stderr():
    import keras
    import optical_digits
    import tensorflow as tf

SEEN, UNSEEN = [0, 1, 2, 3, 4, 5, 6], [7, 8, 9]
NUM_LABELLED = 5  # of each class
SIZE = 16  # pixels per side; the original digits have 8
SEED = 0

Array = NDArray[Any]


class Jitter(Augmenter):
    """An augmenter that rotates, moves and stretches each digit a little, and adds noise."""

    def augment(self, x: Array, y: Array, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Array, Array]:
        rng = current_rng()  # the same numbers for this batch in any process
        if not is_warmup:
            centre = np.full(2, (SIZE - 1) / 2)
            for i, image in enumerate(x):
                matrix = np.eye(2) + rng.normal(0, 0.1, (2, 2))
                x[i] = ndimage.affine_transform(image, matrix, centre - matrix @ centre + rng.normal(0, 1, 2), order=1)
        return x + rng.normal(0, 0.05, x.shape).astype(np.float32), y


def enlarged(image: Array, label: Array) -> tuple[Array, Array]:
    return ndimage.zoom(image[..., 0].astype(np.float32) / 255, SIZE / image.shape[0], order=1), label


def contrastive_loss(y: Any, z: Any) -> Any:
    """Return the supervised NT-Xent loss: the other examples of the same class against all others."""
    z = tf.math.l2_normalize(z, axis=1)
    y = tf.reshape(y, [-1])
    others = 1 - tf.eye(tf.shape(z)[0])
    alike = tf.cast(y[:, None] == y[None, :], tf.float32) * others
    logits = tf.matmul(z, z, transpose_b=True) / 0.2 - 1e9 * (1 - others)
    return -tf.reduce_mean(tf.reduce_sum(alike * tf.nn.log_softmax(logits), 1) / tf.reduce_sum(alike, 1))


def make_encoder() -> Any:
    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    encoder = keras.Sequential([keras.Input((SIZE, SIZE)), layers.Reshape((SIZE, SIZE, 1))])
    for filters in (32, 64):
        encoder.add(layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"))
    encoder.add(layers.Flatten())
    encoder.add(layers.Dense(64))
    encoder.compile(keras.optimizers.Adam(1e-3), contrastive_loss)
    return encoder


def accuracy(features: Array, labels: Array) -> float:
    """Return the accuracy of 5-NN classification with ``NUM_LABELLED`` of each class, mean over 10 choices of these."""
    scores = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(labels))
        known = np.concatenate([order[labels[order] == label][:NUM_LABELLED] for label in np.unique(labels)])
        asked = np.setdiff1d(order, known)
        classifier = KNeighborsClassifier(5).fit(features[known], labels[known])
        scores.append(classifier.score(features[asked], labels[asked]))
    return float(np.mean(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, metavar="N")
    parser.add_argument("--steps", type=int, default=50, metavar="N", help="batches in an epoch (50)")
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes (usable cores less one)")
    options = parser.parse_args()
    begin = perf_counter()

    def digits(splits: str, classes: int, **arguments: Any) -> TFDatasetMultiShotMemorySampler:
        return TFDatasetMultiShotMemorySampler(
            "optical_digits", classes, splits=splits, preprocess_fn=enlarged, data_dir=data_dir, seed=SEED, **arguments
        )

    with tempfile.TemporaryDirectory() as data_dir:
        with silent_stderr():
            optical_digits.prepare(data_dir)
        sampler = digits(
            "train",
            len(SEEN),
            class_list=SEEN,
            examples_per_class_per_batch=16,
            steps_per_epoch=options.steps,
            augmenter=Jitter(),
            warmup=1,
        )
        x, y = digits("test", 10).get_slice()
    encoder = make_encoder()
    start = perf_counter()
    with sampler.prefetch(nb_workers=options.workers) as batches:
        encoder.fit(batches, epochs=options.epochs, verbose=2)
        waited = batches.metadata.time_to_get_next_batch
    seconds = perf_counter() - start
    print(f"{options.epochs * options.steps / seconds:.1f} batches a second; waited {waited:.1f} s in the last epoch")

    def embed(images: Array) -> Array:
        return np.asarray(encoder.predict(images, batch_size=256, verbose=0))

    print(f"\nnearest-neighbour accuracy, {NUM_LABELLED} labelled digits of each class   raw pixels   embedding")
    for name, classes in (("seen in training", SEEN), ("never seen", UNSEEN)):
        images, labels = select_examples(x, y, classes, seed=SEED)
        raw, embedded = accuracy(images.reshape(len(images), -1), labels), accuracy(embed(images), labels)
        print(f"  {len(images)} held-out digits of {len(classes)} classes {name:<19} {raw:6.1%}      {embedded:6.1%}")
    print(f"\n{perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
