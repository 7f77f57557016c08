"""The examples of a sampler, in any form users hold them: an array, which is not copied, or items to load."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch import exact
from workers.batch.exact import exact_array
from workers.batch.forms import is_of_framework
from workers.batch.strings import Strings, array_of, shared
from workers.batch.to_numpy import arrays_of
from workers.cache.items import ItemCache
from workers.checks import function_name
from workers.sequence.gather import gather, own_items
from workers.sequence.tables import check_table

from .ragged import Ragged, are_arrays, batch_of, common_shape

_NUM_LOOKED_AT = 16  # examples that are loaded to find their common shape


class Examples:
    """The examples ``x`` of a sampler, which are taken by their positions.

    Args:
        x: an array or a ``np.memmap`` (n, ...), used as it is; a tensor (TensorFlow, torch, JAX), a data frame or a
            list, converted to an array once; a list of arrays that differ in shape; a list of ``bytes`` or ``str``,
            kept as objects if numpy's strings would cut them short. With ``load_example_fn``: items to load, such as
            paths, in any object that has a length and can be indexed by position.
        load_example_fn: ``item of x -> array`` or ``bytes``; None: the items are the examples.
        cache: True to keep what ``load_example_fn`` returns in shared memory; or the folder to keep it in.

    Raises:
        TypeError, ValueError: ``x`` or ``load_example_fn`` has the wrong type, or ``x`` is empty or ragged.
    """

    def __init__(
        self, x: Any, load_example_fn: Callable[[Any], Any] | None, cache: bool | str | os.PathLike[str] = False
    ) -> None:
        if load_example_fn is not None and not callable(load_example_fn):
            raise TypeError(f"load_example_fn must be None or callable, not {load_example_fn!r:.200}")
        self.load_example_fn = load_example_fn
        self.x: Any = as_array(x) if load_example_fn is None else as_items(x)
        if not len(self.x):
            raise ValueError("x must have at least one element, but it is empty")
        self.cache = self._cache_of(cache)

    def _cache_of(self, cache: Any) -> ItemCache | None:
        if cache is False:
            return None
        if self.load_example_fn is None:
            raise TypeError("cache keeps what load_example_fn returns: give load_example_fn, or leave cache out")
        return ItemCache(len(self), self._made_from(), folder=None if cache is True else cache)

    def _made_from(self) -> list[Any]:
        return [self.load_example_fn, self.x]

    def begin_epoch(self, has_hooks: bool, num_changes: int) -> None:
        """Empty the cache, if there is one, if ``x`` or ``load_example_fn`` has changed."""
        if self.cache is not None:
            self.cache.begin_epoch(len(self), self._made_from(), has_hooks, num_changes)

    def __len__(self) -> int:
        return len(self.x)

    def take(self, positions: NDArray[np.int64], must_stack: bool = False, may_take_long: bool = False) -> NDArray[Any]:
        """Return copies of the examples at ``positions``: stacked, or as an object array (n,) if they differ in shape.

        ``may_take_long``: True: a progress bar shows how many of them ``load_example_fn`` has loaded.

        Raises:
            ValueError: ``must_stack`` is True, and they differ in shape.
        """
        at = positions.tolist()
        if self.load_example_fn is not None:
            loaded = [self._loaded(p) for p in (_with_bar(at) if may_take_long else at)]
            if all(isinstance(each, bytes) for each in loaded):
                return array_of(loaded)  # objects, each of its own length
            found = [exact.as_array(each, "the result of load_example_fn") for each in loaded]
        elif isinstance(self.x, Ragged):
            found = [self.x[position] for position in at]
        else:
            return exact.as_array(gather(self.x, positions))
        batch = own_items(batch_of(found))
        if must_stack and batch.shape[1:] != found[0].shape:
            other, shape = next((i, each.shape) for i, each in enumerate(found) if each.shape != found[0].shape)
            raise ValueError(
                f"without an augmenter, examples must be of one shape, not {found[0].shape} for x[{at[0]}] "
                f"and {shape} for x[{at[other]}]: crop or resize them in an augmenter, "
                "or in load_example_fn"
            )
        return batch

    def _loaded(self, position: int) -> Any:
        assert self.load_example_fn is not None
        if self.cache is None:
            return self.load_example_fn(self.x[position])
        kept = self.cache.get(position)
        if kept is None:
            kept = self.cache.computed(position, self._load, lambda: function_name(self.load_example_fn), position)
        return kept[0]

    def _load(self, position: int) -> list[Any]:
        assert self.load_example_fn is not None
        return [self.load_example_fn(self.x[position])]

    def share(self) -> None:
        """Move the examples into shared memory, for worker processes, if they are large."""
        if Strings.suit(self.x):
            self.x = Strings(list(self.x))
        if isinstance(self.x, (Strings, Ragged)):
            self.x.share()
        else:
            self.x = shared(self.x)

    def identity(self) -> list[Any]:
        """Return what identifies the examples in a saved state, as JSON: [number, shape or None]. None is loaded."""
        is_array = isinstance(self.x, np.ndarray) or (self.load_example_fn is None and isinstance(self.x, Strings))
        return [len(self.x), list(self.x.shape[1:]) if is_array else None]

    @property
    def example_shape(self) -> tuple[int | None, ...]:
        """The shape of one example; None for each axis along which examples differ. With ``load_example_fn``, 16
        examples are loaded to find it."""
        if isinstance(self.x, Ragged):
            return common_shape(self.x.shapes)
        if self.load_example_fn is None:
            return tuple(self.x.shape[1:])
        n = len(self.x)
        at = sorted({n * i // _NUM_LOOKED_AT for i in range(_NUM_LOOKED_AT)})
        return common_shape(np.shape(self.load_example_fn(self.x[position])) for position in at)


def _with_bar(positions: list[int]) -> Iterable[int]:
    from workers.sequence.progress import Bar

    return Bar(positions, desc="loading", unit=" examples")


def as_items(x: Any) -> Any:
    """Return ``x``, a tensor or data frame as an array. Raise TypeError if it has no length or indices."""
    x = without_framework(x)
    check_table("x", x, is_for_array=True)
    is_indexed = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    if not is_indexed or isinstance(x, (str, bytes, Mapping)):
        raise TypeError(
            f"x must have a length and be indexed by position, like a list or an array, not a {type(x).__name__}"
        )
    if isinstance(x, np.ndarray) and x.ndim == 0:
        raise TypeError(f"x must have one element per example, but it is an array without axes: {x!r:.200}")
    return x


def as_array(x: Any) -> NDArray[Any] | Ragged | Strings:
    """Return ``x`` as an array of examples, or as Ragged or Strings if no array holds them. An array is not copied."""
    x = as_items(x)
    if isinstance(x, (list, tuple)) and any(map(is_of_framework, set(map(type, x)))):
        x = arrays_of(list(x), "x")
    if isinstance(x, Strings) or Strings.must_hold(x):
        return x if isinstance(x, Strings) else Strings(x)
    if isinstance(x, np.ndarray) and not (x.dtype.hasobject and x.ndim == 1 and are_arrays(x)):
        return x
    advice = "convert each example to an array, or give load_example_fn"
    if isinstance(x, (list, tuple, np.ndarray)) and are_arrays(x) and len({each.shape for each in x}) > 1:
        return Ragged(x)
    try:
        array = exact_array(list(x))
    except ValueError as error:
        raise ValueError(f"x must hold examples of one shape, but it is ragged ({error}); {advice}") from None
    if array.dtype.hasobject or array.ndim == 0:
        kind = type(x[0]).__name__ if len(x) else type(x).__name__
        if all(isinstance(each, (str, bytes)) for each in array.flat):  # strings that numpy would change: b"a\\0"
            return array
        raise TypeError(f"x must hold arrays or numbers, not {kind} objects; {advice}")
    return array


def without_framework(x: Any) -> Any:
    """Return a tensor or a data frame as a numpy array, and anything else as it is.

    They are recognised by their methods, so that no framework is imported; and converted here, so that no worker needs
    the framework.
    """
    if isinstance(x, (np.ndarray, list, tuple)):
        return x
    if hasattr(x, "detach"):  # torch
        return exact.as_array(x, "x")
    for method in ("numpy", "to_numpy"):  # TensorFlow and torch; pandas and polars
        if callable(getattr(x, method, None)):
            return np.asarray(getattr(x, method)())
    return np.asarray(x) if hasattr(x, "__dlpack__") else x  # JAX
