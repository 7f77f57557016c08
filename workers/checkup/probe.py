"""Runs jobs as the engine does, and delivers records of them in place of batches: what their functions have returned.

The record of a job lists the Python functions that have returned during the job, in order, each with a checksum of what
it returned. The first one that differs between two records of the same job is the one that made the batches differ.
"""

from __future__ import annotations

import contextlib
import dis
import pickle
import sys
import types
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from workers.batch.forms import is_of_framework
from workers.batch.to_numpy import to_numpy
from workers.checks import short
from workers.job import context
from workers.job.context import is_in_worker_process
from workers.job.installed import is_installed
from workers.job.task import Task

from .data import arrays_of, checksum, viewed
from .surroundings import Opened, settings

_MOST_CALLS = 20_000  # in a record
_MOST_NBYTES = 1 << 25  # of an array whose content is read
_MOST_PARTS, _MOST_LEVELS = 100, 4  # of a value
_HIDDEN = "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>", "<module>"


class Code(NamedTuple):
    """A Python function, where it is defined, and the names that its code uses."""

    name: str
    file: str
    line: int
    names: tuple[str, ...] = ()


class Returned(NamedTuple):
    """A function that has returned: itself, the user's function that it is or is called by, and a checksum."""

    function: Code
    by: Code | None  # None: no function of the user's has called it
    value: int


class JobRecord(NamedTuple):
    """The record of a job.

    Attributes:
        index: of the job.
        worker: the number of the worker that ran it; None in the program.
        error: the type and text of what it raised; "" if it did not.
        item: a checksum of the item that was sent to it; 0 if none was.
        returned: the functions that returned, in order.
        views: paths of the source's arrays of which the batch is a view; found in the program only.
        settings: those of the process.
        before, after: what was open.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    worker: int | None
    error: str
    item: int
    returned: list[Returned]
    views: list[str]
    settings: dict[str, str]
    before: Opened
    after: Opened


class ProbeTask(Task):
    """A task whose items are records of its jobs, pickled. A task becomes one by its ``__class__``."""

    def run(self, index: int, payload: tuple[Any] | None, source: Any = None) -> list[Any]:
        current = context.current
        current.portions = None  # nothing is sent before the end
        job, before = current.job, Opened.now()
        returned: list[Returned] = []
        error, views = "", list[str]()
        try:
            with _recorded(returned):
                items = super().run(index, payload, source)
            if not is_in_worker_process():
                views = viewed(items, arrays_of(self.source, self.functions))
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        worker = None if job is None else job.worker
        item = 0 if payload is None else value_of(payload)
        record = JobRecord(index, worker, error, item, returned, views, settings(), before, Opened.now())
        return [pickle.dumps(record)]


@contextlib.contextmanager
def _recorded(returned: list[Returned]) -> Iterator[None]:
    """Within this block, append each Python function that returns in this thread to ``returned``."""
    before, places = sys.getprofile(), dict[Any, Code]()

    def note(frame: Any, event: str, value: Any) -> None:
        if event != "return" or len(returned) >= _MOST_CALLS or frame.f_code.co_name in _HIDDEN or _is_ours(frame):
            return
        by = frame
        while by is not None and not _is_ours(by) and is_installed(by.f_globals.get("__name__")):
            by = by.f_back
        own = None if by is None or _is_ours(by) else _place(by.f_code, places)
        returned.append(Returned(_place(frame.f_code, places), own, value_of(value)))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(before)


def _is_ours(frame: Any) -> bool:
    name = frame.f_globals.get("__name__") or ""
    return name == "workers" or name.startswith(("workers.", "importlib.", "_frozen_importlib", "namedtuple_"))


def _place(code: Any, places: dict[Any, Code]) -> Code:
    place = places.get(code)
    if place is None:
        name = getattr(code, "co_qualname", code.co_name).rpartition("<locals>.")[2]
        place = places[code] = Code(name, code.co_filename, code.co_firstlineno, _names_of(code))
    return place


def _names_of(code: types.CodeType) -> tuple[str, ...]:
    """Return the names that ``code`` uses, also in functions within it; "set" if it makes a set."""
    makes_sets = any(each.opname in ("BUILD_SET", "SET_ADD") for each in dis.get_instructions(code))
    names = [*code.co_names, *code.co_freevars, *(["set"] if makes_sets else [])]
    for each in code.co_consts:
        names += _names_of(each) if isinstance(each, types.CodeType) else ()
    return tuple(dict.fromkeys(names))


def value_of(value: Any, level: int = 0) -> int:
    """Return a checksum of ``value``: arrays, tensors, numbers and texts, also in lists, tuples and dicts."""
    kind: Any = type(value)
    if is_of_framework(kind):
        try:
            value = to_numpy(value)
        except Exception:  # a tensor within a graph has no value
            return _checksum(kind.__name__)
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.nbytes > _MOST_NBYTES:
            return _checksum(f"{value.dtype}{value.shape}")
        return checksum(value)
    if isinstance(value, (bool, int, float, complex, str, bytes, np.generic)):
        return _checksum(f"{kind.__name__} {short(value)}" if not isinstance(value, bytes) else value)
    if kind in (list, tuple) and level < _MOST_LEVELS:
        return _checksum(f"{len(value)} {[value_of(each, level + 1) for each in value[:_MOST_PARTS]]}")
    if kind is dict and level < _MOST_LEVELS:
        pairs = [(value_of(key, level + 1), value_of(each, level + 1)) for key, each in list(value.items())]
        return _checksum(str(pairs[:_MOST_PARTS]))
    return _checksum(kind.__name__)


def _checksum(text: str | bytes) -> int:
    return zlib.crc32(text.encode(errors="replace") if isinstance(text, str) else text)
