"""``workers.share``: arrays in shared memory, which all front-ends and workers map; no other copy is made of them.

What is shared is known by its address: so views of it are, and what another library has made of it without a copy.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, NamedTuple

import numpy as np

from workers.checks import short

from . import shared_memory
from .slots import BYTE
from .tree import Array


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


_shared: weakref.WeakValueDictionary[int, Piece] = weakref.WeakValueDictionary()  # {address: piece}
_copies: weakref.WeakValueDictionary[tuple[int, int], Piece] = weakref.WeakValueDictionary()


def share(array: Any) -> Array:
    """``array`` in shared memory, where all front-ends and workers map it: no second copy is ever made of it.

    The array that is returned takes the place of the other one. It may be written to here, and the workers see that at
    once, also in batches that they are at; to them it is read-only. Its memory is free again when nobody holds it.

    Args:
        array: an array of any dtype but object, or what ``numpy.asarray`` makes one of.

    Returns:
        A plain array of the same shape and dtype, dense, in the same memory order. ``array`` itself, if it lies in
        shared memory already.

    Raises:
        TypeError: it holds Python objects. MemoryError: it does not fit.
    """
    array = np.asarray(array)
    if array.dtype.hasobject:
        raise TypeError(f"array must be of numbers or strings of a fixed length, not of objects: {short(array)}")
    if find(array) is not None:
        return array  # type: ignore[no-any-return]
    piece = Piece(array.nbytes)
    owner = _Owner((piece.nbytes,), BYTE, piece.buffer)
    owner.piece = piece
    is_c = array.flags.c_contiguous or not array.flags.f_contiguous
    shared: Array = np.ndarray(array.shape, array.dtype, owner, order="C" if is_c else "F")
    shared[...] = array
    _shared[piece.address] = piece
    return shared


def find(array: Array) -> Found | None:
    """Where ``array`` lies in shared memory; None: it does not."""
    if not _shared or not array.size:
        return None
    address = shared_memory.address_of(array)
    spans = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    low, high = (sum(bound(span, 0) for span in spans) for bound in (min, max))
    return find_bytes(address + low, high - low + array.itemsize)


def find_bytes(address: int, nbytes: int) -> Found | None:
    """The same of the ``nbytes`` at ``address``."""
    for start, piece in list(_shared.items()):
        if start <= address and address + nbytes <= start + piece.nbytes:
            return Found(piece, address - start)
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
