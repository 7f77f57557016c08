"""Define augmenters, which turn the examples drawn for a batch into the batch to train on.

Source: TensorFlow Similarity API, ``TFSimilarity.augmenters.Augmenter``.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

from workers.batch import exact
from workers.checks import check_int, short
from workers.sequence.display import Display, DisplayedFact, named


class Augmenter(Display, ABC):
    """The base class of augmenters, which turn the examples drawn for a batch into the batch to train on.

    A plain function with the four arguments of :meth:`augment` can be used as an augmenter, too.

    An augmenter may draw random numbers from ``workers.current_rng()``, ``random`` or ``numpy.random``. In the batches
    of a sampler, these numbers depend on (seed, epoch, batch_id) alone.
    """

    @abstractmethod
    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Any, Any]:
        """Return the batch to train on, made from the examples ``x`` and their classes ``y``.

        Args:
            x: examples (n, ...), or an object array (n,) of examples that differ in shape, such as photos. The
                augmenter may write into it.
            y: their classes (n,), or one-hot rows (n, classes). The augmenter may write into it.
            num_augmentations_per_example: how many augmented examples to return for each example in x. The
                augmenter chooses whether the original is one of them.
            is_warmup: True if this epoch is part of the warm-up.

        Returns:
            The batch (x, y).
        """

    def _shown_facts(self) -> Iterable[DisplayedFact]:
        for name, value in vars(self).items():
            yield named(name, _shown(value))

    def __call__(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Any, Any]:
        """Return the result of :meth:`augment`, so that an augmenter can be called like a function."""
        return self.augment(x, y, num_augmentations_per_example, is_warmup)


def _shown(setting: Any) -> str:
    """Return a setting as text: a number or string as its value, anything else, which may be large, as its name."""
    if setting is None or isinstance(setting, (bool, int, float, str)):
        return short(setting)
    return str(getattr(setting, "__name__", type(setting).__name__))


class ContrastiveAugmenter(Augmenter):
    """An augmenter that makes several views of each example by calling ``process`` once for each view.

    Args:
        process: a function ``example -> array``, which may draw random numbers, as augmenters may. Examples may differ
            in shape; the arrays of one view must not.
        num_views: the number of views of each example.

    Example:
        >>> views = ContrastiveAugmenter(lambda example: example + 1, num_views=3)
        >>> x, y = views(np.zeros((4, 2)), np.arange(4), 1, False)
        >>> [view.shape for view in x], y.shape
        ([(4, 2), (4, 2), (4, 2)], (4,))

    Source: TensorFlow Similarity API, ``TFSimilarity.augmenters.ContrastiveAugmenter``.
    """

    def __init__(self, process: Callable[[Any], Any], num_views: int = 2) -> None:
        if not callable(process):
            raise TypeError(f"process must be callable as process(example), not {process!r:.200}")
        self.process = process
        self.num_views = check_int("num_views", num_views, 1)

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Any, Any]:
        """Return ``num_views`` views of each example, and y unchanged. The last two arguments are ignored.

        Returns:
            ((view, view, ...), y): ``num_views`` arrays (n, ...), each with row i made from ``x[i]``.

        Raises:
            ValueError: ``process`` returned arrays of different shapes for one view.
        """
        return tuple(self._view(x) for _ in range(self.num_views)), y

    def _view(self, x: Any) -> Any:
        views = [
            exact.as_array(self.process(copy.copy(example))) for example in x
        ]  # a copy, because process may write into its argument
        for example, view in zip(x, views, strict=True):
            if view.shape != views[0].shape:
                raise ValueError(
                    f"process must return arrays of one shape, not {views[0].shape} for an example of shape "
                    f"{np.shape(x[0])} and {view.shape} for one of shape {np.shape(example)}: crop or resize them"
                )
        return exact.stacked(views)


AugmenterFunction: TypeAlias = Callable[[Any, Any, int, bool], tuple[Any, Any]]


def check_augmenter(augmenter: Any) -> AugmenterFunction | None:
    """Return ``augmenter`` if it is None, or callable with the four arguments of :meth:`Augmenter.augment`.

    Raises:
        TypeError: ``augmenter`` is neither. A callable is accepted if its signature cannot be read.
    """
    if augmenter is None:
        return None
    allowed = "None or callable as augmenter(x, y, num_augmentations_per_example, is_warmup)"
    if not callable(augmenter):
        raise TypeError(f"augmenter must be {allowed}, not {augmenter!r:.200} ({type(augmenter).__name__})")
    try:
        signature = inspect.signature(augmenter)
    except (TypeError, ValueError):
        return augmenter  # type: ignore[no-any-return]
    try:
        signature.bind(None, None, 2, False)
    except TypeError as error:
        hint = "; give an instance, not the class" if isinstance(augmenter, type) else ""
        name = getattr(augmenter, "__qualname__", type(augmenter).__qualname__)
        raise TypeError(f"augmenter must be {allowed}, but {name}{signature} is not: {error}{hint}") from None
    return augmenter  # type: ignore[no-any-return]
