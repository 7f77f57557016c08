"""``HierarchicalSampler``: batches of classes that belong to a few super-classes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.augmenter import AugmenterFunction
from workers.checks import check_int, short
from workers.job.seeding import MAX_SEED
from workers.job.stream import mix

from .class_index import ClassDraws, ClassIndex, as_labels
from .permutation import Draws, num_kept
from .samplers import MultiShotMemorySampler

_SUPER_CLASSES = 4  # a part of the key of the draws: those of ``class_index`` have smaller numbers


class HierarchicalSampler(MultiShotMemorySampler):
    """A sampler of batches of classes from a few super-classes, so that the classes of a batch are hard to tell apart.

    Each batch has ``super_classes_per_batch`` super-classes, equally many classes of each, and
    ``examples_per_class_per_batch`` examples of each class. No super-class comes again before all have come, no class
    of a super-class before all of its classes have come, and no example of a class before all of its examples have
    come. All of this depends on (seed, epoch, batch_id) alone.

    Args:
        x, y: the examples and the labels of their classes, as for :class:`MultiShotMemorySampler`.
        super_classes: the super-class of each example, an array (n,) of integers or strings; or {class: super-class}.
        classes_per_batch: the number of classes in a batch, a multiple of ``super_classes_per_batch``.
        examples_per_class_per_batch: the number of examples of each class.
        super_classes_per_batch: the number of super-classes in a batch.
        steps_per_epoch, class_list, total_examples_per_class: as for :class:`MultiShotMemorySampler`.
        augmenter, warmup, load_example_fn, cache, num_augmentations_per_example, seed: likewise.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range, a class belongs to several
            super-classes, or a super-class has too few classes for a batch.

    Example:
        >>> y = np.repeat(np.arange(6), 5)
        >>> sampler = HierarchicalSampler(np.arange(30.0), y, y // 3, 2, super_classes_per_batch=1, seed=1)
        >>> x, y = sampler[0]
        >>> len(set(y.tolist())), len(set((y // 3).tolist()))
        (2, 1)

    Source: ``pytorch_metric_learning.samplers.HierarchicalSampler`` for super-classes.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        super_classes: Any,
        classes_per_batch: int = 4,
        examples_per_class_per_batch: int = 2,
        super_classes_per_batch: int = 2,
        steps_per_epoch: int = 1000,
        class_list: Any = None,
        total_examples_per_class: int | None = None,
        augmenter: AugmenterFunction | None = None,
        warmup: int = -1,
        *,
        load_example_fn: Callable[[Any], Any] | None = None,
        cache: bool | str | os.PathLike[str] = False,
        num_augmentations_per_example: int = 1,
        seed: int | None = None,
    ) -> None:
        number = check_int("super_classes_per_batch", super_classes_per_batch, 1)
        if check_int("classes_per_batch", classes_per_batch, 1) % number:
            raise ValueError(
                f"classes_per_batch must be a multiple of super_classes_per_batch={number}, not {classes_per_batch}"
            )
        self.super_classes, self.super_classes_per_batch = super_classes, number
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

    def _draws_of(self, num_classes: int, examples_per_class: int) -> Any:
        index = self._index = self._index.with_seed(self.seed)
        if num_classes % self.super_classes_per_batch:
            raise ValueError(
                f"the number of classes must be a multiple of {self.super_classes_per_batch} super-classes, not "
                f"{num_classes}"
            )
        numbers = (num_classes, examples_per_class, self.super_classes_per_batch, self.steps_per_epoch, self.seed)
        return _SuperDraws(_parts_of(index, self.super_classes), *numbers)

    def _identity(self) -> list[Any]:
        return [*super()._identity(), self.super_classes_per_batch]


class _Part:
    """The classes of one super-class, as ClassDraws needs them: see :class:`ClassIndex`."""

    def __init__(self, groups: list[NDArray[np.int64]]) -> None:
        self.positions = np.concatenate(groups)
        self.starts = [0, *np.cumsum([len(group) for group in groups]).tolist()]

    def __len__(self) -> int:
        return len(self.starts) - 1


def _parts_of(index: ClassIndex, super_classes: Any) -> dict[Any, _Part]:
    """Return {super-class: its classes}, in ascending order of the super-classes."""
    classes = index.classes.tolist()
    groups = [index.positions[index.starts[at] : index.starts[at + 1]] for at in range(len(index))]
    if isinstance(super_classes, Mapping):
        missing = [each for each in classes if each not in super_classes]
        if missing:
            raise ValueError(f"super_classes has no super-class for the class {short(missing[0])}")
        of_class = [super_classes[each] for each in classes]
    else:
        labels = as_labels(super_classes)
        if labels.ndim != 1 or len(labels) != len(index.y):
            raise ValueError(
                f"super_classes must be one label for each of the {len(index.y)} examples, or {{class: super-class}}, "
                f"not of shape {labels.shape}"
            )
        of_class = []
        for each, group in zip(classes, groups, strict=True):
            found = np.unique(labels[group]).tolist()
            if len(found) > 1:
                raise ValueError(f"class {short(each)} belongs to several super-classes: {short(found)}")
            of_class += found
    names = sorted(set(of_class))
    return {name: _Part([group for of, group in zip(of_class, groups, strict=True) if of == name]) for name in names}


class _SuperDraws:
    """The random batches of a HierarchicalSampler; its interface is that of :class:`ClassDraws`."""

    def __init__(
        self,
        parts: dict[Any, _Part],
        num_classes: int,
        examples_per_class: int,
        super_classes_per_batch: int,
        steps_per_epoch: int,
        seed: int,
    ) -> None:
        self.num_classes, self.examples_per_class = num_classes, examples_per_class
        self.steps_per_epoch, self.seed = steps_per_epoch, seed
        each = num_classes // super_classes_per_batch
        if super_classes_per_batch > len(parts):
            raise ValueError(
                f"super_classes_per_batch must be 1 to {len(parts)}, the number of super-classes, not "
                f"{super_classes_per_batch}"
            )
        few = [name for name, part in parts.items() if len(part) < each]
        if few:
            raise ValueError(
                f"super-class {short(few[0])} has {len(parts[few[0]])} classes, but a batch takes {each} of each "
                "super-class: give a smaller classes_per_batch, or leave its classes out by class_list"
            )
        self._draws = Draws(len(parts), super_classes_per_batch, seed, _SUPER_CLASSES, kept=num_kept(len(parts)))
        # A use of a super-class is an epoch of one batch of its own. Each has a seed of its own.
        self._of_each: list[Any] = [
            ClassDraws(part, each, examples_per_class, 1, mix(seed ^ (at + 1)) & MAX_SEED)  # type: ignore[arg-type]
            for at, part in enumerate(parts.values())
        ]

    def batch(self, epoch: int, batch_id: int) -> NDArray[np.int64]:
        """Return the positions of a batch's examples in x, class after class, those of a super-class together."""
        number = epoch * self.steps_per_epoch + batch_id
        cycle, how_many = self._draws.cycle_of(number)
        return np.concatenate(
            [
                self._of_each[of].batch(cycle if at < how_many else cycle + 1, 0)
                for at, of in enumerate(self._draws.view(number).tolist())
            ]
        )
