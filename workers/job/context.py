"""Tracks the job (computation of a batch) that each thread runs: its identity, its random stream and its stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .stream import Stream


#: Values of ``Job.index`` that stand for no batch: for ``on_epoch_end``, for other code that runs once before the
#: batches of an epoch, and for ``on_epoch_begin``.
EPOCH_END = 2**64 - 1
EPOCH_START = 2**64 - 2
EPOCH_BEGIN = 2**64 - 3


class Job(NamedTuple):
    """The identity of a job, which computes batch ``index`` of ``epoch``. ``attempt`` counts its retries, from 0.

    ``worker`` is the number of the worker that runs it, or None if the thread of the loop itself runs it.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int = 0
    worker: int | None = None


class _Context:
    """The current job of a thread (or of a whole worker process), its random stream, and the record of its stages."""

    job: Job | None = None
    round: int | None = None  # see :func:`in_round`
    part = 0  # see :func:`in_part`
    failures: list[Any] | None = None  # see ``sample_failures``
    stream: Stream | None = None
    marks: list[tuple[str, int]] | None = None  # see :func:`mark`; None if stages are not recorded


class _ThreadContext(_Context, threading.local):
    pass


_consumer = _ThreadContext()
current: _Context = _consumer


_streams: dict[int, Stream] = {}  # {id of a thread that runs a job: its stream}; empty in a worker process


def enter(job: Job | None, stream: Stream | None) -> None:
    """Make ``job`` and its random ``stream`` the current ones of this thread; None for both if it has no job."""
    current.job, current.stream = job, stream
    if current is _consumer:
        if stream is None:
            _streams.pop(threading.get_ident(), None)
        else:
            _streams[threading.get_ident()] = stream


def streams_of_other_threads() -> list[Stream]:
    """Return the random streams of the jobs that other threads of this process run: one may have started this thread.

    The list is empty in the main thread, as no job has started it, and in a worker, whose threads share one job.
    """
    if current is not _consumer or threading.current_thread() is threading.main_thread():
        return []
    return list(_streams.values())


def is_in_worker_process() -> bool:
    """Return True if this is a worker process, which does nothing but run jobs."""
    return current is not _consumer


def enter_worker_process() -> None:
    """Mark this process as a worker. All its threads then share one current job, because a job may start threads."""
    global current
    current = _Context()


def current_job() -> Job | None:
    """Return the :class:`Job` (epoch, index, attempt, worker) that runs the calling code; None outside of a job."""
    return current.job


def current_epoch() -> int | None:
    """Return the epoch that sequences see in the current job (see :func:`in_round`); None outside of a job."""
    job = current.job
    return None if job is None else job.epoch if current.round is None else current.round


def in_round(epoch: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``. During the call, the sequences of the current job see ``epoch`` as their epoch.

    A repeated sequence, or a part of a mix, counts its own epochs: several may fall into one epoch of the loop.
    """
    before = current.round
    try:
        current.round = epoch
        return function(*arguments)
    finally:
        current.round = before


def in_part(number: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``. During the call, orders are drawn as those of source ``number`` of several.

    So sources of equal length have different orders, although they share a seed. Parts may have parts.
    """
    before = current.part
    try:
        current.part = before * _PARTS + number
        return function(*arguments)
    finally:
        current.part = before


def current_part() -> int:
    """Return what tells the running :func:`in_part` from others; 0 for the first source, and outside of a call."""
    return current.part


_PARTS = 2**31 - 1  # more than any sequence has sources


_to_forget: list[Callable[[], None]] = []


def on_new_epoch(forget: Callable[[], None]) -> None:
    """Register ``forget``, which drops values that were kept for one epoch, to be called by :func:`forget_epoch`."""
    _to_forget.append(forget)


def forget_epoch() -> None:
    """Drop all values that were kept for one epoch, because a new epoch may begin, or the sequence may have changed."""
    for forget in _to_forget:
        forget()


def current_stream() -> Stream | None:
    """Return the stream, the source of random numbers, of the current job; None outside of a job."""
    return current.stream


Marks = list[tuple[str, int]]  # [(stage, its start in monotonic ns)]
Stages = tuple[tuple[str, int], ...]  # ((stage, ns), ...) in order

_MAX_STAGES = 12  # of a job; if it has more, those of the same name are added up


def mark(stage: str) -> None:
    """Record that ``stage`` of the current job begins now, if :func:`begin_marks` was called.

    The stages are ``source``, ``get_examples``, ``augmenter``, ``function_to_run`` and ``transport``.
    """
    marks = current.marks
    if marks is not None:
        marks.append((stage, time.monotonic_ns()))


def begin_marks() -> Marks:
    """Start recording the stages of the next job in this thread, or in this worker process.
    Return the list that :func:`mark` fills: [(stage, its start in ns)]."""
    marks: Marks = []
    current.marks = marks
    return marks


def end_marks() -> None:
    """Stop recording the stages of the jobs in this thread, or in this worker process."""
    current.marks = None


def stages(marks: Marks, end_ns: int) -> Stages:
    """Return how long each stage of a job took, as ((stage, ns), ...), from its ``marks`` and its end, ``end_ns``.

    Consecutive stages of the same name are added up, and if there are too many, all of the same name. The time of
    ``source`` right before ``get_examples`` counts as ``get_examples``.
    """
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
    """Return {stage: total ns}, the sums over all (stage, ns) pairs in ``some``."""
    sums: dict[str, int] = {}
    for stage, ns in some:
        sums[stage] = sums.get(stage, 0) + ns
    return sums
