"""Items as bytes: a header, a pickle, and behind it the memory of arrays, aligned, to be read without a copy."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
import zlib
from typing import Any, NamedTuple

import numpy as np

from workers.batch.pickling import Pickler, part_of
from workers.process import arrays

ALIGNMENT = 64  # bytes: of packed items, and of each array in them
_HEADER = struct.Struct("<8sqqqqqq")  # the fields of Header
_PLACE = struct.Struct("<qq")  # (start, nbytes) of an array's memory
_MAGIC = b"wkcache2"
_LEAVES = frozenset({int, float, bool, str, bytes, type(None)})


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
    is_copied: int  # 1 if arrays must be copied when read, as objects hold them, into which functions may write
    checksum: int  # of everything behind the header


def pack(key: int, items: list[Any], with_checksum: bool) -> Packed:
    """Return ``items`` as bytes.

    Raises:
        Any error of pickling: the items cannot be pickled.
    """
    buffers: list[pickle.PickleBuffer] = []
    with io.BytesIO() as file:
        _ItemPickler(file, protocol=5, buffer_callback=buffers.append).dump(items)
        pickled = file.getvalue()
    views = [buffer.raw() for buffer in buffers]
    places, end = b"", aligned(_HEADER.size + _PLACE.size * len(views) + len(pickled))
    for view in views:
        places += _PLACE.pack(end, view.nbytes)
        end = aligned(end + view.nbytes)
    parts: list[Any] = [places, pickled, *_padding(_HEADER.size + len(places) + len(pickled))]
    for view in views:
        parts += [view, *_padding(view.nbytes)]
    checksum = 0
    if with_checksum:
        for part in parts:
            checksum = zlib.crc32(part, checksum)
    header = _HEADER.pack(_MAGIC, key, end, len(pickled), len(views), not is_plain(items), checksum)
    return Packed([header, *parts], end)


def unpack(key: int, memory: memoryview, with_checksum: bool = False) -> list[Any]:
    """Return the items with ``key`` that ``memory``, which may be longer, begins with.

    Arrays in lists, tuples and dicts are views of it; those that other objects hold are copied.

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
    buffers: list[Any] = [memory[first : first + nbytes] for first, nbytes in places]
    if header.is_copied:
        buffers = list(map(bytearray, buffers))
    items: list[Any] = pickle.loads(memory[start : start + header.pickle_nbytes], buffers=buffers)
    return items


def is_plain(value: Any) -> bool:
    """Return True if ``value`` consists of arrays, numbers, texts, lists, tuples and dicts alone."""
    kind = type(value)
    if kind in (list, tuple):
        return all(map(is_plain, value))
    if kind is dict:
        return all(map(is_plain, value)) and all(map(is_plain, value.values()))
    return kind in _LEAVES or isinstance(value, np.generic) or (kind is np.ndarray and not value.dtype.hasobject)


class _ItemPickler(Pickler):
    """A pickler that sends what the program's script defines by its name, as the same class must be found later."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is np.ma.MaskedArray and not obj.dtype.hasobject:
            return arrays.reduced(obj)  # keeps hard masks
        is_of_script = isinstance(obj, (type, types.FunctionType)) and obj.__module__ == "__main__"
        if is_of_script and part_of(sys.modules["__main__"], obj.__qualname__) is obj:
            return NotImplemented
        return super().reducer_override(obj)


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _padding(nbytes: int) -> list[bytes]:
    missing = -nbytes % ALIGNMENT
    return [bytes(missing)] if missing else []
