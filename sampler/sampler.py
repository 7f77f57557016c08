"""Define the base class of all samplers: a sampler draws the examples of a batch from data, and augments them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from workers import Sequence, current_job
from workers.checks import check_index, check_int
from workers.job.context import mark
from workers.sequence.display import DisplayedFact, count, tried

from .augmenter import AugmenterFunction, check_augmenter
from .memory.ragged import check_stacked

_Method = TypeVar("_Method", bound=Callable[..., Any])


def plain(get_examples: _Method) -> _Method:
    """Mark the method ``get_examples`` as plain, so that its batches need neither seeded generators nor copies.

    A plain method draws from no global random generator, and returns new arrays that nothing else holds.
    """
    get_examples._is_plain = True  # type: ignore[attr-defined]
    return get_examples


class Sampler(Sequence[tuple[Any, Any]], ABC):
    """The base class of samplers: Sequences of batches, each with examples of ``class_per_batch`` classes.

    Each batch depends on (seed, epoch, batch_id) alone. A subclass defines :meth:`get_examples`, ``num_examples`` and
    ``example_shape``.

    Args:
        class_per_batch: the number of classes in a batch.
        examples_per_class_per_batch: the number of examples of each class, before augmentation.
        num_augmentations_per_example: how many augmented examples the augmenter is asked to return for each example.
        steps_per_epoch: the number of batches in an epoch.
        augmenter: an :class:`Augmenter` or a function ``(x, y, num_augmentations_per_example, is_warmup) -> (x, y)``;
            None to deliver the examples as they are.
        warmup: the number of epochs at the start in which ``is_warmup`` is True; 0 or less for none.
        seed: the seed of all random draws; if it is None, a seed is drawn once and kept in ``seed``.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers``, the common part of its samplers.
    """

    def __init__(
        self,
        class_per_batch: int,
        examples_per_class_per_batch: int = 2,
        num_augmentations_per_example: int = 1,
        steps_per_epoch: int = 1000,
        augmenter: AugmenterFunction | None = None,
        warmup: int = -1,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed=seed)
        self.class_per_batch = check_int("class_per_batch", class_per_batch, 1)
        self.examples_per_class_per_batch = check_int("examples_per_class_per_batch", examples_per_class_per_batch, 1)
        self.num_augmentations_per_example = check_int(
            "num_augmentations_per_example", num_augmentations_per_example, 1
        )
        self.steps_per_epoch = check_int("steps_per_epoch", steps_per_epoch, 1)
        self.augmenter = check_augmenter(augmenter)
        self.warmup = check_int("warmup", warmup, -(2**63), "an integer")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self.steps_per_epoch

    def __getitem__(self, batch_id: int) -> tuple[Any, Any]:
        """Return batch ``batch_id`` of the current epoch as (x, y), made by :meth:`generate_batch`."""
        return self.generate_batch(batch_id)

    def generate_batch(self, batch_id: int) -> tuple[Any, Any]:
        """Return the augmented batch ``batch_id`` of the current epoch.

        Args:
            batch_id: 0 to ``steps_per_epoch`` - 1; a negative number counts from the end.

        Returns:
            (x, y), as the augmenter returns them.

        Raises:
            IndexError: the epoch has no such batch.
            TypeError: the augmenter did not return a pair.
            ValueError: the examples of the batch cannot be stacked.
        """
        if current_job() is None:
            return self[batch_id]  # seeds the generators, then calls this method again
        batch_id = check_index(batch_id, self)
        mark("get_examples")
        x, y = self.get_examples(batch_id, self.class_per_batch, self.examples_per_class_per_batch)
        if self.augmenter is None:
            check_stacked(x, "without an augmenter, get_examples")
            return x, y
        mark("augmenter")
        batch = self.augmenter(x, y, self.num_augmentations_per_example, self.is_warmup)
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            got = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
            raise TypeError(f"augmenter must return (x, y), not a {type(batch).__name__}{got}")
        check_stacked(batch[0], "augmenter")
        return batch[0], batch[1]

    def _identity(self) -> list[Any]:
        arguments = self.class_per_batch, self.examples_per_class_per_batch, self.num_augmentations_per_example
        return [*super()._identity(), *arguments, self.warmup, self.num_examples]

    def _own_facts(self) -> Iterable[DisplayedFact | None]:
        number = tried(lambda: self.num_examples)
        yield None if number is None else count(number, "example", "examples")
        drawn = f"{self.class_per_batch} x {self.examples_per_class_per_batch}"
        yield DisplayedFact("a batch", drawn, f"{drawn} a batch")

    def _may_draw(self) -> bool:
        return not self._is_plain() or self._runs_functions()

    @property
    def _makes_fresh_batches(self) -> bool:  # type: ignore[override]
        return self._is_plain()

    def _is_plain(self) -> bool:
        """Return True if batches are the unchanged results of a ``get_examples`` that is marked by :func:`plain`."""
        cls = type(self)
        return (
            self.augmenter is None
            and cls.__getitem__ is Sampler.__getitem__
            and cls.generate_batch is Sampler.generate_batch
            and hasattr(cls.get_examples, "_is_plain")
        )

    def _runs_functions(self) -> bool:
        """Return True if ``get_examples`` may call the user's functions, which may draw random numbers."""
        return True

    @abstractmethod
    def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> tuple[Any, Any]:
        """Return the examples of batch ``batch_id`` of the current epoch, before augmentation.

        Args:
            batch_id: the index of the batch in its epoch, from 0.
            num_classes: the number of classes.
            example_per_class: the number of examples of each class.

        Returns:
            (x, y): x holds the examples (num_classes * example_per_class, ...), and the augmenter may write into it;
            it is an object array or a list if the examples differ in shape. y holds their classes, (num_classes *
            example_per_class,).
        """

    @property
    def is_warmup(self) -> bool:
        """True if the current epoch is one of the first ``warmup`` epochs."""
        return self.epoch < self.warmup

    @property
    @abstractmethod
    def num_examples(self) -> int:
        """The number of examples in the data from which batches are drawn."""

    @property
    @abstractmethod
    def example_shape(self) -> tuple[int | None, ...]:
        """The shape of one example before augmentation, with None for each axis along which examples differ."""
