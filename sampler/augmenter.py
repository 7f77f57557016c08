"""What an augmenter is: a function of a batch of examples that returns the batch to train on.

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
    """Base of augmenters that are classes. A plain function of the same four arguments does as well.

    Random draws come from ``workers.current_rng()``, ``random`` or ``numpy.random``: in a sampler's batch
    they depend on (seed, epoch, batch_id) alone.
    """

    @abstractmethod
    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Any, Any]:
        """The augmented batch.

        Args:
            x: examples (n, ...); where they differ in shape, such as photos, an object array (n,) of them. The
                augmenter may write into it.
            y: their classes, int32 or int64 (n,). The augmenter may write into it.
            num_augmentations_per_example: how many augmented examples to return for each of x. Whether one of
                them is the original is the augmenter's choice.
            is_warmup: whether this epoch is one of the warm-up.

        Returns:
            (x, y) of the batch.
        """

    def _shown_facts(self) -> Iterable[DisplayedFact]:
        for name, value in vars(self).items():
            yield named(name, _shown(value))

    def __call__(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Any, Any]:
        """:meth:`augment`."""
        return self.augment(x, y, num_augmentations_per_example, is_warmup)


def _shown(setting: Any) -> str:
    """A number or a text; the name of a function or of the kind of anything else, which may be large."""
    if setting is None or isinstance(setting, (bool, int, float, str)):
        return short(setting)
    return str(getattr(setting, "__name__", type(setting).__name__))


class ContrastiveAugmenter(Augmenter):
    """Several views of each example, each made by a function of one example.

    Args:
        process: ``example -> array``; called for each example and view, and draws its random numbers as any augmenter
            does. Examples may differ in shape; what it returns must not.
        num_views: how many views there are of each example.

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
        """The views, and y as it is.

        Returns:
            ((view, view, ...), y): ``num_views`` arrays (n, ...), of which row i is made from ``x[i]``.

        Raises:
            ValueError: ``process`` returned arrays of different shapes.
        """
        return tuple(self._view(x) for _ in range(self.num_views)), y

    def _view(self, x: Any) -> Any:
        views = [
            exact.as_array(self.process(copy.copy(example))) for example in x
        ]  # it may write into what it is given
        for example, view in zip(x, views, strict=True):
            if view.shape != views[0].shape:
                raise ValueError(
                    f"process must return arrays of one shape, not {views[0].shape} of an example of {np.shape(x[0])} "
                    f"and {view.shape} of one of {np.shape(example)}"
                )
        return exact.stacked(views)


AugmenterFunction: TypeAlias = Callable[[Any, Any, int, bool], tuple[Any, Any]]


def check_augmenter(augmenter: Any) -> AugmenterFunction | None:
    """``augmenter``, if it can be called with four arguments or is None.

    Raises:
        TypeError: it cannot. What has no signature to read (some compiled functions) passes.
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
