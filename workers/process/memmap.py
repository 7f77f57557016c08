"""A ``np.memmap`` on its way to the workers: as its file, which each of them opens again.

The file may change meanwhile. Where it is gone or too short, a worker says so when it opens it. Who reads behind the
end of a file that was shortened later is killed by SIGBUS; :func:`shortened` then tells which file it was.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from workers.batch.shared_memory import address_of


class MappedFile(NamedTuple):
    """A file, and how much of it is mapped: MappedFile("/data/x.npy", 4096)."""

    path: str
    nbytes: int  # up to the last byte that is mapped


class Reopened(NamedTuple):
    """What opens the same part of a file again: the arguments of :func:`open_memmap`."""

    path: str
    dtype: Any
    offset: int
    shape: tuple[int, ...]
    order: str

    def file(self) -> MappedFile:
        return MappedFile(self.path, self.offset + math.prod(self.shape) * self.dtype.itemsize)


def reopened(array: Any) -> Reopened | None:
    """How to open the file of a memmap, or of an array that is a view of one, again; None for other arrays."""
    base = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None) if isinstance(base, np.ndarray) else None
    if base is None or base.filename is None or base.mode == "c":
        return None
    # A view remembers the offset of the whole file's mapping, whatever part of it the view is.
    while isinstance(base.base, np.memmap):
        base = base.base
    if type(array) not in (np.ndarray, np.memmap) or not (array.flags.c_contiguous or array.flags.f_contiguous):
        return None
    offset = base.offset + address_of(array) - address_of(base)
    order = "C" if array.flags.c_contiguous else "F"
    return Reopened(os.fspath(str(base.filename)), array.dtype, offset, array.shape, order)


def open_memmap(*arguments: Any) -> Any:
    """The array of :class:`Reopened`, read-only. Runs in: worker.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be opened. ValueError: it is too short. Each names it.
    """
    path, dtype, offset, shape, order = again = Reopened(*arguments)
    size, wanted = os.stat(path).st_size, again.file().nbytes
    if size < wanted:
        raise ValueError(
            f"the file of a np.memmap in the Sequence is too short: {path} has {size:,} bytes now, and {wanted:,} were "
            f"mapped (shape {shape}, {dtype}, from byte {offset:,} on)"
        )
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)  # type: ignore[call-overload]


def shortened(files: Iterable[MappedFile]) -> list[str]:
    """Which of ``files`` are shorter than what is mapped of them, or gone, with sizes."""
    found = []
    for path, nbytes in files:
        try:
            size = os.stat(path).st_size
        except OSError as error:
            found.append(f"{path} cannot be read any more: {error.strerror}")
            continue
        if size < nbytes:
            found.append(f"{path} has {size:,} bytes now, and {nbytes:,} are mapped")
    return found
