"""Whether the items of a source have indices, which shuffling and sharding need."""

from __future__ import annotations

import sys
from typing import Any

from .answers import Answers


def is_indexed(source: Any) -> bool:
    """Whether the items of ``source`` can be asked for by index."""
    if isinstance(source, Answers):
        return source._has_index
    if _is_iterable_dataset(source):
        return False
    return hasattr(source, "__getitem__") and hasattr(source, "__len__")


def check_indexed(source: Any, done: str, instead: str) -> None:
    """Raise a TypeError if the items of ``source`` have no indices.

    Args:
        done: what cannot be done to them, such as "shuffled".
        instead: what to write instead.
    """
    if is_indexed(source):
        return
    first = source
    while isinstance(first, Answers):
        first = first.source_split  # type: ignore[attr-defined]  # only what is made of something lacks indices
    made_of = "" if first is source else f" of a {type(first).__name__}"
    raise TypeError(
        f"{type(source).__name__}{made_of} has no indices, so its items cannot be {done}: {instead}; or give something "
        "with __len__ and __getitem__, such as a list"
    )


def _is_iterable_dataset(source: Any) -> bool:
    """Whether it is one of torch's, which have a ``__getitem__`` that only raises, and may have a length."""
    data = getattr(getattr(sys.modules.get("torch"), "utils", None), "data", None)
    return data is not None and isinstance(source, data.IterableDataset)
