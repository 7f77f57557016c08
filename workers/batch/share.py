"""Put arrays into shared memory, with ``workers.share``; all front-ends and workers use them without further copies.

A shared array is recognised by its address. So are its views, and objects that another library has made from it without
a copy, such as tensors. Small arrays share a piece of memory, since each piece costs a file descriptor.
"""

from __future__ import annotations

import bisect
import os
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from workers.checks import short

from . import shared_memory
from .slots import BYTE
from .tree import ALIGNMENT, Array

_SMALL_NBYTES = 1 << 20  # an array of this size or more has its own piece
_MAX_PAGE_NBYTES = 16 << 20  # of a piece for small arrays; the first has _SMALL_NBYTES, each further one twice as many


class Piece:
    """A piece of shared memory created by the consumer, with the file descriptor by which workers can map it.

    The memory is freed when the last process stops using it.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(nbytes, 1)
        self.descriptor = shared_memory.create(self.nbytes)
        self.close = weakref.finalize(self, os.close, self.descriptor)
        self.buffer = shared_memory.attach(self.descriptor, self.nbytes)
        self.bytes = shared_memory.view(self.buffer)
        self.address = shared_memory.address_of(self.buffer)


class Found(NamedTuple):
    """A place in shared memory: ``start`` bytes after the first byte of ``piece``."""

    piece: Piece
    start: int


class _Owner(np.ndarray[Any, Any]):
    """An array over all bytes of a piece of shared memory; it keeps the piece alive while any view of it exists.

    The views are plain numpy arrays, not of this class.
    """

    piece: Piece


class _Page(NamedTuple):
    """The piece of shared memory to which new small arrays are added; it is freed with the last of its arrays.

    No part of the memory is used twice, as workers may still read an array that this process has dropped.
    """

    piece: weakref.ref[Piece]
    end: int  # offset of its first free byte


_lock = threading.Lock()
_page: _Page | None = None
_shared: weakref.WeakValueDictionary[int, Piece] = weakref.WeakValueDictionary()  # {address: piece}
_addresses: tuple[int, ...] = ()  # of these pieces, ascending; some may be freed already
# {(address, nbytes): the copy of the bytes there}
_copies: weakref.WeakValueDictionary[tuple[int, int], Piece] = weakref.WeakValueDictionary()


def share(array: Any) -> Array:
    """Copy ``array`` into shared memory, where all front-ends and workers use it without another copy.

    Use the returned array in place of ``array``. It is read-only in the workers. What this process writes to it is
    visible to the workers immediately, even in running jobs. Its memory is freed when no process uses it any more.

    Args:
        array: an array of any size and any dtype but object, or anything that ``numpy.asarray`` converts to one.

    Returns:
        A plain, dense array of the same shape, dtype and memory order; ``array`` itself if it is in shared memory
        already. Views of it are shared too: rows, slices, ``torch.from_numpy(array)``. PyTorch has no read-only
        tensors, so a job that writes to a tensor over shared memory kills its worker.

    Raises:
        TypeError: ``array`` holds Python objects, or is masked.
        MemoryError: ``array`` does not fit into memory.
        PlatformError: this system has no shared memory, or a limit of the system prevents it.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("array is masked, and its mask would be lost: share array.data and array.mask")
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError(f"array must hold numbers or fixed-length strings, not objects: {short(array)}")
    if find(array) is not None:
        return array  # type: ignore[no-any-return]
    piece, start = _place(array.nbytes)
    owner = _Owner((piece.nbytes,), BYTE, piece.buffer)
    owner.piece = piece
    shared: Array = np.ndarray(array.shape, array.dtype, owner, start, _dense_strides(array))
    shared[...] = array
    return shared


def _dense_strides(array: Array) -> tuple[int, ...]:
    """Return the strides, in bytes, of a dense copy of ``array`` with its axes in the same order in memory.

    The same order in memory makes a sum over the copy equal to one over ``array``, to the last bit.
    """
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    strides, step = [0] * array.ndim, array.itemsize
    for axis in reversed(axes):
        strides[axis], step = step, step * max(array.shape[axis], 1)
    return tuple(strides)


def _place(nbytes: int) -> Found:
    """Reserve ``nbytes`` of shared memory, in the current page for small arrays or a new piece; return their place."""
    global _page, _addresses
    with _lock:
        is_small, new_nbytes = nbytes < _SMALL_NBYTES, nbytes
        if is_small:
            piece = None if _page is None else _page.piece()
            if _page is not None and piece is not None and _page.end + nbytes <= piece.nbytes:
                start, _page = _page.end, _page._replace(end=_after(_page.end + nbytes))
                return Found(piece, start)
            new_nbytes = _SMALL_NBYTES if piece is None else min(2 * piece.nbytes, _MAX_PAGE_NBYTES)
        piece = Piece(new_nbytes)
        if is_small:
            _page = _Page(weakref.ref(piece), _after(nbytes))
        _shared[piece.address] = piece
        _addresses = tuple(sorted(_shared.keys()))
    return Found(piece, 0)


def _forked() -> None:
    """Reset the lock and the page for small arrays in a forked process, since the page belongs to its parent."""
    global _lock, _page
    _lock, _page = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _after(end: int) -> int:
    """Return the offset at which the next array in a piece of memory starts, if the last one ends before ``end``.

    The result is always greater than ``end``, so that even an empty array and the next one start at different bytes.
    """
    return ALIGNMENT * (end // ALIGNMENT + 1)


def find(array: Array) -> Found | None:
    """Return the place of the first byte of ``array`` in memory made by :func:`share`.

    The array may be a view. Return None if its memory is not shared.
    """
    if not _addresses or array.base is None or not (nbytes := array.nbytes):  # an array without a base owns its memory
        return None
    address = shared_memory.address_of(array)
    if array.flags.c_contiguous:
        return find_bytes(address, nbytes)
    return find_bytes(*extent(address, array.itemsize, array.shape, array.strides))


def extent(address: int, itemsize: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
    """Return the memory that an array spans, as (the address of its lowest byte, the number of bytes).

    Args:
        address: the address of the array's first element, which is not the lowest if a stride is negative.
        itemsize: the size of an element, in bytes.
        shape: the lengths of the axes.
        strides: the distance between neighbouring elements along each axis, in bytes.
    """
    spans = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    low, high = (sum(bound(span, 0) for span in spans) for bound in (min, max))
    return address + low, high - low + itemsize


def find_bytes(address: int, nbytes: int) -> Found | None:
    """Return the place of the ``nbytes`` at ``address`` in memory made by :func:`share`; None if they lie elsewhere."""
    addresses = _addresses
    for at in range(bisect.bisect_right(addresses, address) - 1, -1, -1):
        piece = _shared.get(addresses[at])
        if piece is not None:  # else it was freed, and an earlier piece may extend to here
            start = address - addresses[at]
            return Found(piece, start) if start + nbytes <= piece.nbytes else None
    return None


def copy_of(source: memoryview, address: int) -> Piece:
    """Copy ``source``, the bytes of a large array at ``address``, into shared memory, and return the new piece.

    If an earlier copy of the same array exists, made for another front-end, and its bytes are still equal, return that.
    """
    key = address, source.nbytes
    theirs = np.frombuffer(source, BYTE)
    known = _copies.get(key)
    if known is not None and shared_memory.is_equal(theirs, np.frombuffer(known.bytes, BYTE, source.nbytes)):
        return known
    piece = Piece(source.nbytes)
    np.frombuffer(piece.bytes, BYTE)[: source.nbytes] = theirs
    _copies[key] = piece
    return piece
