"""Checks arguments of functions. The errors name the argument, its value and what is allowed."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Sized
from typing import Any

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 200
_repr.maxdict = 10


def short(value: Any) -> str:
    """Return ``repr(value)``, shortened to fit into a message."""
    try:
        return _repr.repr(value)
    except Exception:  # e.g. an integer with too many digits
        return f"a {type(value).__name__}"


def check_int(name: str, value: Any, at_least: int, allowed: str | None = None) -> int:
    """Return ``value`` as an int if it is an integer >= ``at_least``; else raise an error that names argument ``name``.

    Args:
        allowed: how errors describe the allowed values; by default as "an integer >= " and ``at_least``.

    Raises:
        TypeError: ``value`` is not an integer; a bool does not count as one. ValueError: it is below ``at_least``.
    """
    allowed = allowed or f"an integer >= {at_least}"
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be {allowed}, not {short(value)} ({type(value).__name__})")
    number = int(value.__index__())
    if number < at_least:
        raise ValueError(f"{name} must be {allowed}, not {short(number)}")
    return number


def check_seconds(name: str, value: Any, allow_none: bool = True) -> float | None:
    """Return ``value`` as a float if it is a number > 0; return None if it is None and ``allow_none`` is True.
    Else raise a TypeError or ValueError that names argument ``name``."""
    allowed = "a number of seconds > 0" + (" or None" if allow_none else "")
    if value is None and allow_none:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be {allowed}, not {short(value)} ({type(value).__name__})")
    if not value > 0:
        raise ValueError(f"{name} must be {allowed}, not {short(value)}")
    return float(value)


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """Return ``value`` if it is one of ``choices``, else raise a ValueError that names argument ``name``."""
    if not any(value is choice or (isinstance(choice, str) and value == choice) for choice in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, not {short(value)}")
    return value


def check_bool(name: str, value: Any) -> bool:
    """Return ``value`` if it is True or False, else raise a ValueError that names argument ``name``."""
    return bool(check_choice(name, value, (True, False)))


def check_function(name: str, value: Any) -> Any:
    """Return ``value`` if it is callable or None, else raise a TypeError that names argument ``name``."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a function or None, not {short(value)}")
    return value


def check_callable(name: str, value: Any) -> Any:
    """Return ``value`` if it is callable, else raise a TypeError that names argument ``name``."""
    if not callable(value):
        raise TypeError(f"{name} must be a function, not {short(value)}")
    return value


def check_index(index: Any, of: Sized) -> int:
    """Return ``index`` as a position in ``of``, 0 to length - 1. A negative index counts from the end, as in a list.

    Raises:
        TypeError: ``index`` is not an integer. IndexError: it is out of range.
    """
    length = len(of)
    if isinstance(index, bool) or not hasattr(type(index), "__index__"):
        raise TypeError(f"index must be an integer, not {short(index)} ({type(index).__name__})")
    position = int(index.__index__())
    if not length:
        raise IndexError(f"index {short(position)} is out of range: {type(of).__name__} has no batches")
    if not -length <= position < length:
        raise IndexError(
            f"index {short(position)} is out of range: {type(of).__name__} has {length} batches "
            f"(0 to {length - 1}, or -{length} to -1 from the end)"
        )
    return position % length


def function_name(function: Any) -> str:
    """Return the name of ``function``, or of the class of an object that can be called, for texts."""
    if isinstance(function, functools.partial):
        several = function.keywords.get("function_to_run")
        return ", ".join(map(function_name, several)) if several else function_name(function.func)
    return str(getattr(function, "__qualname__", type(function).__name__)).rpartition("<locals>.")[2]
