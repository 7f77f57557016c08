"""Sends a ``np.memmap`` to the workers as a file name and an offset, from which each worker maps the same data again.

The file may change in the meantime. If it is missing or too short, mapping it raises an error in the worker. If it is
shortened later, a worker that reads beyond its new end is killed by SIGBUS; :func:`shortened` then names the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share
from workers.batch.shared_memory import address_of


class MappedFile(NamedTuple):
    """A file that workers map into memory, up to its byte ``nbytes``: MappedFile(path="/data/x.npy", nbytes=4096)."""

    path: str
    nbytes: int  # from the start of the file to the last mapped byte


class Reopened(NamedTuple):
    """The position and layout of an array in a file: what :func:`open_memmap` needs to map the array again."""

    path: str
    dtype: Any
    offset: int  # from the start of the file to the array's lowest byte
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def file(self) -> MappedFile:
        return MappedFile(self.path, self.offset + self.extent()[1])

    def extent(self) -> tuple[int, int]:
        """Return (offset of the array's lowest byte from its first item, negative or 0; number of bytes it spans)."""
        return share.extent(0, self.dtype.itemsize, self.shape, self.strides)


def reopened(array: Any) -> Reopened | None:
    """Return where ``array`` lies in its file, if it is a memmap or a view of one; None for any other array.

    Return None for mode "c" (copy-on-write) as well, since such an array may hold changes that are not in its file.
    """
    base = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None) if isinstance(base, np.ndarray) else None
    if base is None or base.filename is None or base.mode == "c":
        return None
    # A view has the offset of the whole mapping instead of its own: find the array of the whole mapping.
    while isinstance(base.base, np.memmap):
        base = base.base
    if type(array) not in (np.ndarray, np.memmap):
        return None
    offset = base.offset + address_of(array) - address_of(base)
    again = Reopened(os.fspath(str(base.filename)), array.dtype, offset, array.shape, array.strides)
    return again._replace(offset=offset + again.extent()[0])


def open_memmap(*arguments: Any) -> Any:
    """Map an array from its file again, read-only. ``arguments``: the fields of :class:`Reopened`. Runs in: worker.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be opened. These errors name the file.
        ValueError: the file is too short. The error names the file, its size and the array.
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
    """Return a text about each of ``files`` that can no longer be read, or is now shorter than its mapped part."""
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
