"""Measures, now and then, the functions of a chain: how long a call takes, how large its result is, and if it draws.

A function can tell what it does in the meantime: see :func:`timed`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.checks import function_name

from . import context
from .draws import DrawSearch

if TYPE_CHECKING:
    from .notes import Notes

_SHARE = 100  # measuring takes at most a hundredth of the time
_MOST_PARTS = 100  # of a result, when its size is found


class FunctionUse(NamedTuple):
    """The calls of a function that were measured."""

    calls: int = 0
    ns: int = 0
    nbytes: int = 0  # of the results
    draws: int = 0  # calls that have drawn random numbers, or have asked for the epoch
    parts: tuple[tuple[str, int], ...] = ()  # ((part, ns), ...): see ``timed``

    def plus(self, other: FunctionUse) -> FunctionUse:
        parts = tuple(context.total(self.parts + other.parts).items())
        calls, ns, nbytes = self.calls + other.calls, self.ns + other.ns, self.nbytes + other.nbytes
        return FunctionUse(calls, ns, nbytes, self.draws + other.draws, parts)


#: {name of a function, in the order of the chain: its use}; under "" that of whole jobs.
Uses = dict[str, FunctionUse]

_OWN = "\0"  # the name under which the cost of measuring is recorded until the end of the job
DUE = [0]  # [when, in monotonic ns, a job may be measured again in this process]


def is_measured() -> bool:
    """Return True if the functions of the running job are measured: see :func:`called`."""
    notes = context.current.notes
    return notes is not None and notes.functions is not None


@contextlib.contextmanager
def unmeasured() -> Iterator[None]:
    """Do not measure the functions and parts of the running job in this block."""
    notes = context.current.notes
    if notes is None:
        yield
        return
    before = notes.functions, notes.parts
    try:
        notes.functions = notes.parts = None
        yield
    finally:
        notes.functions, notes.parts = before


def end(notes: Notes, start_ns: int) -> None:
    """Record in its ``notes`` the end of a measured job, which began at ``start_ns``."""
    now_ns, uses = time.monotonic_ns(), notes.functions
    assert uses is not None
    total = uses.pop(_OWN, FunctionUse())
    DUE[0] = now_ns + _SHARE * total.ns
    parts, notes.parts = tuple((notes.parts or {}).items()), None
    uses[""] = FunctionUse(1, max(0, now_ns - start_ns - total.ns), parts=parts)


def called(function: Callable[[Any], Any], item: Any) -> Any:
    """Return ``function(item)``, and record the call, as the running job is measured."""
    notes = context.current.notes
    assert notes is not None
    uses, parts_of_job, parts = notes.functions, notes.parts, dict[str, int]()
    assert uses is not None
    before_ns = time.monotonic_ns()
    search = DrawSearch()
    try:
        notes.functions, notes.parts = None, parts  # functions within this one are not measured
        start_ns = time.monotonic_ns()
        result = function(item)
        end_ns = time.monotonic_ns()
        nbytes, draws = _nbytes(result, [_MOST_PARTS]), bool(search.found())
        use = FunctionUse(1, end_ns - start_ns, nbytes, draws, tuple(parts.items()))
    finally:
        notes.functions, notes.parts = uses, parts_of_job
        search.end()
    if type(result) is not GeneratorType:  # whose body runs later
        _add(uses, function_name(function), use)
    _add(uses, _OWN, FunctionUse(1, time.monotonic_ns() - before_ns - use.ns))
    return result


class timed:  # read as a word: with timed("decode")
    """A context manager that tells the report what its block does: ``with timed("decode"): ...``

    The report names the parts of a job, and the share of the time that each takes; they must not lie within each other.
    Jobs are measured now and then; in all others, and outside of a job, a block takes 0.3 us more.

    Args:
        part: a name, such as ``"decode"``. ``sampler.load_image`` has the parts "read", "decode", "crop" and "resize".

    Example:
        >>> class Texts(workers.Sequence):
        ...     def __len__(self):
        ...         return 200
        ...     def __getitem__(self, index):
        ...         with workers.timed("split"):
        ...             return [len(f"{index} words".split())]
        >>> with workers.prefetch(Texts(), nb_workers=0) as batches:
        ...     for batch in batches:
        ...         pass
        ...     list(batches.report().parts)
        ['split']
    """

    def __init__(self, part: str) -> None:
        self.part = part

    def __enter__(self) -> None:
        notes = context.current.notes
        if notes is not None and notes.parts is not None:
            notes.started[self.part, threading.get_ident()] = time.monotonic_ns()

    def __exit__(self, *_: object) -> None:
        notes = context.current.notes
        if notes is not None and notes.parts is not None:
            start_ns = notes.started.pop((self.part, threading.get_ident()), None)
            if start_ns is not None:
                notes.parts[self.part] = notes.parts.get(self.part, 0) + time.monotonic_ns() - start_ns


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
