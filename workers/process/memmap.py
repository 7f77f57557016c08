"""A ``np.memmap`` on its way to the workers: as its file, which each of them opens again.

The file may change meanwhile. Where it is gone or too short, a worker says so when it opens it. Who reads behind the
end of a file that was shortened later is killed by SIGBUS; :func:`shortened` then tells which file it was.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share
from workers.batch.shared_memory import address_of


class MappedFile(NamedTuple):
    """A file, and how much of it is mapped: MappedFile("/data/x.npy", 4096)."""

    path: str
    nbytes: int  # up to the last byte that is mapped


class Reopened(NamedTuple):
    """What opens the same part of a file again: the arguments of :func:`open_memmap`."""

    path: str
    dtype: Any
    offset: int  # of the first byte of the array in the file
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def file(self) -> MappedFile:
        return MappedFile(self.path, self.offset + self.extent()[1])

    def extent(self) -> tuple[int, int]:
        """(the first byte, seen from the first item; the number of bytes to the last one)."""
        return share.extent(0, self.dtype.itemsize, self.shape, self.strides)


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
    if type(array) not in (np.ndarray, np.memmap):
        return None
    offset = base.offset + address_of(array) - address_of(base)
    again = Reopened(os.fspath(str(base.filename)), array.dtype, offset, array.shape, array.strides)
    return again._replace(offset=offset + again.extent()[0])


def open_memmap(*arguments: Any) -> Any:
    """The array of :class:`Reopened`, read-only. Runs in: worker.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be opened. ValueError: it is too short. Each names it.
    """
    path, dtype, offset, shape, strides = again = Reopened(*arguments)
    size, wanted = os.stat(path).st_size, again.file().nbytes
    if size < wanted:
        raise ValueError(
            f"the file of a np.memmap in the Sequence is too short: {path} has {size:,} bytes now, and {wanted:,} were "
            f"mapped (shape {shape}, {dtype}, from byte {offset:,} on)"
        )
    low, nbytes = again.extent()
    mapped = np.memmap(path, np.uint8, "r", offset, (nbytes,))
    array: Any = np.ndarray(shape, dtype, mapped, -low, strides)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return array
    return mapped.view(dtype).reshape(shape, order="C" if array.flags.c_contiguous else "F")


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
