"""Take a batch apart into its arrays and everything else to send it to another process, and rebuild it there.

A batch is a tree of containers (see ``forms``). Its *arrays* are sent as bytes in shared memory. Everything else in it
(scalars, None, str, arrays of objects) is its *rest* and is sent pickled. Its :class:`Layout` describes the containers,
and the dtype, shape and place of each array. A layout is sent only once and then named by its digest, so that sending
another batch of a known structure requires no pickling of the structure.

Two batches share a layout only if they differ in nothing but the contents of their arrays and their rest. ``==`` cannot
decide this: 1, True and 1.0 are equal, and so are a dtype with metadata and one without.

Tensors of TensorFlow, torch and JAX become numpy arrays. Tensors that are not plain arrays (sparse, ragged, nested)
cannot be sent.
"""

from __future__ import annotations

import hashlib
import math
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from workers.frameworks import NoArrayError

from .copies import SCALARS, copies_of
from .forms import FORMS, Form, form_of, is_of_framework, survives
from .nodes import leaves
from .pickling import pickled_by_value
from .to_numpy import to_numpy

ALIGNMENT = 64  # of every array in a slot, in bytes: that of a cache line and of the widest vector unit

Array = np.ndarray[Any, Any]

# The kinds of nodes and leaves. A spec is a hashable nested tuple: each kind is followed by its parts.
_ARRAY, _REST, _TUPLE, _LIST, _DICT, _DICT_WITH_KEYS, _NODE, _HARD_MASKED = range(8)
_IS_ARRAY, _IS_REST = (_ARRAY,), (_REST,)
_EXACT_KEYS = frozenset({str, int, bytes, type(None)})  # equal keys of exactly these types are the same


class ArrayPlace(NamedTuple):
    """The dtype, shape and place of an array in its batch; ``slot`` is an index among the slots of the batch."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None  # None: C order
    slot: int
    offset: int  # in bytes, from the start of the batch in this slot

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class Layout(NamedTuple):
    """The layout of a batch: a spec, which describes its tree of containers, and the place of each of its arrays."""

    spec: tuple[Any, ...]
    places: tuple[ArrayPlace, ...]


def digest_of(pickled: bytes) -> int:
    """Return the digest that names the layout of a batch: a 64-bit hash of the pickled layout."""
    return int.from_bytes(hashlib.blake2b(pickled, digest_size=8).digest(), "little")


def is_plain(dtype: np.dtype[Any]) -> bool:
    """Return True if ``dtype`` is one of numpy's own without parameters, such as int64, and so cannot change."""
    return dtype.isbuiltin == 1


def exact(dtype: np.dtype[Any]) -> int | bytes:
    """Return a key that only identical dtypes share, since dtypes that are equal may differ in metadata or C type."""
    return dtype.num if is_plain(dtype) else pickle.dumps(dtype, protocol=5)


def flatten(tree: Any, arrays: list[Array], rest: list[Any]) -> tuple[Any, ...]:
    """Take the batch ``tree`` apart: append its arrays to ``arrays``, and everything else in it to ``rest``.

    Returns:
        The spec, a hashable tuple that describes the containers. With it, :func:`unflattener` can rebuild the batch.

    Raises:
        TypeError: a tensor in the batch cannot become an array. The error names the tensor's path.
    """
    try:
        return _flatten(tree, arrays, rest)
    except NoArrayError as error:
        where = path_to(error.leaf, tree) or ""
        if type(tree) is list and len(tree) == 1:  # the items of a job; a single one is the batch
            where = where.removeprefix("[0]")
        raise TypeError(f"batch{where} is a {type(error.leaf).__name__}, which {error.reason}") from error.__cause__


def path_to(leaf: Any, tree: Any) -> str | None:
    """Return the path of ``leaf`` within the batch ``tree``, e.g. ``[0]['x'].mask``; None if it is not in there."""
    return next((path for path, part in leaves(tree) if part is leaf), None)


def _flatten(tree: Any, arrays: list[Array], rest: list[Any]) -> tuple[Any, ...]:
    kind: Any = type(tree)
    if kind is np.ndarray:
        if tree.dtype.hasobject:
            rest.append(tree)
            return _IS_REST
        arrays.append(tree)
        return _IS_ARRAY
    if kind is tuple:
        return (_TUPLE, *[_flatten(part, arrays, rest) for part in tree])
    if kind in SCALARS:
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
    number = form_of(kind)
    opened = None if number is None else _opened(FORMS[number], tree)
    if number is not None and opened is not None:
        names, shell, parts = opened
        if FORMS[number].has_shell:
            rest.append(shell)
        of = None if kind is MappingProxyType else kind  # pickle does not find this class by its name
        return (_NODE, number, of, names, *[_flatten(part, arrays, rest) for part in parts])
    if is_of_framework(kind):
        converted = to_numpy(tree)
        if converted is not tree:
            return _flatten(converted, arrays, rest)
    return _as_rest(tree, rest)


def _opened(form: Form, tree: Any) -> tuple[tuple[str, ...], Any, list[Any]] | None:
    """Take the container ``tree`` apart; return None if it cannot be rebuilt, and must be pickled as a whole.

    Returns:
        (the names of its fields, its shell, its parts). The *shell* is what rebuilding needs besides names and parts.
    """
    try:
        keys = form.keys(tree)
        shell = form.shell(tree, keys)
        if type(shell) is type(tree) and not survives(form, shell):
            return None
        # The keys of a mapping are in its shell, not in the spec: equal keys may differ, e.g. 1 and True.
        return () if form.has_shell else tuple(keys), shell, form.parts(tree, keys)
    except MemoryError:
        raise
    except Exception:
        return None


