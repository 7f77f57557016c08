"""Checks that a sequence can be made from an object. The error for an unsuitable one says what to give instead."""

from __future__ import annotations

import types
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from workers.checks import short

from .base import Sequence
from .plan import is_indexed
from .tables import check_table

_FUNCTIONS = types.FunctionType, types.BuiltinFunctionType, types.MethodType
_TEXTS = str, bytes, bytearray


def check_source(name: str, source: Any) -> None:
    """Raise an error about the argument ``name`` unless the items of ``source`` can be read one by one.

    Raises:
        TypeError: they cannot. NotImplementedError: ``source`` is a Sequence without ``__getitem__`` or ``__len__``.
    """
    if isinstance(source, Sequence):
        _check_methods(source)
        return
    if isinstance(source, _TEXTS):
        raise TypeError(
            f"{name} is {short(source)} ({type(source).__name__}), whose items are single characters: give a list of "
            "strings, or, for the name of a file, what you read from the file"
        )
    check_table(name, source)
    if isinstance(source, Mapping):
        _check_mapping(name, source)
    if isinstance(source, type) or not (is_indexed(source) or hasattr(source, "__iter__")):
        raise TypeError(f"{name} must have __len__ and __getitem__, or __iter__; {_what_lacks(source)}")
    num_axes = getattr(source, "ndim", None)
    if isinstance(num_axes, int) and not num_axes:
        raise TypeError(
            f"{name} is a single value, {short(source)}, and has no items: give an array of at least one axis, or a "
            "list of values"
        )


def _check_methods(source: Sequence) -> None:
    """Raise NotImplementedError unless ``source`` defines ``__getitem__`` and either ``__len__`` or ``num_batches``."""
    kind: Any = type(source)
    getitem = kind.__getitem__
    if getattr(getitem, "__wrapped__", getitem) is Sequence.__getitem__:
        raise NotImplementedError(f"{kind.__name__} must define __getitem__(self, index), which returns batch index")
    says_num_batches = place_in_mro(kind, "num_batches") < place_in_mro(kind, "__len__")
    if getattr(kind.__len__, "__isabstractmethod__", False) and not says_num_batches:
        raise NotImplementedError(f"{kind.__name__} must define __len__(self), which returns the batches in an epoch")


def _what_lacks(source: Any) -> str:
    if isinstance(source, type):
        return f"{source.__name__} is a class: give an instance of it, {source.__name__}(...)"
    if isinstance(source, _FUNCTIONS):
        return f"{source.__name__} is a function: give what it returns, {source.__name__}(...)"
    shown = f"{short(source)} ({type(source).__name__})"
    if hasattr(source, "__getitem__"):
        return f"{shown} has __getitem__ but no __len__: define __len__, which returns how many items there are"
    if hasattr(source, "__len__"):
        return f"{shown} has __len__ but no __getitem__: define __getitem__(self, index), which returns an item"
    return f"{shown} has neither"


def _check_mapping(name: str, source: Mapping[Any, Any]) -> None:
    """Raise TypeError about argument ``name`` if the mapping ``source`` has no key 0: its keys are then not indices."""
    kind = type(source)
    is_told = place_in_mro(kind, "__contains__") <= place_in_mro(kind, "__getitem__")
    makes_missing = hasattr(kind, "__missing__") and not isinstance(source, defaultdict)
    if not is_told or makes_missing or not len(source):
        return
    try:
        if 0 in source:
            return
    except Exception:  # e.g. from a store on disk whose keys must be strings
        pass
    raise TypeError(
        f"{name} is a mapping ({kind.__name__}), whose items are found by key, not by index: for arrays of equal "
        "length, whose rows are the samples, give SequenceArray(dict(...)); for one sample a key, list(....values())"
    )


def place_in_mro(kind: type, name: str) -> float:
    """Return the index in ``kind.__mro__`` of the first class that defines ``name``; infinity if none does."""
    return next((at for at, each in enumerate(kind.__mro__) if name in each.__dict__), float("inf"))
