"""Copy the input of a user's function, unless nothing else holds it, so that the function may write into its input.

Reference counts show whether anything else holds an array, so an array just made by ``__getitem__`` is not copied.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from workers import frameworks

from .copies import is_immutable
from .nodes import map_leaves
from .tree import copy_of

_CONTAINERS = frozenset({list, tuple, dict})


def private(items: Sequence[Any]) -> Any:
    """Return ``items`` if it is certain that nothing else holds any part of them, else a copy to write into.

    The copy has its own arrays, torch tensors, bytearrays and containers. It shares other objects with the original.

    Args:
        items: a list or tuple. The caller must hold no other reference to its content.
    """
    return items if is_private(items) else [map_leaves(_copy_of, item) for item in items]


def is_private(items: Any) -> bool:
    """Return True if it is certain that nothing outside ``items``, a list or tuple, holds a mutable part of it."""
    left = deque([items])
    while left:
        container = left.pop()
        for part in container.values() if type(container) is dict else container:
            kind: Any = type(part)
            if is_immutable(part):
                continue
            if sys.getrefcount(part) > _ONE_HOLDER:
                return False
            if kind in _CONTAINERS:
                left.append(part)
            elif kind is not np.ndarray or not _is_of_itself(part):
                return False
    return True


def _is_of_itself(array: np.ndarray[Any, Any]) -> bool:
    """Return True if ``array`` is writable, holds no Python objects and shares its memory with nothing else."""
    if array.dtype.hasobject or not array.flags.writeable:
        return False
    base = array.base
    return base is None or (type(base) is np.ndarray and base.base is None and sys.getrefcount(base) <= _ONE_HOLDER)


def _count_of_one_holder() -> int:
    """Return what ``sys.getrefcount`` gives for an item in a loop over a container if nothing else holds the item."""
    return next(sys.getrefcount(part) for part in [np.empty(1)])


_ONE_HOLDER = _count_of_one_holder()


def _copy_of(leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        copy: Any = copy_of(leaf) if type(leaf) is np.ndarray else leaf.copy()
        if leaf.dtype.hasobject:
            for at, part in enumerate(leaf.flat):
                copy.flat[at] = map_leaves(_copy_of, part)
        return copy
    if isinstance(leaf, bytearray):
        return leaf[:]
    copied = frameworks.first_answer("own_copy", leaf)
    return leaf if copied is None else copied
