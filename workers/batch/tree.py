"""Batches as trees: which arrays a batch holds, where each lies in memory, and how to put it together again.

A batch is a tuple, list, dict, dataclass or namedtuple of arrays, or one of these inside another. Its *arrays*
travel as bytes in shared memory; everything else in it (scalars, None, str, arrays of objects) is its *rest*
and travels pickled. The shape of the tree with dtype, shape and place of each array is its :class:`Layout`:
sent once, then named by its digest, so that a structure seen before costs no pickling.

Two batches share a layout only if nothing can tell them apart but the contents of their arrays and their rest. ``==``
is not enough for that: 1, True and 1.0 are equal, and so are a dtype with metadata and one without.

Tensors of TensorFlow, torch and JAX become numpy arrays; those that are no plain arrays (sparse, ragged, nested)
cannot travel.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pickle
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import cloudpickle
import numpy as np

ALIGNMENT = 64  # of every array in a slot, in bytes: a cache line, and the widest vector unit

Array = np.ndarray[Any, Any]

# What a tree is made of. A spec is a nested tuple of these, hashable, with the parts behind.
_ARRAY, _REST, _TUPLE, _LIST, _DICT, _DICT_WITH_KEYS, _NAMEDTUPLE, _DATACLASS = range(8)
_IS_ARRAY, _IS_REST = (_ARRAY,), (_REST,)
_EXACT_KEYS = frozenset({str, int, bytes, type(None)})  # equal keys of exactly these types are the same
_SCALARS = frozenset({int, float, bool, str, bytes, complex, type(None)})
_TENSOR_PACKAGES = ("tensorflow", "torch", "jax", "jaxlib")
_NO_ARRAYS = frozenset({"SparseTensor", "RaggedTensor", "IndexedSlices", "BCOO", "BCSR", "COO", "CSR"})


class ArrayPlace(NamedTuple):
    """Where an array lies: in the ``slot``-th slot of its batch, ``offset`` bytes behind the batch's start."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None  # None: C order
    slot: int
    offset: int


class Layout(NamedTuple):
    """How a batch is put together: the shape of its tree, and the place of each of its arrays."""

    spec: tuple[Any, ...]
    places: tuple[ArrayPlace, ...]


def digest_of(pickled: bytes) -> int:
    """The name of a layout: 64 bits of the hash of its pickle."""
    return int.from_bytes(hashlib.blake2b(pickled, digest_size=8).digest(), "little")


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Whether ``dtype`` is one of numpy's own without parameters, such as int64. These never change."""
    return dtype.isbuiltin == 1


def exact(dtype: np.dtype[Any]) -> int | bytes:
    """A key that only identical dtypes share. Equal ones may differ: in metadata, alignment, or as C types."""
    return dtype.num if is_plain(dtype) else pickle.dumps(dtype, protocol=5)


class _NoArrayError(Exception):
    """A leaf is a tensor that cannot become an array."""

    def __init__(self, leaf: Any, reason: str) -> None:
        super().__init__(leaf, reason)
        self.leaf, self.reason = leaf, reason


def flatten(tree: Any, arrays: list[Array], rest: list[Any]) -> tuple[Any, ...]:
    """Take ``tree`` apart into ``arrays`` and ``rest``, which are appended to.

    Returns:
        Its spec: what :func:`unflattener` needs to put it together again.

    Raises:
        TypeError: a tensor in it cannot become an array; says where it is.
    """
    try:
        return _flatten(tree, arrays, rest)
    except _NoArrayError as error:
        where = _path_to(error.leaf, tree) or ""
        if type(tree) is list and len(tree) == 1:  # the items of a job: the only one is the batch
            where = where.removeprefix("[0]")
        raise TypeError(f"batch{where} is a {type(error.leaf).__name__}, which {error.reason}") from error.__cause__


def _path_to(leaf: Any, tree: Any) -> str | None:
    """Where ``leaf`` is within ``tree``: ``[0]['x'].mask``; None: it is not."""
    if tree is leaf:
        return ""
    parts: list[tuple[str, Any]] = []
    if isinstance(tree, dict):
        parts = [(f"[{key!r}]", part) for key, part in tree.items()]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        parts = [(f".{name}", part) for name, part in zip(tree._fields, tree, strict=True)]
    elif isinstance(tree, (tuple, list)):
        parts = [(f"[{at}]", part) for at, part in enumerate(tree)]
    elif dataclasses.is_dataclass(tree) and hasattr(tree, "__dict__"):
        parts = [(f".{name}", part) for name, part in tree.__dict__.items()]
    found = ((step, _path_to(leaf, part)) for step, part in parts)
    return next((step + path for step, path in found if path is not None), None)


