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


class Notes:
    """What a job has noted: its last item, if there is anything.

    Attributes:
        failures: the errors of samples that were skipped or replaced.
        sources: {name: how many samples, or batches, were read from this source of a mix or a concat}.
        cached: the use of caches.
        functions: the use of functions, if the job was measured.
    """

    def __init__(
        self, failures: list[SampleFailure], sources: dict[str, int], cached: CacheUse, functions: Uses | None
    ) -> None:
        self.failures, self.sources, self.cached, self.functions = failures, sources, cached, functions


class CacheUse(NamedTuple):
    """How often a job has found items in a cache; how often, and for how long, it has computed items that were not."""

    hits: int = 0
    misses: int = 0
    miss_ns: int = 0

    def plus(self, other: CacheUse) -> CacheUse:
        return CacheUse(self.hits + other.hits, self.misses + other.misses, self.miss_ns + other.miss_ns)


NOTHING = Notes([], {}, CacheUse(), None)


def failure_of(error: BaseException, what: str, sample: int | None = None) -> SampleFailure:
    """Return the record of ``error``; ``what``: what was done about it, such as "skipped"."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return SampleFailure(sample, what, text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "...")


def note_failure(failure: SampleFailure) -> None:
    """Record the failure of a sample of the running job; do nothing outside of a job that a loop has asked for."""
    failures = context.current.failures
    if failures is not None:
        failures.append(failure)


def note_source(name: str) -> None:
    """Record that the running job has read a sample or batch of the source ``name``; do nothing outside of a job."""
    sources = context.current.sources
    if sources is not None:
        sources[name] = sources.get(name, 0) + 1


def note_cached(use: CacheUse) -> None:
    """Record that the running job has used a cache; do nothing outside of a job."""
    cached = context.current.cached
    if cached is not None:
        context.current.cached = cached.plus(use)


def with_notes(
    run: Callable[..., list[Any]], index: int, payload: tuple[Any] | None, portions: PortionSender
) -> list[Any]:
    """Return ``run(index, payload)``, the items of a job but for those that were sent as ``portions``.
    If the job has noted anything, its :class:`Notes` are one more item."""
    failures: list[SampleFailure] = []
    sources: dict[str, int] = {}
    current = context.current
    # What the job in which this one runs has noted:
    before = current.failures, current.sources, current.cached, current.functions, current.parts
    start_ns = time.monotonic_ns()
    functions: Uses | None = {} if start_ns >= function_use.DUE[0] else None
    try:
        current.failures, current.sources, current.cached = failures, sources, CacheUse()
        current.functions, current.parts = functions, None if functions is None else {}
        current.portions, current.is_delivered = portions, True
        items = run(index, payload)
        cached = current.cached
        if functions is not None and (functions or current.parts):
            function_use.end(functions, start_ns)
    finally:
        current.failures, current.sources, current.cached, current.functions, current.parts = before
        current.portions, current.is_delivered = None, False
    has_notes = failures or sources or any(cached) or functions
    return [*items, Notes(failures, sources, cached, functions)] if has_notes else items


def without_notes(items: list[Any]) -> tuple[list[Any], Notes]:
    """Return (the items of a job, what it has noted); see :func:`with_notes`."""
    if items and type(items[-1]) is Notes:
        return items[:-1], items[-1]
    return items, NOTHING
