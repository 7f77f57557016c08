"""Measures, now and then, the functions of a chain: how long a call takes, how large its result is, and if it draws."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from workers.checks import function_name

from . import context
from .draws import DrawSearch

_SHARE = 100  # measuring takes at most a hundredth of the time
_MOST_PARTS = 100  # of a result, when its size is found


class FunctionUse(NamedTuple):
    """The calls of a function that were measured."""

    calls: int = 0
    ns: int = 0
    nbytes: int = 0  # of the results
    draws: int = 0  # calls that have drawn random numbers, or have asked for the epoch

    def plus(self, other: FunctionUse) -> FunctionUse:
        return FunctionUse(*(one + another for one, another in zip(self, other, strict=True)))


#: {name of a function, in the order of the chain: its use}; under "" that of whole jobs.
Uses = dict[str, FunctionUse]

_OWN = "\0"  # the name under which the cost of measuring is recorded until the end of the job
DUE = [0]  # [when, in monotonic ns, a job may be measured again in this process]


def end(uses: Uses, start_ns: int) -> None:
    """Record the end of a measured job, which began at ``start_ns`` and has called at least one function."""
    now_ns = time.monotonic_ns()
    total = uses.pop(_OWN, FunctionUse())
    DUE[0] = now_ns + _SHARE * total.ns
    uses[""] = FunctionUse(1, max(0, now_ns - start_ns - total.ns))


def called(function: Callable[[Any], Any], item: Any) -> Any:
    """Return ``function(item)``, and record the call, as the running job is measured."""
    uses = context.current.functions
    assert uses is not None
    before_ns = time.monotonic_ns()
    search = DrawSearch()
    try:
        context.current.functions = None  # not for jobs that run within this one
        start_ns = time.monotonic_ns()
        result = function(item)
        end_ns = time.monotonic_ns()
        use = FunctionUse(1, end_ns - start_ns, _nbytes(result, [_MOST_PARTS]), bool(search.found()))
    finally:
        context.current.functions = uses
        search.end()
    _add(uses, function_name(function), use)
    _add(uses, _OWN, FunctionUse(1, time.monotonic_ns() - before_ns - use.ns))
    return result


def _add(uses: Uses, name: str, use: FunctionUse) -> None:
    uses[name] = uses.get(name, FunctionUse()).plus(use)


def _nbytes(value: Any, left: list[int]) -> int:
    """Return roughly how many bytes ``value`` has; of a large container, those of its first parts."""
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    total = 0
    for part in parts:
        left[0] -= 1
        if left[0] < 0:
            break
        total += _nbytes(part, left)
    return total
