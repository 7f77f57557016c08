"""Store many strings, such as a million paths, in two arrays, which can be shared and are fast to pickle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .share import share

MANY = 1000  # from this many strings on, it pays to store them in arrays
LARGE_NBYTES = 1 << 20  # an array of this size or more is shared
_LONG_NBYTES = 64 << 10  # numpy pads each string to the size of the longest. Up to this size, that is accepted;
_MAX_PADDING = 4  # beyond that size, only if the padded strings are at most this many times larger than the strings
_CODE = "utf-8", "surrogatepass"  # for any str, including paths that are not valid text


class Strings(Sequence[Any]):
    """An immutable sequence of many strings, all ``str`` or all ``bytes``, stored in two arrays.

    Args:
        strings: at least one, all of the same type.

    Attributes:
        dtype: the dtype for arrays of these strings: numpy's fixed-length strings, or object if fixed lengths would
            change a string or waste memory.
        shape: (the number of strings,).
    """

    def __init__(self, strings: Sequence[Any]) -> None:
        self.is_text = type(strings[0]) is str
        self.dtype = _dtype_of(strings)
        self.shape = (len(strings),)
        pieces = [each.encode(*_CODE) for each in strings] if self.is_text else strings
        self.bytes = np.frombuffer(b"".join(pieces), np.uint8)
        self.ends = np.fromiter(map(len, pieces), np.int64, len(pieces)).cumsum()

    @staticmethod
    def suit(values: Any) -> bool:
        """Return True if ``values`` is a list of strings of one type that is long enough to be worth this class."""
        return type(values) is list and len(values) >= MANY and _are_strings(values)

    @staticmethod
    def must_hold(values: Any) -> bool:
        """Return True if ``values`` are strings of one type that numpy's own dtypes would change or pad too much."""
        is_list = isinstance(values, (list, tuple)) and len(values) > 0
        return is_list and _are_strings(values) and _dtype_of(values).hasobject

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        end = int(self.ends[at])
        at = int(at) % len(self)
        found = self.bytes[int(self.ends[at - 1]) if at else 0 : end].tobytes()
        return found.decode(*_CODE) if self.is_text else found

    def __iter__(self) -> Iterator[Any]:
        return map(self.__getitem__, range(len(self)))

    def tolist(self) -> list[Any]:
        return list(self)

    def share(self) -> None:
        """Move each of the two arrays that hold the strings into shared memory if it has 1 MB or more."""
        self.bytes, self.ends = shared(self.bytes), shared(self.ends)

    def as_array(self, at: Any) -> np.ndarray[Any, Any]:
        """Return the strings at the indices ``at``, a slice or integers, as an array of dtype ``self.dtype``."""
        return array_of(self[at] if isinstance(at, slice) else [self[each] for each in at], self.dtype)


def array_of(values: Any, dtype: Any = object) -> np.ndarray[Any, Any]:
    """Return a one-dimensional array with one item for each of ``values``, even if the values are sequences."""
    array = np.empty(len(values), dtype)
    array[:] = values
    return array


def _are_strings(values: Any) -> bool:
    return set(map(type, values)) in ({str}, {bytes})


def _dtype_of(strings: Sequence[Any]) -> np.dtype[Any]:
    """Return numpy's own dtype for ``strings`` of one type, or object if that would change or overly pad them."""
    is_text = type(strings[0]) is str
    zero: Any = "\0" if is_text else b"\0"
    longest = max(1, *map(len, strings))
    dtype = np.dtype(f"{'U' if is_text else 'S'}{longest}")
    is_padding = dtype.itemsize > _LONG_NBYTES and longest * len(strings) > _MAX_PADDING * sum(map(len, strings))
    return np.dtype(object) if is_padding or any(each.endswith(zero) for each in strings) else dtype


def shared(values: Any) -> Any:
    """Return a copy of ``values`` in shared memory if they are a plain array of 1 MB or more, else ``values``.

    An array over a mapped file, or one that is in shared memory already, is not copied either.
    """
    is_plain = type(values) is np.ndarray and not values.dtype.hasobject and values.nbytes >= LARGE_NBYTES
    return share(values) if is_plain and not _is_mapped(values) else values


def _is_mapped(array: Any) -> bool:
    """Return True if the memory of ``array`` is that of a mapped file (``np.memmap``)."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False