def _flatten(tree: Any, arrays: list[Array], rest: list[Any]) -> tuple[Any, ...]:
    kind = type(tree)
    if kind is np.ndarray:
        if tree.dtype.hasobject:
            rest.append(tree)
            return _IS_REST
        arrays.append(tree)
        return _IS_ARRAY
    if kind is tuple:
        return (_TUPLE, *[_flatten(part, arrays, rest) for part in tree])
    if kind in _SCALARS:
        rest.append(tree)
        return _IS_REST
    if kind is list:
        return (_LIST, *[_flatten(part, arrays, rest) for part in tree])
    if kind is dict:
        keys = tuple(tree)
        if _EXACT_KEYS.issuperset(map(type, keys)):
            return (_DICT, keys, *[_flatten(part, arrays, rest) for part in tree.values()])
        rest.append(keys)
        return (_DICT_WITH_KEYS, *[_flatten(part, arrays, rest) for part in tree.values()])
    if isinstance(tree, np.ndarray):
        return _flatten_subclass(tree, arrays, rest)
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return (_NAMEDTUPLE, kind, *[_flatten(part, arrays, rest) for part in tree])
    if _is_dataclass_of_attributes(tree):
        state = tree.__dict__
        return (_DATACLASS, kind, tuple(state), *[_flatten(part, arrays, rest) for part in state.values()])
    if _is_of_framework(kind):  # type: ignore[arg-type]  # classes are hashable
        converted = to_numpy(tree)
        if converted is not tree:
            return _flatten(converted, arrays, rest)
    return _as_rest(tree, rest)


def _is_dataclass_of_attributes(tree: Any) -> bool:
    """Whether it is a dataclass whose fields are attributes, all with plain names."""
    return (
        dataclasses.is_dataclass(tree)
        and not isinstance(tree, type)
        and hasattr(tree, "__dict__")
        and all(type(name) is str for name in tree.__dict__)
    )


@functools.lru_cache(256)
def _is_of_framework(kind: type) -> bool:
    """Whether it is a class of TensorFlow, torch or JAX, or made of one, as those of torchvision are."""
    return any(each.__module__.partition(".")[0] in _TENSOR_PACKAGES for each in kind.__mro__)


def _as_rest(part: Any, rest: list[Any]) -> tuple[Any, ...]:
    rest.append(part)
    return _IS_REST


def _flatten_subclass(tree: Any, arrays: list[Array], rest: list[Any]) -> tuple[Any, ...]:
    # A memmap is read like any array; other subclasses (masked, matrix) know how to pickle themselves.
    if isinstance(tree, np.memmap) and not tree.dtype.hasobject:
        arrays.append(np.asarray(tree))
        return _IS_ARRAY
    return _as_rest(tree, rest)


def to_numpy(tensor: Any) -> Any:
    """``tensor`` of TensorFlow, torch or JAX as a numpy array; anything else as it is."""
    if type(tensor).__name__ in _NO_ARRAYS:
        raise _NoArrayError(tensor, "is no plain array: return its parts, or make it dense")
    try:
        if hasattr(tensor, "detach"):
            return _of_torch(tensor)
        if hasattr(tensor, "numpy") and hasattr(tensor, "dtype"):  # TensorFlow, eager
            value = tensor.numpy()
            return np.asarray(value, object if isinstance(value, bytes) else None)  # no bytes cut short, as in a vector
        if hasattr(tensor, "__array__") and hasattr(tensor, "shape"):  # JAX
            return np.asarray(tensor)
    except _NoArrayError:
        raise
    except Exception as error:
        raise _NoArrayError(tensor, f"does not become a numpy array: {error}") from error
    return tensor


def _of_torch(tensor: Any) -> Any:
    torch = sys.modules["torch"]
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else "sparse"
        raise _NoArrayError(tensor, f"is {kind}: return its parts, or make it dense")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = str(tensor.dtype).partition(".")[2]
    if name != "bfloat16" and not name.startswith("float8"):
        return np.asarray(tensor)
    try:
        import ml_dtypes
    except ImportError as error:
        raise _NoArrayError(tensor, f"is of {name}, which numpy knows with ml_dtypes: pip install ml_dtypes") from error
    bits = torch.uint16 if tensor.itemsize == 2 else torch.uint8
    return np.asarray(tensor.view(bits)).view(getattr(ml_dtypes, name))


