"""Copies of what in a batch is no array, but for what nobody can write to."""

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

#: Of exactly these types.
SCALARS: frozenset[type] = frozenset({int, float, bool, str, bytes, complex, type(None)})
_NUMBERS = {each for each in np.sctypeDict.values() if not issubclass(each, (np.void, np.object_))}
_NEVER_WRITTEN: frozenset[type] = SCALARS | _NUMBERS
#: Their attributes do not count: one enum, class, function or module is the same everywhere.
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
    """Whether writing into a batch can never change ``leaf``. A subclass with attributes of its own can be changed."""
    kind = type(leaf)
    if kind in _NEVER_WRITTEN or isinstance(leaf, _ONE_ANYWHERE):
        return True
    return isinstance(leaf, _IMMUTABLE) and not isinstance(leaf, np.void) and not (kind.__dictoffset__ and vars(leaf))


def copies_of(rest: list[Any]) -> list[Any]:
    """The rest of a batch, in which nothing that can be changed is anybody else's. What cannot be copied stays."""
    if _NEVER_WRITTEN.issuperset(map(type, rest)):
        return rest
    try:
        return copy.deepcopy(rest, {key: value for leaf in rest for key, value in _memo(leaf).items()})
    except MemoryError:
        raise
    except Exception:  # one by one: what the others share stays whole
        return [_copy_of(leaf) for leaf in rest]


def _copy_of(leaf: Any) -> Any:
    try:
        return copy.deepcopy(leaf, _memo(leaf))
    except MemoryError:
        raise
    except Exception:
        return leaf


def _memo(leaf: Any) -> dict[int, Any]:
    """What stands for parts of ``leaf`` in its copy, by identities. Keys and what makes items stay the same ones."""
    if type(leaf) is tuple or is_immutable(leaf):  # a tuple: the keys of a dict
        return {id(leaf): leaf}
    if isinstance(leaf, dict):
        parts = [*leaf, getattr(leaf, "default_factory", None)]
        return {id(part): part for part in parts}
    if type(leaf) is np.ndarray and SCALARS.issuperset(map(type, leaf.flat)):
        return {id(leaf): leaf.copy("K")}
    return {}
