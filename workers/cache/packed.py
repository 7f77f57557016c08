"""Items as bytes: a header, a pickle, and behind it the memory of arrays, aligned, to be read without a copy."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from typing import Any, NamedTuple

from workers.batch.pickling import Pickler

ALIGNMENT = 64  # bytes: of packed items, and of each array in them
_HEADER = struct.Struct("<8sqqqqq")  # the fields of Header
_PLACE = struct.Struct("<qq")  # (start, nbytes) of an array's memory
_MAGIC = b"wkcache1"


class PackedError(ValueError):
    """Raised if bytes are not what :func:`pack` has made of the items with that key."""


class Packed(NamedTuple):
    """Items as bytes: ``parts``, which follow each other without gaps and have ``nbytes`` bytes together."""

    parts: list[Any]
    nbytes: int  # a multiple of ALIGNMENT


class Header(NamedTuple):
    """The first bytes of packed items."""

    magic: bytes
    key: int
    nbytes: int  # of everything, with the header
    pickle_nbytes: int
    num_arrays: int
    checksum: int  # of everything behind the header


def pack(key: int, items: list[Any], with_checksum: bool) -> Packed:
    """Return ``items`` as bytes.

    Raises:
        Any error of pickling: the items cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as file:
        Pickler(file, protocol=5, buffer_callback=buffers.append).dump(items)
        pickled = file.getvalue()
    views = [buffer.raw() for buffer in buffers]
    places, end = b"", _aligned(_HEADER.size + _PLACE.size * len(views) + len(pickled))
    for view in views:
        places += _PLACE.pack(end, view.nbytes)
        end = _aligned(end + view.nbytes)
    parts: list[Any] = [places, pickled, *_padding(_HEADER.size + len(places) + len(pickled))]
    for view in views:
        parts += [view, *_padding(view.nbytes)]
    checksum = 0
    if with_checksum:
        for part in parts:
            checksum = zlib.crc32(part, checksum)
    header = _HEADER.pack(_MAGIC, key, end, len(pickled), len(views), checksum)
    return Packed([header, *parts], end)


def unpack(key: int, memory: memoryview, with_checksum: bool = False) -> list[Any]:
    """Return the items with ``key`` that ``memory``, which may be longer, begins with. Their arrays are views of it.

    Raises:
        PackedError: ``memory`` holds something else. Any error of unpickling: e.g. a class is not defined here.
    """
    if memory.nbytes < _HEADER.size:
        raise PackedError(f"{memory.nbytes} bytes are too few")
    header = Header(*_HEADER.unpack_from(memory))
    if header.magic != _MAGIC or header.key != key:
        raise PackedError(f"not the items with key {key}")
    if header.nbytes > memory.nbytes:
        raise PackedError(f"{memory.nbytes} of {header.nbytes} bytes")
    if with_checksum and zlib.crc32(memory[_HEADER.size : header.nbytes]) != header.checksum:
        raise PackedError("the checksum is wrong")
    start = _HEADER.size + _PLACE.size * header.num_arrays
    places = _PLACE.iter_unpack(memory[_HEADER.size : start])
    buffers = [memory[first : first + nbytes] for first, nbytes in places]
    items: list[Any] = pickle.loads(memory[start : start + header.pickle_nbytes], buffers=buffers)
    return items


def _aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _padding(nbytes: int) -> list[bytes]:
    missing = -nbytes % ALIGNMENT
    return [bytes(missing)] if missing else []
