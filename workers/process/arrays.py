"""Pickles arrays for workers: as references to shared memory where possible, otherwise as bytes.

- An array in shared memory (see ``workers.batch.share``) is sent as a reference to its address there, whatever its size
  and layout. So the workers see later writes to it.
- Any other array is sent as bytes, a large one outside the pickle. Its items keep their order in memory: numpy adds in
  this order, and another one could change the last bits of a sum. If the items lie far apart (``a[::10]``), they are
  sent with smaller gaps between them.
- An array of a subclass of ``ndarray`` is sent as a plain array, unless the subclass defines its own pickling. A masked
  array is sent as two arrays, data and mask. The worker restores the class.
"""

from __future__ import annotations

import ctypes
import math
import pickle
from typing import Any

import numpy as np

from workers.batch import share
from workers.batch.share import Piece
from workers.batch.shared_memory import address_of
from workers.batch.tree import ALIGNMENT
from workers.frameworks import Memory

SHARED_NBYTES = 64 << 10  # arrays of at least this size are shared; each worker has its own copy of smaller ones
MAX_SPREAD = 2  # an array is sent with its gaps if it spans at most this many times its own bytes
_REDUCERS = "__reduce__", "__reduce_ex__", "__setstate__", "__getstate__"


def reduced(obj: Any) -> Any:
    """Return (function, arguments) to rebuild ``obj`` in a worker, as from ``__reduce__``; None to pickle it as usual.

    Handles arrays, rows of structured arrays and pieces of shared memory. Everything else is pickled as usual.
    """
    if isinstance(obj, np.ndarray):
        return None if obj.dtype.hasobject else _reduced_array(obj)
    if isinstance(obj, np.void):
        return None if obj.dtype.hasobject or not obj.nbytes else _reduced_row(obj)
    if isinstance(obj, Piece):
        return _memory_of, (pickle.PickleBuffer(obj.bytes),)
    return None


def _reduced_row(row: Any) -> Any:
    """Return (function, arguments) to rebuild a structured array's row from shared memory; None if it is not there."""
    found = share.find_bytes(int(row.__array_interface__["data"][0]), row.nbytes)
    return None if found is None else (_row, (found.piece, row.dtype, found.start))


def _reduced_array(array: Any) -> Any:
    kind = type(array)
    if kind is np.ma.MaskedArray:
        mask = None if array._mask is np.ma.nomask else array._mask
        return _masked, (array.data, mask, array._fill_value, array.hardmask)
    found, flags = share.find(array), array.flags
    is_dense = (flags.c_contiguous or flags.f_contiguous) and flags.aligned
    if found is None and is_dense and array.nbytes < SHARED_NBYTES:
        return None
    if kind is not np.ndarray:
        has_own = any(getattr(kind, name, None) is not getattr(np.ndarray, name, None) for name in _REDUCERS)
        if found is None and has_own:
            return None
        attributes = dict(vars(array)) if has_own else {}
        return _of_class, (array.view(np.ndarray), kind, array.dtype, attributes)
    if found is not None:
        start = found.start + _offset(array)
        return _strided, (found.piece, array.dtype, array.shape, array.strides, start, False)
    return array.__reduce_ex__(5) if is_dense else _reduced_strided(array)


def _extent(array: Any) -> tuple[int, int]:
    return share.extent(address_of(array), array.itemsize, array.shape, array.strides)


def _offset(array: Any) -> int:
    """Return the bytes between the lowest address of ``array`` and its first item: 0 unless a stride is negative."""
    return address_of(array) - _extent(array)[0]


def _reduced_strided(array: Any) -> Any:
    """Return (function, arguments) to rebuild a non-contiguous or unaligned array; its wide gaps are narrowed first."""
    is_aligned, is_writable, before = array.flags.aligned, array.flags.writeable, address_of(array) % ALIGNMENT
    own_nbytes = array.itemsize * math.prod(_lengths(array))
    if _extent(array)[1] > MAX_SPREAD * own_nbytes:
        array, before = _packed(array), 1
    low, nbytes = _extent(array)
    memory: Any = ctypes.string_at(low, nbytes) if nbytes < SHARED_NBYTES else np.asarray(Memory(array, low, nbytes))
    start = address_of(array) - low
    if not is_aligned:  # keep the array unaligned in the worker: numpy reads aligned ones in another way
        before = (before - start) % ALIGNMENT
        memory, start = np.concatenate([np.zeros(before, np.uint8), np.frombuffer(memory, np.uint8)]), before + start
    elif nbytes < SHARED_NBYTES:
        memory = bytearray(memory)
    return _strided, (memory, array.dtype, array.shape, array.strides, start, is_writable)


def _lengths(array: Any) -> list[int]:
    """Return the axis lengths of ``array`` without the axes of stride 0, which only repeat the same items."""
    return [length for length, step in zip(array.shape, array.strides, strict=True) if step]


def _packed(array: Any) -> Any:
    """Return a copy of ``array`` with the same order of axes in memory, but with gaps of only one item.

    If items of ``array`` overlap in memory, the copy is in C order and has no gaps.
    """
    strides, spread, packed_spread = list(array.strides), array.itemsize, array.itemsize
    for axis in sorted(range(array.ndim), key=lambda axis: abs(array.strides[axis])):
        length, step = array.shape[axis], abs(array.strides[axis])
        if step and length > 1:
            if step < spread:  # items overlap
                return np.ascontiguousarray(array)
            packed_step = packed_spread + (array.itemsize if step > spread else 0)
            strides[axis] = packed_step if array.strides[axis] > 0 else -packed_step
            spread = step * length
            packed_spread = packed_step * length
        else:
            strides[axis] = 0
    low, nbytes = share.extent(0, array.itemsize, array.shape, tuple(strides))
    packed: Any = np.ndarray(array.shape, array.dtype, np.zeros(nbytes, np.uint8), -low, strides)
    packed[...] = array
    return packed


# -- in a worker


def _memory_of(buffer: Any) -> Any:
    return buffer


def _strided(memory: Any, dtype: Any, shape: Any, strides: Any, start: int, is_writable: bool) -> Any:
    array: Any = np.ndarray(shape, dtype, memory, start, strides)
    if not is_writable:
        array.flags.writeable = False
    return array


def _of_class(array: Any, kind: Any, dtype: Any, attributes: dict[str, Any]) -> Any:
    view = array.view(kind)
    if issubclass(kind, np.recarray):
        view = view.view(dtype)
    if attributes:
        view.__dict__.update(attributes)
    return view


def _masked(data: Any, mask: Any, fill_value: Any, is_hard: bool) -> Any:
    mask = np.ma.nomask if mask is None else mask
    array: Any = np.ma.MaskedArray(data, mask, copy=False, subok=True, hard_mask=is_hard)
    array._fill_value = fill_value
    return array


def _row(memory: Any, dtype: Any, start: int) -> Any:
    return np.ndarray((), dtype, memory, start)[()]
