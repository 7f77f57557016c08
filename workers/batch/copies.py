"""Copy the *rest* of a batch, that is, all its objects but the arrays; immutable objects are shared, not copied."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import re
import types
import uuid
from typing import Any

import numpy as np

#: The plain immutable types. Subclasses do not count, since their instances may have attributes.
SCALARS: frozenset[type] = frozenset({int, float, bool, str, bytes, complex, type(None)})
_NUMBERS = {each for each in np.sctypeDict.values() if not issubclass(each, (np.void, np.object_))}
_NEVER_WRITTEN: frozenset[type] = SCALARS | _NUMBERS
#: Enum members, classes, functions and modules exist only once: they are never copied, whatever their attributes.
_ONE_ANYWHERE: tuple[type, ...] = (enum.Enum, type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
_IMMUTABLE: tuple[type, ...] = (
    *SCALARS,
    np.generic,
    np.dtype,
    range,
    slice,
    frozenset,
    dt.date,
    dt.time,
    dt.timedelta,
    dt.tzinfo,
    decimal.Decimal,
    fractions.Fraction,
    pathlib.PurePath,
    re.Pattern,
    uuid.UUID,
)


def is_immutable(leaf: Any) -> bool:
    """Return True if copies of a batch may share its object ``leaf``, as it is immutable or exists only once.

    An instance of a subclass of an immutable type counts as mutable if it has attributes.
    """
    kind = type(leaf)
    if kind in _NEVER_WRITTEN or isinstance(leaf, _ONE_ANYWHERE):
        return True
    return isinstance(leaf, _IMMUTABLE) and not isinstance(leaf, np.void) and not (kind.__dictoffset__ and vars(leaf))


def copies_of(rest: list[Any]) -> list[Any]:
    """Return ``rest``, the objects of a batch that are not arrays, with every mutable object copied.

    An object that cannot be copied is returned as it is.
    """
    if _NEVER_WRITTEN.issuperset(map(type, rest)):
        return rest
    try:
        return copy.deepcopy(rest, {key: value for leaf in rest for key, value in _memo(leaf).items()})
    except MemoryError:
        raise
    except Exception:  # one by one, so that only the leaves that cannot be copied stay shared
        return [_copy_of(leaf) for leaf in rest]


def _copy_of(leaf: Any) -> Any:
    try:
        return copy.deepcopy(leaf, _memo(leaf))
    except MemoryError:
        raise
    except Exception:
        return leaf


def _memo(leaf: Any) -> dict[int, Any]:
    """Return a memo for ``copy.deepcopy(leaf, memo)``, as {id of an object: the object to use in the copy instead}.

    The memo makes the copy share a ``leaf`` that is immutable, and a dict's keys and default factory. For an object
    array of scalars, it contains a copy made by numpy, since deepcopy would copy item by item.
    """
    if type(leaf) is tuple or is_immutable(leaf):  # a tuple here holds the keys of a dict
        return {id(leaf): leaf}
    if isinstance(leaf, dict):
        parts = [*leaf, getattr(leaf, "default_factory", None)]
        return {id(part): part for part in parts}
    if type(leaf) is np.ndarray and SCALARS.issuperset(map(type, leaf.flat)):
        return {id(leaf): leaf.copy("K")}
    return {}
