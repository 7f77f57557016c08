"""The base of all samplers: batch ``batch_id`` is drawn from the data, then augmented."""

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
    """Mark a ``get_examples`` that draws from no global generator, and returns arrays that it has made and not kept."""
    get_examples._is_plain = True  # type: ignore[attr-defined]
    return get_examples


class Sampler(Sequence[tuple[Any, Any]], ABC):
    """A Sequence of batches of ``class_per_batch`` classes, each a function of (seed, epoch, batch_id) alone.

    A subclass defines :meth:`get_examples`, ``num_examples`` and ``example_shape``.

    Args:
        class_per_batch: how many classes are in a batch.
        examples_per_class_per_batch: how many examples of each, before augmentation.
        num_augmentations_per_example: what the augmenter is asked to make of each example.
        steps_per_epoch: batches in an epoch.
        augmenter: an :class:`Augmenter` or a function ``(x, y, num_augmentations_per_example, is_warmup) ->
            (x, y)``; None: the examples are the batch.
        warmup: the first ``warmup`` epochs have ``is_warmup`` true. 0 or less: none.
        seed: what all random draws depend on; None: drawn once and kept in ``seed``.

    Raises:
        TypeError, ValueError: an argument is not of its kind or out of its range.

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers``: what its samplers have in common.
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
        """Batches in an epoch."""
        return self.steps_per_epoch

    def __getitem__(self, batch_id: int) -> tuple[Any, Any]:
        """Batch ``batch_id`` of the current epoch: :meth:`generate_batch`."""
        return self.generate_batch(batch_id)

    def generate_batch(self, batch_id: int) -> tuple[Any, Any]:
        """The augmented batch ``batch_id`` of the current epoch.

        Args:
            batch_id: 0 to ``steps_per_epoch`` - 1; a negative one counts from the end.

        Returns:
            (x, y), as the augmenter returns them.

        Raises:
            IndexError: there is no such batch.
            TypeError: the augmenter returned something else than a pair.
            ValueError: what it returned does not stack.
        """
        if current_job() is None:
            return self[batch_id]  # seeds the generators for it, and comes back
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
        """Whether a batch is what a ``get_examples`` of ours returns."""
        cls = type(self)
        return (
            self.augmenter is None
            and cls.__getitem__ is Sampler.__getitem__
            and cls.generate_batch is Sampler.generate_batch
            and hasattr(cls.get_examples, "_is_plain")
        )

    def _runs_functions(self) -> bool:
        """Whether ``get_examples`` runs functions of the user's."""
        return True

    @abstractmethod
    def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> tuple[Any, Any]:
        """The examples that batch ``batch_id`` of the current epoch is made of, before augmentation.

        Args:
            batch_id: the batch in its epoch.
            num_classes: how many classes.
            example_per_class: how many examples of each.

        Returns:
            x: examples (num_classes * example_per_class, ...), nobody else's. Where they differ in shape: an object
                array of them, or a list.
            y: their classes, integers (num_classes * example_per_class,).
        """

    @property
    def is_warmup(self) -> bool:
        """Whether the current epoch is one of the first ``warmup``."""
        return self.epoch < self.warmup

    @property
    @abstractmethod
    def num_examples(self) -> int:
        """How many examples there are to draw from."""

    @property
    @abstractmethod
    def example_shape(self) -> tuple[int | None, ...]:
        """The shape of one example, before augmentation; None along the axes in which they differ."""
