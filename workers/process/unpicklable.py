"""Finds the part of an object that cannot be pickled, and advises the user how to leave it out of the pickle."""

from __future__ import annotations

import ast
import contextlib
import copyreg
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from workers.frameworks.tensorflow import is_concrete
from workers.job.data_only import items_of, length_of, raw_items

from . import inheritance

_STEP = re.compile(r"\.(\w+)|\[([^\]]*)\]")  # one step of a path, e.g. ".lock" or "[3]"
_NOT_THE_USERS = frozenset({"workers", "sampler", "builtins", "functools", "collections"})


class Unpicklable(NamedTuple):
    """An object that cannot be pickled: Unpicklable(path="the sequence.source.lock", kind="lock", advice="")."""

    path: str
    kind: str  # the name of the object's type
    advice: str  # what the user can do about this kind of object; "" if there is no special advice


class Step(NamedTuple):
    """One step from an object to a part of it, e.g. an attribute: Step(kind="attribute", key="lock", part=<a lock>)."""

    kind: str  # "item", "attribute", "class", or of a function: "variable" or "global"
    key: Any  # the key of an item; for other parts, the name
    part: Any

    def onto(self, path: str) -> str:
        """Return the path to the part, e.g. "the sequence.lock". ``path``: the object's own path, "the sequence"."""
        if self.kind == "item":
            return f"{path}[{self.key!r}]"
        if self.kind == "attribute":
            return f"{path}.{self.key}"
        return str(self.key) if self.kind == "class" else f"{path}'s {self.kind} {self.key!r}"


def find_unpicklable(value: Any, path: str, is_picklable: Callable[[Any], bool], seconds: float = 0.8) -> Unpicklable:
    """Find the innermost unpicklable part of ``value``. After ``seconds``, return the innermost one found so far.

    Args:
        path: the name of ``value``, with which the path to the part begins, e.g. "the sequence".
    """
    deadline = time.monotonic() + seconds
    seen: set[int] = set()
    while True:
        seen.add(id(value))
        for step in steps(value):
            if time.monotonic() > deadline:
                return _found(path, value)
            if id(step.part) not in seen and not is_picklable(step.part):
                path, value = step.onto(path), step.part
                break
        else:
            return _found(path, value)


def _found(path: str, value: Any) -> Unpicklable:
    advice = inheritance.ADVICE if inheritance.is_inherited(value) else _of_function(path)
    return Unpicklable(path, type(value).__name__, advice)


def _of_function(path: str) -> str:
    """Return advice to the user if ``path`` leads to a variable or a global of a function, otherwise ""."""
    function, is_of_function, _ = path.rpartition("'s ")
    if not is_of_function:
        return ""
    return (
        f"Define {function} in a module of its own, a file that the script imports: then it is sent by its name, and "
        "each worker creates for itself what it uses. Or create that at first use, inside the function"
    )


def steps(value: Any) -> Iterator[Step]:
    """Yield a step to each part of ``value`` that may be pickled with it: items, attributes, a function's variables."""
    if is_concrete(value) or inheritance.is_inherited(value):
        return
    if isinstance(value, dict):
        yield from (Step("item", key, part) for key, part in raw_items(value))
    elif isinstance(value, (list, tuple)):
        yield from (Step("item", at, part) for at, part in enumerate(items_of(value, 0, length_of(value))))
    elif isinstance(value, (set, frozenset)):
        yield from (Step("item", at, part) for at, part in enumerate(value))
    yield from (Step("attribute", name, part) for name, part in _attributes(value).items())
    function = getattr(value, "__func__", value)
    if hasattr(value, "__self__") and hasattr(value, "__func__"):
        yield Step("attribute", "__self__", value.__self__)
    code = getattr(function, "__code__", None)
    if code is not None:
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
            with contextlib.suppress(ValueError):  # the variable has no value yet
                yield Step("variable", name, cell.cell_contents)
        known = function.__globals__
        yield from (Step("global", name, known[name]) for name in code.co_names if name in known)
    for name in ("func", "args", "keywords"):  # functools.partial
        if hasattr(value, "func") and hasattr(value, "keywords"):
            yield Step("attribute", name, getattr(value, name))
    if not isinstance(value, type):
        yield Step("class", type(value).__qualname__, type(value))


def state_of(obj: Any) -> dict[str, Any] | None:
    """Return the attributes that are pickled with ``obj``, {name: value}; None if it is pickled in another way."""
    try:
        _, _, state, *_ = obj.__reduce_ex__(5)
    except Exception:  # a user's __reduce__ may raise anything
        return None
    return state if isinstance(state, dict) else None


def _attributes(obj: Any) -> dict[str, Any]:
    """Return the attributes that are pickled with ``obj``, {name: value}; if these are unknown, all its attributes."""
    found = None if isinstance(obj, type) else state_of(obj)
    if found is None:
        found = dict(getattr(obj, "__dict__", {}))
        with contextlib.suppress(Exception):  # a user's class may have slots of any kind
            slots: list[str] = copyreg._slotnames(type(obj))  # type: ignore[attr-defined]
            found |= {name: getattr(obj, name) for name in slots if hasattr(obj, name)}
    return found


def left_out(value: Any, path: str, name: str) -> str:
    """Return advice to the user on how to leave the unpicklable part of ``value`` out of its pickle.

    The advice names the first attribute on ``path`` that belongs to an object of the user's own class.

    Args:
        path: the path from ``value`` to the unpicklable part, e.g. "the sequence.source.source_split.files[0]".
        name: the name of ``value``, with which ``path`` begins, e.g. "the sequence".
    """
    owner, attribute = _owner(value, path.removeprefix(name))
    if owner is None:
        return (
            "make it where it is used, or hold it in an object of a class with "
            "def __getstate__(self): return {**self.__dict__, 'name': None}"
        )
    return f"in {type(owner).__name__}, def __getstate__(self): return {{**self.__dict__, {attribute!r}: None}}"


def shown(path: str) -> str:
    """Return ``path`` as the user knows it, without the internal attributes that link a sequence to its source."""
    return path.replace(".source_split", "")


def _owner(value: Any, path: str) -> tuple[Any, str]:
    """Return (first object of a user's class on ``path``, name of its attribute on ``path``); (None, "") if none.

    ``path``: the path from ``value`` on, e.g. ".source.files[0]".
    """
    at = 0
    while (step := _STEP.match(path, at)) is not None:
        attribute, key = step.groups()
        if attribute is not None and type(value).__module__.partition(".")[0] not in _NOT_THE_USERS:
            return value, attribute
        try:
            value = getattr(value, attribute) if key is None else value[ast.literal_eval(key)]
        except Exception:  # value is a set, the key is not a literal, or the user's class raises an error
            break
        at = step.end()
    return None, ""
