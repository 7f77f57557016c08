"""Sends what a job has noted to the consumer, as the last item of the job.

A job notes the errors of samples that it has skipped or replaced, and how many samples it has read from each source.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from . import context, function_use

if TYPE_CHECKING:
    from .function_use import Uses
    from .portions import PortionSender

_MOST_TEXT = 200  # characters of an error


class SampleFailure(NamedTuple):
    """A sample that raised an error: SampleFailure(17, "skipped", "ValueError: truncated image")."""

    sample: int | None  # its index; None if the error is of a whole batch, or the index is unknown
    what: str  # what was done: "skipped", "redrawn" or "retried"
    error: str


class CacheUse(NamedTuple):
    """How often a job has found items in a cache; how often, and for how long, it has computed items that were not."""

    hits: int = 0
    misses: int = 0
    miss_ns: int = 0

    def plus(self, other: CacheUse) -> CacheUse:
        return CacheUse(self.hits + other.hits, self.misses + other.misses, self.miss_ns + other.miss_ns)


_UNUSED = CacheUse()


class Notes:
    """What a job has noted: its last item, if there is anything.

    Attributes:
        failures: the errors of samples that were skipped or replaced.
        sources: {name: how many samples, or batches, were read from this source of a mix or a concat}.
        cached: the use of caches.
        functions: the use of functions; None if the job is not measured.
        parts: {part of the function that runs now, or else of the job: ns}; None if it is not measured.
        started: {(part that runs now, id of its thread): its start in monotonic ns}.
    """

    __slots__ = "cached", "failures", "functions", "parts", "sources", "started"

    def __init__(self) -> None:
        self.failures: list[SampleFailure] = []
        self.sources: dict[str, int] = {}
        self.cached = _UNUSED
        self.functions: Uses | None = None
        self.parts: dict[str, int] | None = None
        self.started: dict[tuple[str, int], int] = {}

    def has_any(self) -> bool:
        return bool(self.failures or self.sources or self.cached is not _UNUSED or self.functions)


NOTHING = Notes()


def failure_of(error: BaseException, what: str, sample: int | None = None) -> SampleFailure:
    """Return the record of ``error``; ``what``: what was done about it, such as "skipped"."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return SampleFailure(sample, what, text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "...")


def note_failure(failure: SampleFailure) -> None:
    """Record the failure of a sample of the running job; do nothing outside of a job that a loop has asked for."""
    notes = context.current.notes
    if notes is not None:
        notes.failures.append(failure)


def note_source(name: str) -> None:
    """Record that the running job has read a sample or batch of the source ``name``; do nothing outside of a job."""
    notes = context.current.notes
    if notes is not None:
        notes.sources[name] = notes.sources.get(name, 0) + 1


def note_cached(use: CacheUse) -> None:
    """Record that the running job has used a cache; do nothing outside of a job."""
    notes = context.current.notes
    if notes is not None:
        notes.cached = notes.cached.plus(use)


def with_notes(
    run: Callable[..., list[Any]], index: int, payload: tuple[Any] | None, portions: PortionSender
) -> list[Any]:
    """Return ``run(index, payload)``, the items of a job but for those that were sent as ``portions``.
    If the job has noted anything, its :class:`Notes` are one more item."""
    current, notes = context.current, Notes()
    before = current.notes  # of the job that this one runs in
    start_ns = time.monotonic_ns()
    if start_ns >= function_use.DUE[0]:
        notes.functions, notes.parts = {}, {}
    try:
        current.notes, current.portions, current.is_delivered = notes, portions, True
        items = run(index, payload)
    finally:
        current.notes, current.portions, current.is_delivered = before, None, False
    if notes.functions or notes.parts:
        function_use.end(notes, start_ns)
    return [*items, notes] if notes.has_any() else items


def without_notes(items: list[Any]) -> tuple[list[Any], Notes]:
    """Return (the items of a job, what it has noted); see :func:`with_notes`."""
    if items and type(items[-1]) is Notes:
        return items[:-1], items[-1]
    return items, NOTHING
