"""Make the input of a user's function private to it, so that the function may write into it.

Reference counts tell whether anybody else holds an array: what ``__getitem__`` has just made is not copied.
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
    """Return ``items`` if certainly nobody else holds any part of them, and otherwise a copy to write into.

    The copy is of arrays, torch tensors, bytearrays and the containers of batches. Other objects are not copied.

    Args:
        items: a list or tuple. The caller must hold no other reference to its content.
    """
    return items if _is_private(items) else [map_leaves(_copy_of, item) for item in items]


def _is_private(items: Any) -> bool:
    """Return True if certainly nobody but the caller holds any mutable part of the list or tuple ``items``."""
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
    """Return True if nobody else holds the memory of ``array``, which is writable and holds no Python objects."""
    if array.dtype.hasobject or not array.flags.writeable:
        return False
    base = array.base
    return base is None or (type(base) is np.ndarray and base.base is None and sys.getrefcount(base) <= _ONE_HOLDER)


def _count_of_one_holder() -> int:
    """Return the ``sys.getrefcount`` that a loop sees here for an object that nothing but one container holds."""
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
