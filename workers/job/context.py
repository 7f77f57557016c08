"""The job that runs now: which it is, its random stream, and when each of its stages began."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .stream import Stream


#: The "index" of what runs between two epochs (``on_epoch_end``), of what runs before a whole epoch, and of
#: ``on_epoch_begin``.
EPOCH_END = 2**64 - 1
EPOCH_START = 2**64 - 2
EPOCH_BEGIN = 2**64 - 3


class Job(NamedTuple):
    """What runs now: batch ``index`` of ``epoch``, for the ``attempt``-th time (from 0), on ``worker``.

    ``worker`` is the number of the worker, or None in the consumer's own thread.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int = 0
    worker: int | None = None


class _Context:
    """The job that a thread (in a worker: the process) is in."""

    job: Job | None = None
    stream: Stream | None = None
    marks: list[tuple[str, int]] | None = None  # see :func:`mark`; None: nobody wants to know


class _ThreadContext(_Context, threading.local):
    pass


_consumer = _ThreadContext()
current: _Context = _consumer


_streams: dict[int, Stream] = {}  # {thread that is in a job: its stream}; in a worker process none


def enter(job: Job | None, stream: Stream | None) -> None:
    """From here on this thread is in ``job``; None: in none."""
    current.job, current.stream = job, stream
    if current is _consumer:
        if stream is None:
            _streams.pop(threading.get_ident(), None)
        else:
            _streams[threading.get_ident()] = stream


def streams_of_other_threads() -> list[Stream]:
    """Those that this thread, which is in no job, may belong to: of the jobs that run in this process now.

    The main thread belongs to none: no job has started it.
    """
    if current is not _consumer or threading.current_thread() is threading.main_thread():
        return []
    return list(_streams.values())


def is_in_worker_process() -> bool:
    """Whether this process computes jobs and does nothing else."""
    return current is not _consumer


def enter_worker_process() -> None:
    """From here on all threads of this process are in the same job, for a job may use threads of its own."""
    global current
    current = _Context()


def current_job() -> Job | None:
    """The job that runs now, or None outside of one."""
    return current.job


def current_stream() -> Stream | None:
    """The random stream of the job that runs now, or None outside of one."""
    return current.stream


Marks = list[tuple[str, int]]  # (stage, when it began, monotonic ns)
Stages = tuple[tuple[str, int], ...]  # (stage, ns), one after the other

_MAX_STAGES = 12  # of a job that are told one by one


def mark(stage: str) -> None:
    """A stage of the current job begins: ``source``, ``get_examples``, ``augmenter``, ``function_to_run``,
    ``transport``."""
    marks = current.marks
    if marks is not None:
        marks.append((stage, time.monotonic_ns()))


def begin_marks() -> Marks:
    """Where the stages of the next job of this thread (in a worker: of this process) will be marked."""
    marks: Marks = []
    current.marks = marks
    return marks


def end_marks() -> None:
    """They will not be marked any more."""
    current.marks = None


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
