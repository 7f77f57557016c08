"""Sends a ``np.memmap`` to the workers as the name of its file and its place there; each worker maps the file again.

The file may have changed by then. If it is gone or too short, opening it raises an error in the worker. If it becomes
shorter later, a worker that reads beyond its new end is killed by SIGBUS; :func:`shortened` then names the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share
from workers.batch.shared_memory import address_of


class MappedFile(NamedTuple):
    """A file that workers map into memory, and the length of the mapped part: MappedFile("/data/x.npy", 4096)."""

    path: str
    nbytes: int  # from the start of the file to the last mapped byte


class Reopened(NamedTuple):
    """The place and layout of an array in a file: the arguments with which :func:`open_memmap` maps it again."""

    path: str
    dtype: Any
    offset: int  # from the start of the file to the array's lowest byte
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def file(self) -> MappedFile:
        return MappedFile(self.path, self.offset + self.extent()[1])

    def extent(self) -> tuple[int, int]:
        """Return (offset in bytes from the array's first item to its lowest address, number of bytes that it spans)."""
        return share.extent(0, self.dtype.itemsize, self.shape, self.strides)


def reopened(array: Any) -> Reopened | None:
    """Return how to map ``array``, a memmap or a view of one, from its file again; None for any other array.

    Also None for mode "c" (copy-on-write), as the array may then hold changes that are in no file.
    """
    base = array
    while base is not None and not isinstance(base, np.memmap):
        base = getattr(base, "base", None) if isinstance(base, np.ndarray) else None
    if base is None or base.filename is None or base.mode == "c":
        return None
    # A view copies the offset of the whole mapping, so go back to the array of the whole mapping.
    while isinstance(base.base, np.memmap):
        base = base.base
    if type(array) not in (np.ndarray, np.memmap):
        return None
    offset = base.offset + address_of(array) - address_of(base)
    again = Reopened(os.fspath(str(base.filename)), array.dtype, offset, array.shape, array.strides)
    return again._replace(offset=offset + again.extent()[0])


def open_memmap(*arguments: Any) -> Any:
    """Map an array in a file again, read-only. ``arguments``: the fields of :class:`Reopened`. Runs in: worker.

    Raises:
        FileNotFoundError, PermissionError: the file cannot be opened.
        ValueError: the file is too short. Each of these errors names the file.
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
    """Return a description of each of ``files`` that can no longer be read, or is shorter than its mapped part."""
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
