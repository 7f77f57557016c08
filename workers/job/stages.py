"""Which part of a job takes how long: the parts say when they begin."""

from __future__ import annotations

import time
from collections.abc import Iterable

from . import context

Marks = list[tuple[str, int]]  # (stage, when it began, monotonic ns)
Stages = tuple[tuple[str, int], ...]  # (stage, ns), one after the other

_MAX_STAGES = 12  # of a job that are told one by one


def mark(stage: str) -> None:
    """A stage of the current job begins: ``source``, ``get_examples``, ``augmenter``, ``function_to_run``,
    ``transport``."""
    marks = context.here.marks
    if marks is not None:
        marks.append((stage, time.monotonic_ns()))


def begin_marks() -> Marks:
    """Where the stages of the next job of this thread (in a worker: of this process) will be marked."""
    marks: Marks = []
    context.here.marks = marks
    return marks


def end_marks() -> None:
    """They will not be marked any more."""
    context.here.marks = None


def stages(marks: Marks, end_ns: int) -> Stages:
    """What ``marks`` say of a job that has ended. A source that names its stages is not one itself."""
    if not marks:
        return ()
    ends = [begin for _, begin in marks[1:]] + [end_ns]
    found: list[tuple[str, int]] = []
    for (stage, begin), end in zip(marks, ends, strict=True):
        ns = end - begin
        if found and (found[-1][0] == stage or (found[-1][0], stage) == ("source", "get_examples")):
            ns += found.pop()[1]
        found.append((stage, ns))
    return tuple(found if len(found) <= _MAX_STAGES else total(found).items())


def total(some: Iterable[tuple[str, int]]) -> dict[str, int]:
    """{stage: ns in all}."""
    sums: dict[str, int] = {}
    for stage, ns in some:
        sums[stage] = sums.get(stage, 0) + ns
    return sums
