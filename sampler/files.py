"""``MultiShotFileSampler``: class-balanced batches of files, which are loaded when they are drawn."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .augmenter import AugmenterFunction
from .image import load_image
from .memory.samplers import MultiShotMemorySampler


class MultiShotFileSampler(MultiShotMemorySampler):
    """A :class:`MultiShotMemorySampler` of files, such as photos, that the workers load when they are drawn.

    Args:
        x: the paths of the files, such as those of :func:`class_folders`.
        y: their labels, as for :class:`MultiShotMemorySampler`.
        load_example_fn: a function from a path to an array, called for each drawn file.
        classes_per_batch, examples_per_class_per_batch, steps_per_epoch: as for :class:`MultiShotMemorySampler`.
        class_list, total_examples_per_class, augmenter, warmup, cache, num_augmentations_per_example, seed: likewise.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers.MultiShotFileSampler``.

    >>> paths, labels, classes = class_folders("photos")  # doctest: +SKIP
    >>> seq = MultiShotFileSampler(paths, labels, classes_per_batch=8)  # doctest: +SKIP
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        load_example_fn: Callable[[Any], Any] = load_image,
        classes_per_batch: int = 2,
        examples_per_class_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Any = None,
        total_examples_per_class: int | None = None,
        augmenter: AugmenterFunction | None = None,
        warmup: int = -1,
        *,
        cache: bool | str | os.PathLike[str] = False,
        num_augmentations_per_example: int = 1,
        seed: int | None = None,
    ) -> None:
        if not callable(load_example_fn):
            raise TypeError(f"load_example_fn must be a function of a path, not {load_example_fn!r:.200}")
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
            load_example_fn=load_example_fn,
            cache=cache,
            num_augmentations_per_example=num_augmentations_per_example,
            seed=seed,
        )
