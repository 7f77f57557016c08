"""Examples in whatever form users hold them: one array that is not copied, or items that are loaded one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch import exact
from workers.batch.exact import exact_array
from workers.batch.forms import is_of_framework
from workers.batch.strings import Strings, array_of, shared
from workers.batch.to_numpy import arrays_of
from workers.sequence.gather import gather, own_items
from workers.sequence.tables import check_table

from .ragged import Ragged, are_arrays, batch_of, common_shape

_NUM_LOOKED_AT = 16  # examples that are loaded to see whether they are of one shape


class Examples:
    """The examples ``x`` of a sampler, by position.

    Args:
        x: an array or a ``np.memmap`` (n, ...), used as it is; a tensor (TensorFlow, torch, JAX), a data frame or a
            list, made an array once; a list of arrays that differ in shape; a list of ``bytes`` or ``str``, as objects
            where numpy's strings would cut them short. With ``load_example_fn``: items to load, such as paths, in
            anything that has a length and can be indexed by position.
        load_example_fn: ``item of x -> array`` or ``bytes``; None: the items are the examples.

    Raises:
        TypeError, ValueError: ``x`` or ``load_example_fn`` is not of its kind; names it.
    """

    def __init__(self, x: Any, load_example_fn: Callable[[Any], Any] | None) -> None:
        if load_example_fn is not None and not callable(load_example_fn):
            raise TypeError(f"load_example_fn must be None or callable, not {load_example_fn!r:.200}")
        self.load_example_fn = load_example_fn
        self.x: Any = as_array(x) if load_example_fn is None else as_items(x)
        if not len(self.x):
            raise ValueError("x must have at least one element, not 0")

    def __len__(self) -> int:
        return len(self.x)

    def take(self, positions: NDArray[np.int64], must_stack: bool = False, may_take_long: bool = False) -> NDArray[Any]:
        """The examples at ``positions``, nobody else's: stacked, or, where they differ in shape, an object array (n,).

        ``may_take_long``: a bar shows how many of them ``load_example_fn`` has loaded.

        Raises:
            ValueError: ``must_stack``, and they differ in shape.
        """
        at = positions.tolist()
        if self.load_example_fn is not None:
            loaded = [self.load_example_fn(self.x[p]) for p in (_with_bar(at) if may_take_long else at)]
            if all(isinstance(each, bytes) for each in loaded):
                return array_of(loaded)  # each of its own length
            found = [exact.as_array(each, "what load_example_fn returned") for each in loaded]
        elif isinstance(self.x, Ragged):
            found = [self.x[position] for position in at]
        else:
            return exact.as_array(gather(self.x, positions))
        batch = own_items(batch_of(found))
        if must_stack and batch.shape[1:] != found[0].shape:
            other, shape = next((i, each.shape) for i, each in enumerate(found) if each.shape != found[0].shape)
            raise ValueError(
                f"without an augmenter, examples must be of one shape, not {found[0].shape} for x[{at[0]}] "
                f"and {shape} for x[{at[other]}]: an augmenter gets them as they are and may crop them; "
                "or have load_example_fn resize them"
            )
        return batch

    def share(self) -> None:
        """Hold them in shared memory, and nowhere else."""
        if Strings.suit(self.x):
            self.x = Strings(list(self.x))
        if isinstance(self.x, (Strings, Ragged)):
            self.x.share()
        else:
            self.x = shared(self.x)

    def identity(self) -> list[Any]:
        """What tells them from others without looking at one, as JSON."""
        is_array = isinstance(self.x, np.ndarray) or (self.load_example_fn is None and isinstance(self.x, Strings))
        return [len(self.x), list(self.x.shape[1:]) if is_array else None]

    @property
    def example_shape(self) -> tuple[int | None, ...]:
        """The shape of one example, None along the axes in which they differ. With ``load_example_fn``: of 16 of them,
        which are loaded for it."""
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
    """``x`` as something with a length that can be indexed by position."""
    x = without_framework(x)
    check_table("x", x, is_for_array=True)
    is_indexed = hasattr(x, "__len__") and hasattr(x, "__getitem__")
    if not is_indexed or isinstance(x, (str, bytes, Mapping)):
        raise TypeError(
            f"x must have a length and be indexed by position, as a list or an array, not {type(x).__name__}"
        )
    if isinstance(x, np.ndarray) and x.ndim == 0:
        raise TypeError(f"x must be one element a class, not an array without axes: {x!r:.200}")
    return x


def as_array(x: Any) -> NDArray[Any] | Ragged | Strings:
    """``x`` as an array of examples; an array, mapped or not, is not copied."""
    x = as_items(x)
    if isinstance(x, (list, tuple)) and any(map(is_of_framework, set(map(type, x)))):
        x = arrays_of(list(x), "x")
    if isinstance(x, Strings) or Strings.must_hold(x):
        return x if isinstance(x, Strings) else Strings(x)
    if isinstance(x, np.ndarray) and not (x.dtype.hasobject and x.ndim == 1 and are_arrays(x)):
        return x
    advice = "make them one shape, or arrays, or give load_example_fn"
    if isinstance(x, (list, tuple, np.ndarray)) and are_arrays(x) and len({each.shape for each in x}) > 1:
        return Ragged(x)
    try:
        array = exact_array(list(x))
    except ValueError as error:
        raise ValueError(f"x must hold examples of one shape, but it is ragged ({error}); {advice}") from None
    if array.dtype.hasobject or array.ndim == 0:
        kind = type(x[0]).__name__ if len(x) else type(x).__name__
        if all(isinstance(each, (str, bytes)) for each in array.flat):  # exact only as objects, such as b"a\\0" in rows
            return array
        raise TypeError(f"x must hold arrays or numbers, not {kind} objects; {advice}")
    return array


def without_framework(x: Any) -> Any:
    """A tensor or a data frame as a numpy array, anything else as it is.

    Known by what they can do, so that no framework is imported; converted here, so that no worker needs one.
    """
    if isinstance(x, (np.ndarray, list, tuple)):
        return x
    if hasattr(x, "detach"):  # torch
        return exact.as_array(x, "x")
    for method in ("numpy", "to_numpy"):  # TensorFlow and torch; pandas and polars
        if callable(getattr(x, method, None)):
            return np.asarray(getattr(x, method)())
    return np.asarray(x) if hasattr(x, "__dlpack__") else x  # JAX