def unflattener(spec: tuple[Any, ...]) -> Callable[[Iterator[Array], Iterator[Any]], Any]:
    """The function that puts trees of this spec together from their arrays and their rest, in order."""
    kind = spec[0]
    if kind == _ARRAY:
        return lambda arrays, rest: next(arrays)
    if kind == _REST:
        return lambda arrays, rest: next(rest)
    if kind in (_TUPLE, _LIST) and all(part == _IS_ARRAY for part in spec[1:]):
        whole: Any = tuple if kind == _TUPLE else list
        count = len(spec) - 1
        return lambda arrays, rest: whole(islice(arrays, count))
    if kind in (_TUPLE, _LIST):
        parts = [unflattener(part) for part in spec[1:]]
        if kind == _LIST:
            return lambda arrays, rest: [part(arrays, rest) for part in parts]
        return lambda arrays, rest: tuple([part(arrays, rest) for part in parts])
    if kind == _DICT:
        keys, parts = spec[1], [unflattener(part) for part in spec[2:]]
        return lambda arrays, rest: {k: part(arrays, rest) for k, part in zip(keys, parts, strict=True)}
    if kind == _DICT_WITH_KEYS:
        parts = [unflattener(part) for part in spec[1:]]
        return lambda arrays, rest: {k: part(arrays, rest) for k, part in zip(next(rest), parts, strict=True)}
    of = spec[1]
    if kind == _NAMEDTUPLE:
        parts = [unflattener(part) for part in spec[2:]]
        return lambda arrays, rest: of._make([part(arrays, rest) for part in parts])
    names, parts = spec[2], [unflattener(part) for part in spec[3:]]

    def dataclass(arrays: Iterator[Array], rest: Iterator[Any]) -> Any:
        made = object.__new__(of)  # not by __init__: it may want other arguments, or work on them
        made.__dict__.update({name: part(arrays, rest) for name, part in zip(names, parts, strict=True)})
        return made

    return dataclass


def dense_strides(array: Array) -> tuple[int, ...] | None:
    """Strides, in bytes, of a dense copy of ``array`` in its own memory order; None for C order."""
    if array.flags.c_contiguous:
        return None
    strides, step = [0] * array.ndim, array.dtype.itemsize
    for axis in sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))[::-1]:
        strides[axis] = step
        step *= array.shape[axis]
    return tuple(strides)


def copy_of(array: Array) -> Array:
    """A dense copy, in the same memory order. numpy's own leaves out the padding between the fields of a structure."""
    if array.dtype.names:
        copy: Array = array.view(f"V{array.dtype.itemsize}").copy("K").view(array.dtype)
    else:
        copy = array.copy("K")
    return copy


def copy_into(target: Array, array: Array) -> None:
    """The same into ``target``, which has its dtype and shape."""
    if array.dtype.names:
        target, array = (each.view(f"V{array.dtype.itemsize}") for each in (target, array))
    target[...] = array


def dumps(value: Any) -> bytes:
    """``value`` pickled, by cloudpickle where plain pickle refuses (lambdas, classes of ``__main__``)."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # whatever a reducer raises
        return cloudpickle.dumps(value, protocol=5)  # type: ignore[no-any-return]


def as_numpy(tree: Any) -> Any:
    """``tree`` with tensors of TensorFlow, torch and JAX as numpy arrays."""
    arrays: list[Array] = []
    rest: list[Any] = []
    return unflattener(flatten(tree, arrays, rest))(iter(arrays), iter(rest))


def own(tree: Any, is_fresh: bool = False) -> Any:
    """``tree`` as the consumer may have it where no shared memory lies between.

    Tensors are numpy arrays, and every array is writable and nobody else's: so writing into a batch never writes into
    the data set, and what the user's code does with arrays that it keeps never shows in a batch.

    Args:
        tree: a batch, or a list of batches.
        is_fresh: its arrays were made for it by code of ours that keeps none of them, see :func:`makes_fresh_batches`.
            Only those that cannot be written to are copied then.
    """
    if type(tree) is tuple and all(type(part) is np.ndarray and not part.dtype.hasobject for part in tree):
        return tuple([_owned(array, is_fresh) for array in tree])  # (x, y), most often: without a spec
    arrays: list[Array] = []
    rest: list[Any] = []
    spec = flatten(tree, arrays, rest)
    return unflattener(spec)(iter([_owned(array, is_fresh) for array in arrays]), iter(rest))


def _owned(array: Array, is_fresh: bool) -> Array:
    return array if is_fresh and array.flags.writeable else copy_of(array)


def makes_fresh_batches(source: Any) -> bool:
    """Whether a sequence says of its batches that their arrays are made for them, and kept by nobody.

    A sequence says so by ``_makes_fresh_batches``; it must be true of what a subclass makes of them as well, so it is
    for code that knows which of its methods run.
    """
    return bool(getattr(source, "_makes_fresh_batches", False))
