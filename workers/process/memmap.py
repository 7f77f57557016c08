"""A ``np.memmap`` on its way to the workers: it is sent as its file, which each worker opens again.

The file may have changed by then. If it is gone or too short, the worker raises an error when it opens it. A worker
that reads beyond the end of a file that is shortened later is killed by SIGBUS; :func:`shortened` then names the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share
from workers.batch.shared_memory import address_of


class MappedFile(NamedTuple):
    """A file and the length of its mapped part: MappedFile("/data/x.npy", 4096)."""

    path: str
    nbytes: int  # from the start of the file to the last mapped byte


class Reopened(NamedTuple):
    """The arguments with which :func:`open_memmap` opens the same part of a file again."""

    path: str
    dtype: Any
    offset: int  # in the file, of the array's first byte in memory order
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def file(self) -> MappedFile:
        return MappedFile(self.path, self.offset + self.extent()[1])

    def extent(self) -> tuple[int, int]:
        """Return (offset of the first byte from the first item, number of bytes from it to the last one)."""
        return share.extent(0, self.dtype.itemsize, self.shape, self.strides)


def reopened(array: Any) -> Reopened | None:
    """Return how to reopen the file of a memmap or of a view of one; None for other arrays and for mode "c"."""
    base = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None) if isinstance(base, np.ndarray) else None
    if base is None or base.filename is None or base.mode == "c":
        return None
    # A view has the offset of the whole mapping, not that of its own part.
    while isinstance(base.base, np.memmap):
        base = base.base
    if type(array) not in (np.ndarray, np.memmap):
        return None
    offset = base.offset + address_of(array) - address_of(base)
    again = Reopened(os.fspath(str(base.filename)), array.dtype, offset, array.shape, array.strides)
    return again._replace(offset=offset + again.extent()[0])


def open_memmap(*arguments: Any) -> Any:
    """Return the array that :class:`Reopened` describes, read-only. Runs in: worker.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be opened. ValueError: it is too short. Each names it.
    """
    path, dtype, offset, shape, strides = again = Reopened(*arguments)
    size, wanted = os.stat(path).st_size, again.file().nbytes
    if size < wanted:
        raise ValueError(
            f"the file of a np.memmap in the Sequence is too short: {path} has {size:,} bytes now, and {wanted:,} were "
            f"mapped (shape {shape}, {dtype}, from byte {offset:,} on). It was probably shortened or replaced meanwhile"
        )
    low, nbytes = again.extent()
    mapped = np.memmap(path, np.uint8, "r", offset, (nbytes,))
    array: Any = np.ndarray(shape, dtype, mapped, -low, strides)
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        return array
    return mapped.view(dtype).reshape(shape, order="C" if array.flags.c_contiguous else "F")


def shortened(files: Iterable[MappedFile]) -> list[str]:
    """Describe those of ``files`` that are gone or shorter than their mapped part, with sizes."""
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
