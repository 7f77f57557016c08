"""``gather`` copies the rows of an array at given positions, quickly in any memory order and from files on disk."""

from __future__ import annotations

import copy
import mmap
from typing import Any

import numpy as np

from workers.batch.shared_memory import address_of
from workers.batch.strings import Strings
from workers.batch.tree import copy_of

_READ_AHEAD = getattr(mmap, "MADV_WILLNEED", None)
_MUTABLE = np.ndarray, list, dict, set, bytearray  # items of object arrays that can be modified in place


def gather(array: Any, positions: Any) -> np.ndarray[Any, Any]:
    """Return a copy of ``array[positions]`` as a numpy array.

    ``array`` is a numpy array or a Strings; ``positions`` are integers or a slice. If a ``np.memmap`` is indexed by
    integers, all rows are requested from the disk before the first is read: 64 rows of 9 KB then take 2 ms instead of
    340 ms. For rows that are in memory already, the requests cost 1.5 us a row.
    """
    if isinstance(array, Strings):
        return array.as_array(positions)
    if isinstance(positions, slice):
        part = array[positions]
        is_plain = type(array) in (np.ndarray, np.memmap) and not array.dtype.hasobject
        return copy_of(np.asarray(part)) if is_plain else own_items(part.copy())
    if isinstance(array, np.memmap):
        _read_ahead(array, positions)
        return np.asarray(array.take(positions, axis=0) if array.flags.c_contiguous else array[positions])
    if type(array) is np.ndarray and array.flags.c_contiguous:
        return own_items(np.asarray(array.take(positions, axis=0)))  # takes half the time of indexing
    return own_items(array[positions])  # take() would copy the whole array first


def own_items(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Replace the mutable items of an object array, such as lists, by deep copies of them; return the same array."""
    if array.dtype.hasobject and not array.dtype.names:
        for at, item in enumerate(array.flat):
            if isinstance(item, _MUTABLE):
                array[np.unravel_index(at, array.shape)] = copy.deepcopy(item)
    return array


def _read_ahead(array: Any, positions: Any) -> None:
    mapping = getattr(array, "_mmap", None)
    row = array.strides[0] if array.ndim else 0
    if _READ_AHEAD is None or mapping is None or not array.flags.c_contiguous or row <= 0:
        return
    start = address_of(array) - address_of(mapping)
    for position in (np.asarray(positions) % len(array)).tolist():
        first = start + position * row
        page = first - first % mmap.PAGESIZE
        mapping.madvise(_READ_AHEAD, page, first + row - page)
