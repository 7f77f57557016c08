"""Compares a batch computed in the loop with the same batch from a worker, and describes the first difference."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from workers.batch.nodes import node_of
from workers.batch.tree import dumps
from workers.checks import short

_EXACT = int, float, complex, str, bytes, np.generic  # compared by their bytes, as == does not tell 0.0 from -0.0


class Difference(NamedTuple):
    """Where and how two batches differ, e.g. Difference(path="batch['x']", mine="1", theirs="2")."""

    path: str
    mine: str
    theirs: str


def difference(mine: Any, theirs: Any) -> str | None:
    """Return a text that says where and how two batches first differ; None if no difference is found.

    An example is ``"batch['x'] is 1 in the loop, but 2 in a worker"``.

    Args:
        mine: the batch that the loop has computed.
        theirs: the same batch, computed by a worker.
    """
    found = first_difference(mine, theirs)
    return None if found is None else f"{found.path} is {found.mine} in the loop, but {found.theirs} in a worker"


def first_difference(mine: Any, theirs: Any) -> Difference | None:
    """Return where and how two batches first differ; None if no difference is found."""
    return next(_differences(mine, theirs, "batch"), None)


def _differences(mine: Any, theirs: Any, path: str, within: tuple[Any, ...] = ()) -> Iterator[Difference]:
    """Yield each difference between two values at the same ``path`` in their batches, e.g. ``batch['x']``.
    Objects in ``within`` enclose these values, and are not entered again if the values refer back to them."""
    if type(mine) is not type(theirs):
        if type(mine).__qualname__ != type(theirs).__qualname__:  # else a copy, sent by value
            yield Difference(path, f"a {type(mine).__name__}", f"a {type(theirs).__name__}")
        return
    if isinstance(mine, np.ma.MaskedArray):
        yield from _of_arrays(mine.data, theirs.data, f"{path}.data")
        yield from _of_arrays(np.ma.getmaskarray(mine), np.ma.getmaskarray(theirs), f"{path}.mask")
    elif isinstance(mine, np.ndarray):
        yield from _of_arrays(mine, theirs, path)
    elif (node := node_of(mine)) is not None and (other := node_of(theirs)) is not None:
        if len(node.keys) != len(other.keys) and not node.form.is_mapping:
            yield Difference(path, f"of length {len(node.keys)}", f"of length {len(other.keys)}")
            return
        if node.keys != other.keys or list(map(type, node.keys)) != list(map(type, other.keys)):
            yield Difference(path, f"a container with keys {short(node.keys)}", f"one with keys {short(other.keys)}")
            return
        for step, part, there in zip(node.steps(), node.parts, other.parts, strict=True):
            yield from _differences(part, there, f"{path}{step}", within)
    elif isinstance(mine, enum.Enum):
        if mine.name != theirs.name:
            yield Difference(path, repr(mine), repr(theirs))
    elif _has_no_equality(mine) and hasattr(mine, "__dict__"):
        if not any(mine is each for each in within):
            yield from _differences(vars(mine), vars(theirs), path, (*within, mine))
    elif not _are_equal(mine, theirs):
        yield Difference(path, short(mine), short(theirs))


def _of_arrays(mine: Any, theirs: Any, path: str) -> Iterator[Difference]:
    if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
        yield Difference(path, f"{mine.dtype} of shape {mine.shape}", f"{theirs.dtype} of shape {theirs.shape}")
    elif mine.dtype.hasobject:
        for at in np.ndindex(mine.shape):
            yield from _differences(mine[at], theirs[at], f"{path}{list(at)}")
    elif not (_bytes(mine) == _bytes(theirs)).all():
        at = tuple(map(int, np.argwhere(_differs(mine, theirs))[0]))
        yield Difference(f"{path}{list(at)}" if at else path, repr(mine[at]), repr(theirs[at]))


def _bytes(array: Any) -> Any:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _differs(mine: Any, theirs: Any) -> Any:
    """Return a mask, shaped like both arrays, that is True where the bytes of their items differ."""
    nbytes = max(1, mine.dtype.itemsize)
    return (_bytes(mine) != _bytes(theirs)).reshape(*mine.shape, nbytes).any(-1)


def _are_equal(mine: Any, theirs: Any) -> bool:
    """Return True unless two objects are known to differ. Objects that cannot be compared count as equal."""
    try:
        if dumps(mine) == dumps(theirs):
            return True
        return _has_no_equality(mine) or (not isinstance(mine, _EXACT) and bool(mine == theirs))
    except Exception:  # the user's class may raise anything, or return an array, which has no truth value
        return True


def _has_no_equality(value: Any) -> bool:
    equals: Any = type(value).__eq__
    return equals is object.__eq__
