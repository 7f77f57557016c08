"""Examples of different shapes, such as photos: kept in one array, and in batches that do not stack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch.exact import stacked
from workers.batch.strings import shared


class Ragged:
    """Arrays that differ in shape, one after the other in a single array, which worker processes can share.

    Args:
        arrays: of any shapes and dtypes. They are converted to one dtype, as by ``np.stack``.
    """

    def __init__(self, arrays: Iterable[NDArray[Any]]) -> None:
        arrays = list(arrays)
        if any(map(np.ma.is_masked, arrays)):
            raise TypeError("x must not hold masked arrays of different shapes: fill them, or give load_example_fn")
        dtypes = {array.dtype for array in arrays}
        if np.result_type(*dtypes).kind == "f" and all(dtype.kind in "iu" for dtype in dtypes):
            raise TypeError(
                f"x must hold arrays of one kind of integers, not of {' and '.join(sorted(map(str, dtypes)))}"
            )
        self.shapes = [array.shape for array in arrays]
        self.ends = np.cumsum([array.size for array in arrays])
        self.values = np.empty(int(self.ends[-1]), np.result_type(*dtypes))
        for array, end in zip(arrays, self.ends.tolist(), strict=True):
            self.values[end - array.size : end] = array.ravel()

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, position: int) -> NDArray[Any]:
        """Return the array at ``position``, e.g. (height, width, 3), as a view, not a copy."""
        shape, end = self.shapes[position], int(self.ends[position])
        return self.values[end - int(np.prod(shape, dtype=np.int64)) : end].reshape(shape)

    def share(self) -> None:
        """Move the arrays into shared memory, for worker processes, if they are large."""
        self.values = shared(self.values)


def are_arrays(x: Any) -> bool:
    """Return True if ``x``, a list, tuple or object array, is not empty and holds only arrays without objects."""
    return len(x) > 0 and all(isinstance(each, np.ndarray) and not each.dtype.hasobject for each in x)


def batch_of(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Return ``arrays`` stacked, or as an object array (n,) if they differ in shape."""
    if len({array.shape for array in arrays}) == 1:
        return stacked(arrays)
    batch = np.empty(len(arrays), object)
    batch[:] = arrays
    return batch


def common_shape(shapes: Iterable[tuple[int, ...]]) -> tuple[int | None, ...]:
    """Return ``shapes`` as one shape, with None for each axis along which they differ.

    Raises:
        ValueError: they have different numbers of axes.
    """
    known = sorted(set(shapes))
    if len({len(shape) for shape in known}) > 1:
        raise ValueError(f"examples must all have the same number of axes, not {known[0]} and {known[-1]}")
    return tuple(along[0] if len(set(along)) == 1 else None for along in zip(*known, strict=True))


def check_stacked(part: Any, what: str) -> None:
    """Raise ValueError if ``part`` of a batch is or contains an object array of arrays, which did not stack. ``what``:
    the function that returned it."""
    if isinstance(part, (tuple, list)):
        for each in part:
            check_stacked(each, what)
    elif isinstance(part, np.ndarray) and part.dtype.hasobject and part.ndim == 1 and are_arrays(part):
        shapes = sorted({each.shape for each in part})
        raise ValueError(
            f"{what} must return arrays that stack, not arrays of shapes {shapes[0]} and {shapes[-1]}: "
            "crop or resize them, or return a list of arrays"
        )
