"""The part of an object that cannot be pickled, and what its owner can write to leave it out."""

from __future__ import annotations

import ast
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from workers.frameworks.tensorflow import is_concrete
from workers.job.data_only import items_of, length_of, raw_items

from . import inheritance


class Unpicklable(NamedTuple):
    """What cannot be pickled: Unpicklable("the sequence.source.lock", "lock", "")."""

    path: str
    kind: str  # the name of its type
    advice: str  # on objects of this kind, or at this place, if there is any


def find_unpicklable(value: Any, path: str, is_picklable: Callable[[Any], bool], seconds: float = 0.8) -> Unpicklable:
    """The smallest part of ``value`` that cannot be pickled."""
    deadline = time.monotonic() + seconds
    seen: set[int] = set()
    while True:
        seen.add(id(value))
        for name, part in _parts(value, path):
            if time.monotonic() > deadline:
                return _found(path, value)
            if id(part) not in seen and not is_picklable(part):
                path, value = name, part
                break
        else:
            return _found(path, value)


def _found(path: str, value: Any) -> Unpicklable:
    advice = inheritance.ADVICE if inheritance.is_inherited(value) else _of_function(path)
    return Unpicklable(path, type(value).__name__, advice)


def _of_function(path: str) -> str:
    """What to do about an object at ``path`` that a function uses; else nothing."""
    function, is_of_function, _ = path.rpartition("'s ")
    if not is_of_function:
        return ""
    return (
        f"Define {function} in a module of its own, a file that the script imports: then it goes by its name, and each "
        "worker makes what it uses for itself. Or make that at first use, within the function"
    )


def _parts(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if is_concrete(value) or inheritance.is_inherited(value):
        return
    if isinstance(value, dict):
        yield from ((f"{path}[{key!r}]", part) for key, part in raw_items(value))
    elif isinstance(value, (list, tuple)):
        yield from ((f"{path}[{at}]", part) for at, part in enumerate(items_of(value, 0, length_of(value))))
    elif isinstance(value, (set, frozenset)):
        yield from ((f"{path}[{at}]", part) for at, part in enumerate(value))
    with contextlib.suppress(TypeError):
        yield from ((f"{path}.{name}", part) for name, part in vars(value).items())
    function = getattr(value, "__func__", value)
    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        yield f"{path}.__self__", value.__self__
    code = getattr(function, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):  # not yet filled
                yield f"{path}'s variable {name!r}", cell.cell_contents
        known = function.__globals__
        yield from ((f"{path}'s global {name!r}", known[name]) for name in code.co_names if name in known)
    for name in ("func", "args", "keywords"):  # functools.partial
        if hasattr(value, "func") and hasattr(value, "keywords"):
            yield f"{path}.{name}", getattr(value, name)
    if not isinstance(value, type):
        yield type(value).__qualname__, type(value)


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