def _as_rest(part: Any, rest: list[Any]) -> tuple[Any, ...]:
    rest.append(part)
    return _IS_REST


def _flatten_subclass(tree: Any, arrays: list[Array], rest: list[Any]) -> tuple[Any, ...]:
    # A memmap is read like any array; other subclasses (masked, matrix) are pickled.
    if isinstance(tree, np.memmap) and not tree.dtype.hasobject:
        arrays.append(np.asarray(tree))
        return _IS_ARRAY
    if isinstance(tree, np.ma.MaskedArray) and tree.hardmask:  # its pickle loses this flag
        rest.append(tree)
        return (_HARD_MASKED,)
    return _as_rest(tree, rest)


def unflattener(spec: tuple[Any, ...]) -> Callable[[Iterator[Array], Iterator[Any]], Any]:
    """Return a function that rebuilds a batch from an iterator over its arrays and one over everything else in it.

    Args:
        spec: the result of :func:`flatten` for the batch, or for another batch of the same structure.
    """
    kind = spec[0]
    if kind == _ARRAY:
        return lambda arrays, rest: next(arrays)
    if kind == _REST:
        return lambda arrays, rest: next(rest)
    if kind == _HARD_MASKED:
        return lambda arrays, rest: next(rest).harden_mask()
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
    _, number, of, names, *specs = spec
    form, parts = FORMS[number], [unflattener(part) for part in specs]

    def node(arrays: Iterator[Array], rest: Iterator[Any]) -> Any:
        shell = next(rest) if form.has_shell else None
        keys = form.keys(shell) if form.is_mapping else names
        return form.filled(of, keys, shell, [part(arrays, rest) for part in parts])

    return node


def dense_strides(array: Array) -> tuple[int, ...] | None:
    """Return the strides, in bytes, of a dense copy of ``array`` in its memory order; None for C order."""
    if array.flags.c_contiguous:
        return None
    strides, step = [0] * array.ndim, array.dtype.itemsize
    for axis in sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))[::-1]:
        strides[axis] = step
        step *= array.shape[axis]
    return tuple(strides)


def copy_of(array: Array) -> Array:
    """Return a dense copy of ``array`` in its memory order, including the padding between the fields of a dtype."""
    if array.dtype.names:
        copy: Array = array.view(f"V{array.dtype.itemsize}").copy("K").view(array.dtype)
    else:
        copy = array.copy("K")
    return copy


def copy_into(target: Array, array: Array) -> None:
    """Copy ``array``, including padding between the fields of its dtype, into ``target`` of equal dtype and shape."""
    if array.dtype.names:
        target, array = (each.view(f"V{array.dtype.itemsize}") for each in (target, array))
    target[...] = array


def dumps(value: Any) -> bytes:
    """Return ``value`` pickled by plain pickle, or by cloudpickle if that fails, for example on a lambda."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # a reducer may raise anything
        return pickled_by_value(value)


def as_numpy(tree: Any) -> Any:
    """Return the batch ``tree`` with tensors of TensorFlow, torch and JAX converted to numpy arrays."""
    arrays: list[Array] = []
    rest: list[Any] = []
    return unflattener(flatten(tree, arrays, rest))(iter(arrays), iter(rest))


def own(tree: Any, is_fresh: bool = False) -> Any:
    """Return a private copy of ``tree`` for the consumer, as needed by batches that are not sent in shared memory.

    Tensors become numpy arrays. Every array is writable, and nothing else holds it. So writing into a batch never
    changes the data set, and a batch never changes when the user's code writes to arrays that the code keeps.

    Args:
        tree: a batch, or a list of batches.
        is_fresh: True if the arrays of ``tree`` are new and nothing else holds them, see :func:`makes_fresh_batches`.
            Then only read-only arrays are copied.
    """
    is_one = type(tree) is list and len(tree) == 1  # the items of most jobs
    found = _owned_plain(tree[0] if is_one else tree, is_fresh)
    if found is not None:
        return [found] if is_one else found
    arrays: list[Array] = []
    rest: list[Any] = []
    spec = flatten(tree, arrays, rest)
    return unflattener(spec)(iter([_owned(array, is_fresh) for array in arrays]), iter(copies_of(rest)))


def _owned_plain(item: Any, is_fresh: bool) -> Any:
    """Return what :func:`own` returns for an array or a tuple of arrays, faster; None for anything else."""
    if _is_plain(item):
        return _owned(item, is_fresh)
    if type(item) is tuple and all(map(_is_plain, item)):
        return tuple([_owned(array, is_fresh) for array in item])
    return None


def _is_plain(item: Any) -> bool:
    return type(item) is np.ndarray and not item.dtype.hasobject


def _owned(array: Array, is_fresh: bool) -> Array:
    return array if is_fresh and array.flags.writeable else copy_of(array)


def makes_fresh_batches(source: Any) -> bool:
    """Return True if the sequence ``source`` declares that nothing else holds the arrays of its batches.

    Subclasses inherit the declaration, ``_makes_fresh_batches``, so it must hold for them too, even if they override
    the methods that make the batches.
    """
    return bool(getattr(source, "_makes_fresh_batches", False))
