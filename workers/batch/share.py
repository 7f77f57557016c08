"""``workers.share``: arrays in shared memory that all front-ends and workers map, without further copies.

Shared arrays are recognised by address, whatever their size. So views of them are recognised too, as are objects that
another library made of them without a copy. Small arrays share a piece of memory, as each piece costs a descriptor.
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

_SMALL_NBYTES = 1 << 20  # from here on, an array has its own piece
_MAX_PAGE_NBYTES = 16 << 20  # of a piece for small arrays; the first has _SMALL_NBYTES, each further one twice as many


class Piece:
    """A piece of shared memory made by the consumer: its descriptor, to be sent to workers, and its bytes.

    Its memory is freed with its last user.
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
    """The array of all bytes of a piece of shared memory, which keeps the piece alive as long as any view of it.

    Views are plain arrays.
    """

    piece: Piece


class _Page(NamedTuple):
    """The piece of shared memory in which new small arrays get their places. It is freed with the last of its arrays.

    Each place in it is used only once: workers may still read an array that nobody holds here any more.
    """

    piece: weakref.ref[Piece]
    end: int  # its first free byte


_lock = threading.Lock()
_page: _Page | None = None
_shared: weakref.WeakValueDictionary[int, Piece] = weakref.WeakValueDictionary()  # {address: piece}
_addresses: tuple[int, ...] = ()  # of these pieces, ascending; some may be freed already
# {(address, nbytes): the copy of what is there}
_copies: weakref.WeakValueDictionary[tuple[int, int], Piece] = weakref.WeakValueDictionary()


def share(array: Any) -> Array:
    """Copy ``array`` into shared memory, which all front-ends and workers map without another copy.

    Use the returned array in place of ``array``. In the workers it is read-only. Writes to it in this process are
    visible to the workers at once, even in jobs that are running. Its memory is freed when nobody holds it any more.

    Args:
        array: an array of any size and any dtype but object, or anything that ``numpy.asarray`` converts to one.

    Returns:
        A plain, dense array of the same shape, dtype and memory order; ``array`` itself if it is in shared memory
        already. Views of it are shared too: rows, slices, ``torch.from_numpy(array)``. PyTorch has no read-only
        tensors, so a job that writes to a tensor over shared memory kills its worker.

    Raises:
        TypeError: ``array`` holds Python objects, or is masked.
        MemoryError: it does not fit into memory.
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

    So anything taken from the copy is in the same order as from ``array``, and has the same sum to the last bit.
    """
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    strides, step = [0] * array.ndim, array.itemsize
    for axis in reversed(axes):
        strides[axis], step = step, step * max(array.shape[axis], 1)
    return tuple(strides)


def _place(nbytes: int) -> Found:
    """Reserve ``nbytes`` of shared memory, in the page of small arrays or in a new piece, and return their place."""
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
    """Start a new piece for small arrays in a process that was just forked: the current one is its parent's."""
    global _lock, _page
    _lock, _page = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _after(end: int) -> int:
    """Return the byte at which the next array starts in a piece of memory, if the last one ends before byte ``end``.

    After an empty array too, this is a later byte, so that no two arrays start at one place.
    """
    return ALIGNMENT * (end // ALIGNMENT + 1)


def find(array: Array) -> Found | None:
    """Return the place, in memory made by :func:`share`, where ``array`` (of any kind, e.g. a view) has its first byte.

    None: its memory is not shared.
    """
    if not _addresses or array.base is None or not (nbytes := array.nbytes):  # without a base, it owns its memory
        return None
    address = shared_memory.address_of(array)
    if array.flags.c_contiguous:
        return find_bytes(address, nbytes)
    return find_bytes(*extent(address, array.itemsize, array.shape, array.strides))


def extent(address: int, itemsize: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
    """Return (the address of the first byte, the number of bytes up to the last one) of an array with this layout.

    Args:
        address: the address of its first element.
        itemsize: bytes of an element.
        shape: its shape.
        strides: bytes from an element to the next one along each axis; may be negative.
    """
    spans = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    low, high = (sum(bound(span, 0) for span in spans) for bound in (min, max))
    return address + low, high - low + itemsize


def find_bytes(address: int, nbytes: int) -> Found | None:
    """Return the place, in memory made by :func:`share`, of the ``nbytes`` at ``address``; None: they are not in it."""
    addresses = _addresses
    for at in range(bisect.bisect_right(addresses, address) - 1, -1, -1):
        piece = _shared.get(addresses[at])
        if piece is not None:  # else it is freed, and an earlier piece may reach as far
            start = address - addresses[at]
            return Found(piece, start) if start + nbytes <= piece.nbytes else None
    return None


def copy_of(source: memoryview, address: int) -> Piece:
    """Return a copy, in shared memory, of ``source``, the bytes of a large array at ``address``.

    The copy made of the same array for another front-end is used again, if its bytes are still equal.
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
