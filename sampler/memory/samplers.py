"""Samplers of data in memory, of a memory-mapped file, or of items that are loaded one by one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampler.augmenter import AugmenterFunction
from sampler.sampler import plain
from workers.checks import check_int
from workers.job import seeding
from workers.sequence.gather import gather

from .class_index import ClassDraws, ClassIndex
from .examples import Examples
from .memory_sampler import MemorySampler
from .permutation import Draws, num_kept


class SingleShotMemorySampler(MemorySampler):
    """A sampler of batches of ``class_per_batch`` different elements of x, each of which is its own class.

    Elements are drawn without repetition: none comes again before all have come, across epochs too, and none is twice
    in a batch. The order takes at most 8 MB of memory, however many elements there are, and a batch takes about as long
    from 10**9 elements as from 10**3.

    Args:
        x: the examples, one per class. An array or a ``np.memmap`` (n, ...) is used as it is; a tensor (TensorFlow,
            torch, JAX) or a list is converted to an array once. Arrays of different shapes reach the augmenter as an
            object array, which it may loop over; the arrays that it returns must stack. With ``load_example_fn``:
            items to load, such as paths, in any object that has a length and can be indexed by position.
        augmenter: see :class:`Sampler`. It makes the examples of a class; without an augmenter, each class has one.
        class_per_batch: how many elements of x are drawn for a batch, 1 to len(x).
        steps_per_epoch: the number of batches in an epoch.
        warmup: ``is_warmup`` is True in the first ``warmup`` epochs. 0 or less: in none.
        num_augmentations_per_example: how many examples the augmenter is asked to return for each that it gets.
        load_example_fn: ``item of x -> array``, called for each drawn item. The arrays may differ in shape.
        cache: True to keep what ``load_example_fn`` returns in shared memory, as :meth:`workers.Sequence.cache` does;
            or the folder to keep it in. Then ``load_example_fn`` must draw no random numbers.
        seed: the seed of all random draws; None: drawn once and kept in ``seed``.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Example:
        >>> sampler = SingleShotMemorySampler(np.arange(10.0), None, class_per_batch=4, seed=1)
        >>> x, y = sampler[0]
        >>> bool((x == y).all()), y.dtype.name, y.shape
        (True, 'int32', (4,))

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers.SingleShotMemorySampler``.
    """

    def __init__(
        self,
        x: Any,
        augmenter: AugmenterFunction | None,
        class_per_batch: int,
        steps_per_epoch: int = 1000,
        warmup: int = -1,
        *,
        num_augmentations_per_example: int = 2,
        load_example_fn: Callable[[Any], Any] | None = None,
        cache: bool | str | os.PathLike[str] = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            class_per_batch,
            1,
            num_augmentations_per_example,
            steps_per_epoch,
            augmenter,
            warmup,
            seed=seed,
        )
        self._examples = Examples(x, load_example_fn, cache)
        self._draws = self._draws_of(self.class_per_batch)

    @plain
    def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> tuple[Any, Any]:
        """Return the elements of x for batch ``batch_id`` of the current epoch, before augmentation.

        Args:
            batch_id: the index of the batch in its epoch, from 0.
            num_classes: the number of elements. Each number has its own series of draws.
            example_per_class: ignored, as in TensorFlow Similarity, because each class has one example.

        Returns:
            (x, y): x holds the elements (num_classes, ...), with the dtype of ``x`` or of the arrays from
            ``load_example_fn``. y holds their positions in ``x``, (num_classes,), int32; int64 if len(x) >= 2**31.

        Raises:
            ValueError: ``num_classes`` is not 1 to len(x), or the examples differ in shape and there is no augmenter.
        """
        draws, key = self._draws, (self.seed,)
        if draws.key != key:
            draws = self._draws = self._draws_of(draws.k)
        if num_classes != draws.k:
            draws = self._draws_of(num_classes)
        positions = draws.view(self.epoch * self.steps_per_epoch + batch_id)
        return self._examples.take(positions, self.augmenter is None), self._labels_of(positions)

    def _draws_of(self, class_per_batch: int) -> Draws:
        n = len(self._examples)
        if not 1 <= class_per_batch <= n:
            raise ValueError(f"class_per_batch must be 1 to {n}, the length of x, not {class_per_batch}")
        return Draws(n, class_per_batch, self.seed, kept=num_kept(n))

    def _drawn_from(self, start: int, stop: int) -> NDArray[np.int64]:
        return np.arange(start, min(stop, self.num_examples))

    def _labels_of(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        return positions.astype(np.int32 if self.num_examples < 2**31 else np.int64)

    @property
    def num_examples(self) -> int:
        """The number of examples to draw from: the length of x."""
        return len(self._examples)


class MultiShotMemorySampler(MemorySampler):
    """A sampler of batches of ``classes_per_batch`` classes, ``examples_per_class_per_batch`` examples of each.

    Every batch has exactly these numbers. Within a class, no example comes again before all have come, and none is
    twice in a batch. If a class has fewer examples than a batch takes, its examples repeat, and a warning names it.
    Classes are used evenly: in an epoch, no two differ by more than one use. All of this depends on (seed, epoch,
    batch_id) alone.

    Args:
        x: the examples, as for :class:`SingleShotMemorySampler`.
        y: their labels (n,), integers or strings; or rows (n, classes) with a one for each label of an example. An
            example of several labels is drawn for each of its classes, so it may be in a batch once for each.
        classes_per_batch: the number of classes in a batch, 1 to the number of classes of y.
        examples_per_class_per_batch: the number of examples of each class.
        steps_per_epoch: the number of batches in an epoch.
        class_list: the classes to draw from; None: all.
        total_examples_per_class: how many different examples of each class to draw from, chosen by ``seed``; None: all.
        augmenter: see :class:`Sampler`.
        warmup: ``is_warmup`` is True in the first ``warmup`` epochs. 0 or less: in none.
        load_example_fn: ``item of x -> array``, called for each drawn item. The arrays may differ in shape.
        cache: True to keep what ``load_example_fn`` returns in shared memory, as :meth:`workers.Sequence.cache` does;
            or the folder to keep it in. Then ``load_example_fn`` must draw no random numbers.
        num_augmentations_per_example: how many examples the augmenter is asked to return for each that it gets.
        seed: the seed of all random draws; None: drawn once and kept in ``seed``.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Example:
        >>> y = np.repeat(["cat", "dog", "owl"], 10)
        >>> sampler = MultiShotMemorySampler(np.arange(30.0), y, classes_per_batch=2, seed=1)
        >>> sampler[0]
        (array([15., 16., 25., 29.]), array(['dog', 'dog', 'owl', 'owl'], dtype='<U3'))

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers.MultiShotMemorySampler``.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        classes_per_batch: int = 2,
        examples_per_class_per_batch: int = 2,
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
        super().__init__(
            check_int("classes_per_batch", classes_per_batch, 1),
            examples_per_class_per_batch,
            num_augmentations_per_example,
            steps_per_epoch,
            augmenter,
            warmup,
            seed=seed,
        )
        if total_examples_per_class is not None:
            total_examples_per_class = check_int(
                "total_examples_per_class", total_examples_per_class, 1, "None or an integer >= 1"
            )
        self.total_examples_per_class = total_examples_per_class
        self._examples = Examples(x, load_example_fn, cache)
        self._index = ClassIndex(y, len(self._examples), class_list, total_examples_per_class, self.seed)
        self._draws = self._draws_of(self.class_per_batch, self.examples_per_class_per_batch)
        self._index.warn_of_few("examples_per_class_per_batch", examples_per_class_per_batch, "these repeat in a batch")

    @plain
    def get_examples(self, batch_id: int, num_classes: int, examples_per_class: int) -> tuple[Any, Any]:
        """Return the examples of batch ``batch_id`` of the current epoch, before augmentation.

        Args:
            batch_id: the index of the batch in its epoch, from 0.
            num_classes: the number of classes. Each pair of numbers has its own series of draws.
            examples_per_class: the number of examples of each class.

        Returns:
            (x, y): x holds the examples (num_classes * examples_per_class, ...), class after class, with the dtype of
            ``x`` or of the arrays from ``load_example_fn``. y holds their labels, (num_classes * examples_per_class,)
            or rows, with the dtype of ``y``.

        Raises:
            ValueError: ``num_classes`` is not 1 to the number of classes, or the examples differ in shape and there is
                no augmenter.
        """
        draws = self._draws
        if (draws.steps_per_epoch, draws.seed) != (self.steps_per_epoch, self.seed):
            draws = self._draws = self._draws_of(draws.num_classes, draws.examples_per_class)
        if (num_classes, examples_per_class) != (draws.num_classes, draws.examples_per_class):
            draws = self._draws_of(num_classes, examples_per_class)
        positions = draws.batch(self.epoch, batch_id)
        return self._examples.take(positions, self.augmenter is None), self._labels_of(positions)

    def _draws_of(self, num_classes: int, examples_per_class: int) -> ClassDraws:
        index = self._index = self._index.with_seed(self.seed)
        return ClassDraws(index, num_classes, examples_per_class, self.steps_per_epoch, self.seed)

    def _drawn_from(self, start: int, stop: int) -> NDArray[np.int64]:
        return self._index.with_seed(self.seed).examples[start:stop]

    def _labels_of(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        return gather(self._index.y, positions)

    def _share(self) -> None:
        super()._share()
        self._index.share()

    @property
    def y(self) -> NDArray[Any]:
        """The labels of ``x`` as they are held, not a copy."""
        return self._index.y

    @property
    def classes_per_batch(self) -> int:
        """The number of classes in a batch: ``class_per_batch``, under the name of the argument."""
        return self.class_per_batch

    @property
    def class_list(self) -> list[Any]:
        """The classes to draw from, as a list in ascending order."""
        return list(self._index.classes.tolist())

    @property
    def num_examples(self) -> int:
        """The number of examples to draw from, after the choice of classes and of examples per class."""
        return self._index.num_examples


def select_examples(
    x: Any,
    y: Any,
    class_list: Any = None,
    num_examples_per_class: int | None = None,
    *,
    seed: int | None = None,
) -> tuple[Any, Any]:
    """Return some examples of some classes, chosen at random and shuffled.

    Args:
        x: the examples, as for :class:`SingleShotMemorySampler`.
        y: their labels, as for :class:`MultiShotMemorySampler`.
        class_list: the classes to take; None: all.
        num_examples_per_class: how many different examples of each class to take; None: all. If a class has fewer, all
            of them are taken, and a warning names the class.
        seed: the seed of the choice and the order; None: a different one in each call.

    Returns:
        (x, y): the examples and their labels.

    Raises:
        TypeError, ValueError: an argument has the wrong type or is out of range.

    Source: TensorFlow Similarity API, ``TFSimilarity.samplers.select_examples``.
    """
    if num_examples_per_class is not None:
        num_examples_per_class = check_int(
            "num_examples_per_class", num_examples_per_class, 1, "None or an integer >= 1"
        )
    checked = seeding.check_seed(seed)
    key = seeding.draw_seed() if checked is None else checked
    examples = Examples(x, None)
    index = ClassIndex(y, len(examples), class_list, num_examples_per_class, key, is_told=True)
    if num_examples_per_class is not None:
        index.warn_of_few("num_examples_per_class", num_examples_per_class, "all are taken")
    chosen = index.examples if index.has_several else index.positions
    positions = chosen[Draws(len(chosen), len(chosen), key).view(0)]
    return examples.take(positions), gather(index.y, positions)
