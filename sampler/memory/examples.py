"""Examples in whatever form users hold them: one array that is not copied, or items that are loaded one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch.strings import Strings, shared
from workers.sequence.gather import gather


class Examples:
    """The examples ``x`` of a sampler, by position.

    Args:
        x: an array or a ``np.memmap`` (n, ...), used as it is; a tensor (TensorFlow, torch, JAX), a data frame or a
            list, made an array once. With ``load_example_fn``: items to load, such as paths, in anything that has a
            length and can be indexed by position.
        load_example_fn: ``item of x -> array``; None: the items are the examples.

    Raises:
        TypeError, ValueError: ``x`` or ``load_example_fn`` is not of its kind; names it.
    """

    def __init__(self, x: Any, load_example_fn: Callable[[Any], Any] | None) -> None:
        if load_example_fn is not None and not callable(load_example_fn):
            raise TypeError(f"load_example_fn must be None or callable, not {load_example_fn!r:.200}")
        self.load_example_fn = load_example_fn
        self.x = as_array(x) if load_example_fn is None else as_items(x)
        if not len(self.x):
            raise ValueError("x must have at least one element, not 0")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The examples at ``positions``, stacked; nobody else's.

        Raises:
            ValueError: the loaded examples differ in shape.
        """
        if self.load_example_fn is None:
            return np.asarray(gather(self.x, positions))
        at = positions.tolist()
        loaded = [np.asarray(self.load_example_fn(self.x[position])) for position in at]
        shape = loaded[0].shape
        for position, example in zip(at, loaded, strict=True):
            if example.shape != shape:
                raise ValueError(
                    f"load_example_fn must return arrays of one shape, not {shape} for x[{at[0]}] "
                    f"and {example.shape} for x[{position}]"
                )
        return np.stack(loaded)

    def share(self) -> None:
        """Hold them in shared memory, and nowhere else."""
        if Strings.suit(self.x):
            self.x = Strings(list(self.x))
        if isinstance(self.x, Strings):
            self.x.share()
        else:
            self.x = shared(self.x)

    def identity(self) -> list[Any]:
        """What tells them from others without looking at one, as JSON."""
        return [len(self.x), list(self.x.shape[1:]) if self.load_example_fn is None else None]

    @property
    def example_shape(self) -> tuple[int, ...]:
        """The shape of one example; with ``load_example_fn`` the first one is loaded for it."""
        if self.load_example_fn is None:
            return tuple(self.x.shape[1:])
        return np.shape(self.load_example_fn(self.x[0]))


def as_items(x: Any) -> Any:
    """``x`` as something with a length that can be indexed by position."""
    x = without_framework(x)
    is_indexed = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    if not is_indexed or isinstance(x, (str, bytes, Mapping)):
        raise TypeError(
            f"x must have a length and be indexed by position, as a list or an array, not {type(x).__name__}"
        )
    if isinstance(x, np.ndarray) and x.ndim == 0:
        raise TypeError(f"x must be one element a class, not an array without axes: {x!r:.200}")
    return x


def as_array(x: Any) -> NDArray[Any]:
    """``x`` as an array of examples; an array, mapped or not, is not copied."""
    x = as_items(x)
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


def without_framework(x: Any) -> Any:
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
