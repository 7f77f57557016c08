"""``workers.share``: arrays in shared memory, which all front-ends and workers map; no other copy is made of them.

What is shared is known by its address, whatever its size: so views of it are, and what another library has made of it
without a copy. Small arrays lie side by side in one piece of memory, for each piece costs a descriptor.
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

_SMALL_NBYTES = 1 << 20  # from here on an array has a piece of its own
_MAX_PAGE_NBYTES = 16 << 20  # of a piece for small arrays; the first has _SMALL_NBYTES, each next one twice as many


class Piece:
    """A piece of shared memory in the consumer: its descriptor, to be sent, and its bytes. Goes with its last user."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = max(nbytes, 1)
        self.descriptor = shared_memory.create(self.nbytes)
        self.close = weakref.finalize(self, os.close, self.descriptor)
        self.buffer = shared_memory.attach(self.descriptor, self.nbytes)
        self.bytes = shared_memory.view(self.buffer)
        self.address = shared_memory.address_of(self.buffer)


class Found(NamedTuple):
    """Where something lies in shared memory."""

    piece: Piece
    start: int


class _Owner(np.ndarray[Any, Any]):
    """All bytes of a piece. Views of it are plain arrays; while one lives, so does the piece."""

    piece: Piece


class _Page(NamedTuple):
    """The piece of memory that small arrays are put into now. Places in it are given out once, and never again: workers
    may still read what nobody holds here any more. It goes with the last of its arrays."""

    piece: weakref.ref[Piece]
    end: int  # its first free byte


_lock = threading.Lock()
_page: _Page | None = None
_shared: weakref.WeakValueDictionary[int, Piece] = weakref.WeakValueDictionary()  # {address: piece}
_addresses: tuple[int, ...] = ()  # of these, ascending; maybe of some that are gone, too
_copies: weakref.WeakValueDictionary[tuple[int, int], Piece] = weakref.WeakValueDictionary()


def share(array: Any) -> Array:
    """``array`` in shared memory, where all front-ends and workers map it: no second copy is ever made of it.

    The array that is returned takes the place of the other one. It may be written to here, and the workers see that at
    once, also in batches that they are at; to them it is read-only. Its memory is free again when nobody holds it.

    Args:
        array: an array of any dtype but object, of any size, or what ``numpy.asarray`` makes one of.

    Returns:
        A plain array of the same shape and dtype, dense, in the same memory order. ``array`` itself, if it lies in
        shared memory already. Views of it are shared too: rows, slices, ``torch.from_numpy(array)``. PyTorch knows no
        read-only tensors: a job that writes to one over shared memory ends its worker.

    Raises:
        TypeError: it holds Python objects, or is masked. MemoryError: it does not fit.
    """
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError("array is masked, and its mask would be lost: share array.data and array.mask")
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError(f"array must be of numbers or strings of a fixed length, not of objects: {short(array)}")
    if find(array) is not None:
        return array  # type: ignore[no-any-return]
    piece, start = _place(array.nbytes)
    owner = _Owner((piece.nbytes,), BYTE, piece.buffer)
    owner.piece = piece
    shared: Array = np.ndarray(array.shape, array.dtype, owner, start, _dense_strides(array))
    shared[...] = array
    return shared


def _dense_strides(array: Array) -> tuple[int, ...]:
    """Those of a dense copy of ``array``, whose axes lie in the same order in memory: what is taken out of the copy has
    the order of what is taken out of the array, and so the same sum to the last bit."""
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    strides, step = [0] * array.ndim, array.itemsize
    for axis in reversed(axes):
        strides[axis], step = step, step * max(array.shape[axis], 1)
    return tuple(strides)


def _place(nbytes: int) -> Found:
    """Where ``nbytes`` of shared memory are free."""
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
    """Give a fork pages of its own: it would write what it shares over what this process does."""
    global _lock, _page
    _lock, _page = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def _after(end: int) -> int:
    """Where the next array begins; an empty one takes a place too, so that no two arrays begin at the same."""
    return ALIGNMENT * (end // ALIGNMENT + 1)


def find(array: Array) -> Found | None:
    """Where the first byte in memory of ``array``, a view of any kind, lies; None: not in shared memory."""
    if not _addresses or array.base is None or not (nbytes := array.nbytes):  # without a base, it has memory of its own
        return None
    address = shared_memory.address_of(array)
    if array.flags.c_contiguous:
        return find_bytes(address, nbytes)
    return find_bytes(*extent(address, array.itemsize, array.shape, array.strides))


def extent(address: int, itemsize: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, int]:
    """(the address of the first byte, the number of bytes to the last one) of what is laid out so."""
    spans = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    low, high = (sum(bound(span, 0) for span in spans) for bound in (min, max))
    return address + low, high - low + itemsize


def find_bytes(address: int, nbytes: int) -> Found | None:
    """Where the ``nbytes`` at ``address`` lie in shared memory; None: not there."""
    addresses = _addresses
    for at in range(bisect.bisect_right(addresses, address) - 1, -1, -1):
        piece = _shared.get(addresses[at])
        if piece is not None:  # else it is gone, and an earlier one may reach as far
            start = address - addresses[at]
            return Found(piece, start) if start + nbytes <= piece.nbytes else None
    return None


def copy_of(source: memoryview, address: int) -> Piece:
    """A copy of a large array that only sequences hold, for all front-ends that have it now. It is made once."""
    key = address, source.nbytes
    theirs = np.frombuffer(source, BYTE)
    known = _copies.get(key)
    if known is not None and shared_memory.is_equal(theirs, np.frombuffer(known.bytes, BYTE, source.nbytes)):
        return known
    piece = Piece(source.nbytes)
    np.frombuffer(piece.bytes, BYTE)[: source.nbytes] = theirs
    _copies[key] = piece
    return piece
