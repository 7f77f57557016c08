"""Stack the arrays of samples, or join those of batches, into one array without changing a number or losing a mask."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from workers.batch.to_numpy import arrays_of
from workers.job.context import take_is_delivered

from .slot_writer import empty

#: The advice in errors about samples that cannot be stacked.
ALIKE = (
    "make all samples alike, for example by padding, or pass prefetch(..., batch_size=..., collate_fn=...) a function "
    "that makes a batch from the list of samples"
)

_Masked = np.ma.MaskedArray
_dtype_of = operator.attrgetter("dtype")


def stacked(values: list[Any], place: str = "") -> Any:
    """Stack ``values`` along a new first axis, in a dtype that holds every number exactly; masks are kept.

    Args:
        values: arrays, numbers, tensors or anything that ``numpy.asarray`` converts.
        place: the path of the values within a sample, for error messages, e.g. ``['id']``.

    Raises:
        TypeError: no dtype holds all values exactly, or a tensor cannot become an array.
        ValueError: the shapes differ.
    """
    return _combined(values, np.stack, np.ma.stack, place)


def stacked_in_place(values: list[Any], place: str = "") -> Any:
    """Stack ``values`` as :func:`stacked` does; in a worker, in the shared memory from which the loop will get them."""
    return _combined(values, _stack_in_place, np.ma.stack, place)


def stacking() -> Callable[[list[Any], str], Any]:
    """Return the function that stacks the samples of the running job: in place if its batch is delivered as it is."""
    return stacked_in_place if take_is_delivered() else stacked


def _stack_in_place(arrays: list[Any]) -> Any:
    first = arrays[0]
    if first.dtype.hasobject or not all(map(_is_in_c_order, arrays)):
        return np.stack(arrays)  # in the order of axes in memory that numpy chooses
    if any(array.shape != first.shape or array.dtype != first.dtype for array in arrays):
        return np.stack(arrays)
    return np.stack(arrays, out=empty((len(arrays), *first.shape), first.dtype))


def _is_in_c_order(array: Any) -> bool:
    """Return True if the items of ``array`` lie in the order of its axes in memory, perhaps with gaps or backwards."""
    if array.flags.c_contiguous:
        return True
    strides = [abs(stride) for stride, length in zip(array.strides, array.shape, strict=True) if length > 1]
    return strides == sorted(strides, reverse=True)


def concatenated(values: list[Any], place: str = "") -> Any:
    """Join ``values`` along their first axis; arguments and errors are those of :func:`stacked`."""
    return _combined(values, np.concatenate, np.ma.concatenate, place)


def _combined(values: list[Any], combine: Callable[..., Any], combine_masked: Callable[..., Any], place: str) -> Any:
    if not any(issubclass(kind, _Masked) for kind in set(map(type, values))):
        return _call(combine, of_one_dtype(arrays_of(values, f"sample{place}"), place), place)
    arrays = [value if isinstance(value, _Masked) else arrays_of([value], f"sample{place}")[0] for value in values]
    given = [array for array in arrays if array is not np.ma.masked]
    if given:  # np.ma.masked, a missing value, is float64 whatever the dtype of the other values
        missing: Any = np.ma.array(np.zeros((), given[0].dtype), mask=True)
        arrays = [missing if array is np.ma.masked else array for array in arrays]
    made = _call(combine_masked, of_one_dtype(arrays, place), place)
    masked = [array for array in given if isinstance(array, _Masked)]
    if masked and all(array.hardmask for array in masked):
        made.harden_mask()
    fills = [array.fill_value for array in masked if array.dtype == made.dtype]
    if fills and len(fills) == len(masked) and all(np.array_equal(fills[0], fill) for fill in fills):
        made.fill_value = fills[0]
    return made


def _call(combine: Callable[..., Any], arrays: list[Any], place: str) -> Any:
    try:
        return combine(arrays)
    except ValueError as error:
        first, *others = dict.fromkeys(array.shape for array in arrays)
        if not others:
            raise
        other = next((shape for shape in others if shape[1:] != first[1:]), others[0])
        if combine in (np.concatenate, np.ma.concatenate):
            text = f"batches to be joined{place} must be equal in all axes but the first, not {first} and {other}"
            raise ValueError(f"{text}: make them alike, or pass rebatch(..., collate_fn=...)") from error
        if any(array.dtype.hasobject and array.shape == () and array.item() is None for array in arrays):
            found = f"partly None and partly arrays of shape {first or other}"
        else:
            found = f"of different shapes, {first} and {other}"
        raise ValueError(f"samples{place} are {found}: {ALIKE}") from error


def of_one_dtype(arrays: list[Any], place: str) -> list[Any]:
    """Return ``arrays`` ready to be combined without loss: cast to one dtype where numpy's choice would change values.

    If no dtype holds all values exactly, raise a TypeError that names their path ``place``, such as ``['id']``.
    """
    if len(set(map(_dtype_of, arrays))) == 1:
        return arrays
    dtypes = list(dict.fromkeys(array.dtype for array in arrays))
    kinds = {dtype.kind for dtype in dtypes}
    shown = " and ".join(map(str, dtypes))
    if kinds & set("US") and kinds & set("biufc"):
        raise TypeError(
            f"samples{place} are of {shown}: together the numbers would become strings; use one type in all samples"
        )
    if len({_GROUP.get(kind, "other") for kind in kinds} - {"other"}) > 1:
        raise TypeError(f"samples{place} are of {shown}, which have nothing in common: use one type in all samples")
    if kinds <= set("mM"):
        return _of_one_unit(arrays, shown, place)
    if "O" in kinds or not kinds <= set("biufc") or not kinds & set("iu"):
        return arrays
    target = np.result_type(*dtypes)
    if target.kind not in "fc":
        return arrays
    if kinds <= set("biu"):  # for int64 and uint64, numpy chooses float64, which changes large ids
        wanted = _integer(arrays, dtypes)
        if wanted is not None:
            return [array.astype(wanted) for array in arrays]
    elif all(_is_exact(array, target) for array in arrays):
        return arrays
    raise TypeError(
        f"samples{place} are of {shown}: no dtype holds all their values exactly, and numpy's choice, {target}, would "
        "change some; convert them to one dtype in every sample"
    )


#: {kind of a dtype: its group}. numpy would combine some groups by changing values, such as dates into strings.
_GROUP = {**dict.fromkeys("biufc", "number"), "U": "text", "S": "bytes", "M": "date", "m": "duration"}


def _of_one_unit(arrays: list[Any], shown: str, place: str) -> list[Any]:
    """Return ``arrays``, all of dates or all of durations, converted to the one unit that numpy chooses for them."""
    found = [array.astype(np.result_type(*arrays)) for array in arrays]
    if all(
        np.array_equal(made.astype(array.dtype), array, equal_nan=True)
        for made, array in zip(found, arrays, strict=True)
    ):
        return found
    raise TypeError(
        f"samples{place} are of {shown}: numpy's choice for all, {found[0].dtype}, does not reach the most distant "
        "one; convert them to one dtype in every sample"
    )


def _integer(arrays: list[Any], dtypes: list[np.dtype[Any]]) -> np.dtype[Any] | None:
    """Return the first 64-bit integer dtype in ``dtypes`` that holds all values of ``arrays``; None if none does."""
    low = min((int(array.min()) for array in arrays if array.size), default=0)
    high = max((int(array.max()) for array in arrays if array.size), default=0)
    of_integers = [dtype for dtype in dtypes if dtype.kind in "iu" and dtype.itemsize == 8]
    return next((each for each in of_integers if np.iinfo(each).min <= low and high <= np.iinfo(each).max), None)


def _is_exact(array: Any, target: np.dtype[Any]) -> bool:
    """Return True if casting ``array`` to ``target``, a float or complex dtype, changes no integer in it."""
    limit = 2 ** (np.finfo(target).nmant + 1)  # all integers up to here are exact
    if array.dtype.kind not in "iu" or not array.size or np.iinfo(array.dtype).max <= limit:
        return True
    if -limit <= int(array.min()) and int(array.max()) <= limit:
        return True
    values = np.unique(array)
    return all(int(value) == int(number) for value, number in zip(values.astype(target).real, values, strict=True))
