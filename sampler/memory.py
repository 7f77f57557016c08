"""Samplers of data in memory, of a memory-mapped file, or of items that are loaded one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .augmenter import AugmenterFunction
from .permutation import Draws
from .sampler import Sampler


class SingleShotMemorySampler(Sampler):
    """Batches of ``class_per_batch`` different elements of x, each of which is a class of its own.

    Elements are drawn without repetition: none comes again before all have come, across epochs too, and none
    is twice in a batch. No list of them is kept, and a batch of 10**9 elements costs what one of 10**3 does.

    Args:
        x: the examples, one a class. An array or a ``np.memmap`` (n, ...) is used as it is; a tensor
            (TensorFlow, torch, JAX) or a list is made an array once. With ``load_example_fn``: items to load,
            such as paths, in anything that has a length and can be indexed by position.
        augmenter: see :class:`Sampler`. It makes the examples of a class: without one there is a single one.
        class_per_batch: how many elements of x go to the augmenter for a batch, 1 to len(x).
        steps_per_epoch: batches in an epoch.
        warmup: the first ``warmup`` epochs have ``is_warmup`` true. 0 or less: none.
        num_augmentations_per_example: how many examples the augmenter is asked to return for each of its own.
        load_example_fn: ``item of x -> array``, called for each drawn item; a batch is their stack.
        seed: what all random draws depend on; None: drawn once and kept in ``seed``.

    Raises:
        TypeError, ValueError: an argument is not of its kind or out of its range.

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
        if load_example_fn is not None and not callable(load_example_fn):
            raise TypeError(f"load_example_fn must be None or callable, not {load_example_fn!r:.200}")
        self.load_example_fn = load_example_fn
        self._x = _as_array(x) if load_example_fn is None else _as_items(x)
        if not len(self._x):
            raise ValueError("x must have at least one element, not 0")
        self._draws = self._draws_of(self.class_per_batch)

    def get_examples(self, batch_id: int, num_classes: int, example_per_class: int) -> tuple[Any, Any]:
        """The elements that batch ``batch_id`` of the current epoch is made of, before augmentation.

        Args:
            batch_id: the batch in its epoch.
            num_classes: how many elements. Each number has a series of draws of its own.
            example_per_class: has no effect, as in TensorFlow Similarity: of each class there is one example.

        Returns:
            x: (num_classes, ...), the dtype of ``x`` or of what ``load_example_fn`` returns.
            y: their positions in ``x``, (num_classes,), int32; int64 where len(x) exceeds 2**31 - 1.

        Raises:
            ValueError: ``num_classes`` is not 1 to len(x), or the loaded examples differ in shape.
        """
        draws = self._draws if num_classes == self._draws.k else self._draws_of(num_classes)
        positions = draws.batch(self.epoch * self.steps_per_epoch + batch_id)
        y = positions.astype(np.int32 if draws.n < 2**31 else np.int64, copy=False)
        if self.load_example_fn is None:
            return self._x[positions], y
        return self._load(positions.tolist()), y

    def _draws_of(self, class_per_batch: int) -> Draws:
        n = len(self._x)
        if not 1 <= class_per_batch <= n:
            raise ValueError(f"class_per_batch must be 1 to {n}, the length of x, not {class_per_batch}")
        return Draws(n, class_per_batch, self.seed)

    def _load(self, positions: list[int]) -> NDArray[Any]:
        assert self.load_example_fn is not None
        loaded = [np.asarray(self.load_example_fn(self._x[position])) for position in positions]
        shape = loaded[0].shape
        for position, example in zip(positions, loaded, strict=True):
            if example.shape != shape:
                raise ValueError(
                    f"load_example_fn must return arrays of one shape, not {shape} for x[{positions[0]}] "
                    f"and {example.shape} for x[{position}]"
                )
        return np.stack(loaded)

    @property
    def num_examples(self) -> int:
        """The length of x."""
        return len(self._x)

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one element of x; with ``load_example_fn`` the first one is loaded for it."""
        if self.load_example_fn is None:
            return tuple(self._x.shape[1:])
        return np.shape(self.load_example_fn(self._x[0]))


def _as_items(x: Any) -> Any:
    """``x`` as something with a length that can be indexed by position."""
    x = _without_framework(x)
    is_indexed = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    if not is_indexed or isinstance(x, (str, bytes, Mapping)):
        raise TypeError(
            f"x must have a length and be indexed by position, as a list or an array, not {type(x).__name__}"
        )
    if isinstance(x, np.ndarray) and x.ndim == 0:
        raise TypeError(f"x must be one element a class, not an array without axes: {x!r:.200}")
    return x


def _as_array(x: Any) -> NDArray[Any]:
    """``x`` as an array of examples; an array, mapped or not, is not copied."""
    x = _as_items(x)
    if isinstance(x, np.ndarray):
        return x
    advice = "make them one shape, or give load_example_fn"
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise ValueError(f"x must hold examples of one shape, but it is ragged ({error}); {advice}") from None
    if array.dtype.hasobject or array.ndim == 0:
        kind = type(x[0]).__name__ if len(x) else type(x).__name__
        raise TypeError(f"x must hold arrays or numbers, not {kind} objects; {advice}")
    return array


def _without_framework(x: Any) -> Any:
    """A tensor or a data frame as a numpy array, anything else as it is.

    Known by what they can do, so that no framework is imported; converted here, so that no worker needs one.
    """
    if isinstance(x, (np.ndarray, list, tuple)):
        return x
    if hasattr(x, "detach"):  # torch
        x = x.detach().cpu()
    for method in ("numpy", "to_numpy"):  # TensorFlow and torch; pandas and polars
        if callable(getattr(x, method, None)):
            return np.asarray(getattr(x, method)())
    return np.asarray(x) if hasattr(x, "__dlpack__") else x  # JAX
