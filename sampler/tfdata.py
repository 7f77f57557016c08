"""``TFDataSampler``: class-balanced batches from any ``tf.data.Dataset`` of pairs (x, y)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .augmenter import AugmenterFunction
from .memory.samplers import MultiShotMemorySampler

_READ_AT_ONCE = 256  # examples
_INFINITE, _UNKNOWN = -1, -2  # the cardinalities that tf.data has for these


class TFDataSampler(MultiShotMemorySampler):
    """A :class:`MultiShotMemorySampler` of the examples of a ``tf.data.Dataset``, which is read into memory once.

    Args:
        dataset: a finite ``tf.data.Dataset`` whose elements are single examples, pairs (x, y) of tensors.
        classes_per_batch, examples_per_class_per_batch, steps_per_epoch: as for :class:`MultiShotMemorySampler`.
        class_list, total_examples_per_class, augmenter, warmup, num_augmentations_per_example, seed: likewise.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range, or the dataset has no end or other
            elements.

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers.TFDataSampler``, which returns a ``tf.data.Dataset``.
    """

    def __init__(
        self,
        dataset: Any,
        classes_per_batch: int = 2,
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Any = None,
        total_examples_per_class: int | None = None,
        augmenter: AugmenterFunction | None = None,
        warmup: int = -1,
        *,
        num_augmentations_per_example: int = 1,
        seed: int | None = None,
    ) -> None:
        x, y = _read(dataset)
        super().__init__(
            x,
            y,
            classes_per_batch,
            examples_per_class_per_batch,
            steps_per_epoch,
            class_list,
            total_examples_per_class,
            augmenter,
            warmup,
            num_augmentations_per_example=num_augmentations_per_example,
            seed=seed,
        )


def _read(dataset: Any) -> tuple[Any, Any]:
    """Return (all examples: an array, or a list of arrays of different shapes; their labels, an array)."""
    if not hasattr(dataset, "element_spec") or not hasattr(dataset, "as_numpy_iterator"):
        raise TypeError(f"dataset must be a tf.data.Dataset, not a {type(dataset).__name__}")
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2 or not all(hasattr(each, "shape") for each in spec):
        raise TypeError(
            f"the elements of the dataset must be pairs (x, y) of tensors, not {spec}: make them so by dataset.map"
        )
    if spec[1].shape.rank and spec[1].shape[0] is None:
        raise ValueError(f"the elements of the dataset must be single examples, but y is {spec[1]}: write .unbatch()")
    total = int(dataset.cardinality().numpy())
    if total == _INFINITE:
        raise ValueError("the dataset has no end, so it cannot be read into memory: write .take(n), or no .repeat()")
    from workers.sequence.progress import Bar

    is_of_one_shape = bool(spec[0].shape.is_fully_defined())
    xs: list[Any] = []
    ys: list[Any] = []
    with Bar(total=None if total == _UNKNOWN else total, desc="reading a tf.data.Dataset", unit=" examples") as bar:
        for x, y in dataset.batch(_READ_AT_ONCE if is_of_one_shape else 1).as_numpy_iterator():
            xs.append(x)
            ys.append(y)
            bar.update(len(y))
    if not xs:
        raise ValueError("the dataset is empty")
    labels = np.concatenate(ys)
    if is_of_one_shape:
        return np.concatenate(xs), labels
    return [x[0] for x in xs], labels
