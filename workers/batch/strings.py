"""Many strings, such as a million paths, as two arrays: they are shared as any array is, and pickled in no time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .share import share

MANY = 1000  # so many are worth it
LARGE_NBYTES = 1 << 20  # so large an array is
_CODE = "utf-8", "surrogatepass"  # any str: also the paths that are no valid text


class Strings(Sequence[Any]):
    """A list of ``str``, or of ``bytes``, that does not change.

    Args:
        strings: all of one of the two types.
    """

    def __init__(self, strings: Sequence[Any]) -> None:
        self.is_text = type(strings[0]) is str
        pieces = [each.encode(*_CODE) for each in strings] if self.is_text else strings
        self.bytes = np.frombuffer(b"".join(pieces), np.uint8)
        self.ends = np.fromiter(map(len, pieces), np.int64, len(pieces)).cumsum()
        self.longest = max(map(len, strings))  # in characters

    @staticmethod
    def suit(values: Any) -> bool:
        """Whether ``values`` is a list of many strings, all of one type."""
        return type(values) is list and len(values) >= MANY and set(map(type, values)) in ({str}, {bytes})

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
        """Hold them in shared memory."""
        self.bytes, self.ends = shared(self.bytes), shared(self.ends)

    def as_array(self, at: Any) -> np.ndarray[Any, Any]:
        """Those at ``at`` (a slice or integers), as numpy has strings: of the same dtype whichever they are."""
        found = self[at] if isinstance(at, slice) else [self[each] for each in at]
        return np.array(found, f"{'U' if self.is_text else 'S'}{max(1, self.longest)}")


def shared(values: Any) -> Any:
    """``values`` in shared memory, if they are a large plain array; anything else as it is."""
    is_plain = type(values) is np.ndarray and not values.dtype.hasobject and values.nbytes >= LARGE_NBYTES
    return share(values) if is_plain and not _is_mapped(values) else values


def _is_mapped(array: Any) -> bool:
    """Whether its memory is a file's."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False
