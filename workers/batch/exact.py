"""Convert lists to arrays without changing values; numpy itself may change strings, masks and large integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.checks import short

from .forms import is_of_framework
from .to_numpy import arrays_of

Array = np.ndarray[Any, Any]

_EXACT_UP_TO = 2.0**53  # a float64 holds all integers up to here


def exact_array(values: Any, name: str = "a value") -> Array:
    """Return ``np.asarray(values)``, but preserve strings, masks and integers that ``np.asarray`` would change.

    - The result is an array of objects if numpy would change a string: it drops trailing NULs, and converts numbers
      and ASCII bytes among strings to text.
    - The result is a masked array if ``values`` include masked arrays or ``np.ma.masked``.
    - Integers stay integers if all values are integers: numpy may convert them to floats if some are 2**63 or more.

    Args:
        name: the name of a tensor of ``values`` in the text of a TypeError.

    Raises:
        ValueError: the shapes of the items differ.
        TypeError: no dtype holds all the integers, or a tensor cannot become an array.
    """
    if not isinstance(values, (list, tuple)):
        return as_array(values, name)
    if any(map(is_of_framework, set(map(type, values)))):
        values = [each if each.ndim else each[()] for each in arrays_of(list(values), name)]
    if any(each is np.ma.masked for each in values):
        return _with_masked(values)
    if any(isinstance(each, np.ma.MaskedArray) for each in values):
        return np.ma.array(values)
    array = np.asarray(values)
    if array.dtype.kind in "SU":
        objects = _as_objects(values, array.shape)
        return array if objects.tolist() == array.tolist() else objects
    if array.dtype.kind == "f" and array.size and bool((np.abs(array) >= _EXACT_UP_TO).any()):
        integers = _as_objects(values, array.shape)
        if all(isinstance(each, (int, np.integer)) for each in integers.flat):
            return _of_integers(integers)
    return array


def stacked(arrays: list[Array]) -> Array:
    """Return ``np.stack(arrays)``; the result is a masked array if any of ``arrays`` is one."""
    if any(array is np.ma.masked for array in arrays):
        return _with_masked(arrays)
    is_masked = any(isinstance(array, np.ma.MaskedArray) for array in arrays)
    return np.ma.stack(arrays) if is_masked else np.stack(arrays)


def as_array(value: Any, name: str = "a value") -> Array:
    """Return ``value`` as an array: like ``np.asarray``, but for tensors of all frameworks, and without losing a mask.

    If a tensor cannot become an array, raise a TypeError that calls the tensor ``name``.
    """
    return value if isinstance(value, np.ma.MaskedArray) else arrays_of([value], name)[0]


def _with_masked(values: Any) -> Array:
    """Return ``values`` as a masked array with each ``np.ma.masked`` masked, in the dtype of the other values."""
    is_masked = np.array([each is np.ma.masked for each in values])
    known = next((each for each in values if each is not np.ma.masked), np.float64(0.0))
    array = exact_array([known if each is np.ma.masked else each for each in values])
    mask = is_masked.reshape(-1, *[1] * (array.ndim - 1)) | np.ma.getmaskarray(array)
    return np.ma.MaskedArray(np.ma.getdata(array), mask)


def _as_objects(values: Any, shape: tuple[int, ...]) -> Array:
    objects = np.empty(shape, object)
    objects[...] = values
    return objects


def _of_integers(integers: Array) -> Array:
    low, high = min(map(int, integers.flat)), max(map(int, integers.flat))
    for dtype in (np.int64, np.uint64):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:  # numpy 1 would wrap others
            return integers.astype(dtype)
    raise TypeError(
        f"no dtype holds all integers of {short(integers.tolist())}: some are below 0, and others 2**63 or more; pass "
        "them as strings, or as an array of objects"
    )
