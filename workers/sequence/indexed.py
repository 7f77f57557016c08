"""Whether the items of a source have indices, which shuffling and sharding need."""

from __future__ import annotations

from typing import Any

from workers import frameworks


def is_indexed(source: Any) -> bool:
    """Whether the items of ``source``, which is made of no other, can be asked for by index."""
    has_both = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return has_both and not any(frameworks.asked("is_iterable_dataset", source))


def check_indexed(name: str, origin: Any, done: str, instead: str) -> None:
    """Raise a TypeError if the items of ``origin`` have no indices.

    Args:
        name: the class of what is made of it.
        done: what cannot be done to them, such as "shuffled".
        instead: what to write instead.
    """
    if is_indexed(origin):
        return
    first = type(origin).__name__
    made_of = "" if first == name else f" of a {first}"
    raise TypeError(
        f"{name}{made_of} has no indices, so its items cannot be {done}: {instead}; or give something with __len__ and "
        "__getitem__, such as a list"
    )
