"""What to write where something cannot be sent to workers: names the user's own class and attribute."""

from __future__ import annotations

import ast
import re
from typing import Any

_STEP = re.compile(r"\.(\w+)|\[([^\]]*)\]")
_NOT_THE_USERS = frozenset({"workers", "sampler", "builtins", "functools", "collections"})


def left_out(value: Any, path: str, name: str) -> str:
    """How the first attribute of an object of the user's on ``path``, which begins at ``value``, is left out.

    Args:
        path: such as "the sequence.source.source_split.files[0]".
        name: what stands for ``value`` in it, such as "the sequence".
    """
    owner, attribute = _owner(value, path.removeprefix(name))
    if owner is None:
        return (
            "make it where it is used, or hold it in an object of a class with "
            "def __getstate__(self): return {**self.__dict__, 'name': None}"
        )
    return f"in {type(owner).__name__}, def __getstate__(self): return {{**self.__dict__, {attribute!r}: None}}"


def shown(path: str) -> str:
    """``path`` without the words of the chain between a sequence and what it was made from."""
    return path.replace(".source_split", "")


def _owner(value: Any, path: str) -> tuple[Any, str]:
    """The first object along ``path`` whose class is the user's, and its attribute there; (None, ""): there is none."""
    at = 0
    while (step := _STEP.match(path, at)) is not None:
        attribute, key = step.groups()
        if attribute is not None and type(value).__module__.partition(".")[0] not in _NOT_THE_USERS:
            return value, attribute
        try:
            value = getattr(value, attribute) if key is None else value[ast.literal_eval(key)]
        except Exception:  # a set, a key of another type, or what the user's class does
            break
        at = step.end()
    return None, ""
