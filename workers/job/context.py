"""Tracks the job (computation of a batch) that each thread runs: its identity, random numbers and timed stages."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from .notes import Notes
    from .portions import PortionSender
    from .stream import Stream


#: Values of ``Job.index`` for code that runs as a job but computes no batch: ``on_epoch_end``, other code that runs
#: once before the batches of an epoch, and ``on_epoch_begin``.
EPOCH_END = 2**64 - 1
EPOCH_START = 2**64 - 2
EPOCH_BEGIN = 2**64 - 3


class Job(NamedTuple):
    """The identity of a job, which is the computation of batch ``index`` of ``epoch``.

    ``attempt`` is 0 in the first run of the job, and goes up by 1 in each retry. ``worker`` is the number of the worker
    that runs the job; None if it runs without workers.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int = 0
    worker: int | None = None


class _Context:
    """The current job of a thread (or of a whole worker process), its random stream, and the record of its stages."""

    job: Job | None = None
    round: int | None = None  # see :func:`in_round`
    part: tuple[int, ...] = ()  # see :func:`in_part`
    notes: Notes | None = None  # of the job; None outside of a job that a loop has asked for
    portions: PortionSender | None = None  # sends items of the job before its end; None if nothing does
    is_delivered = False  # see :func:`take_is_delivered`
    loaded: tuple[bool, ...] = ()  # see ``seeding.loaded_frameworks``; as it was when the job began
    stream: Stream | None = None
    seeds_globals = False  # True if the job has seeded the global generators
    asked: list[str] | None = None  # see :func:`ask`
    is_alone = False  # True while this thread has, or has waited for, the lock of the global generators
    marks: list[tuple[str, int]] | None = None  # see :func:`mark`; None if stages are not recorded


class _ThreadContext(_Context, threading.local):
    pass


_consumer = _ThreadContext()
current: _Context = _consumer


_streams: dict[int, Stream] = {}  # {id of a thread that runs a job: its stream}; empty in a worker process


def enter(job: Job | None, stream: Stream | None) -> None:
    """Set the current job of this thread, and the job's random ``stream``. Pass None for both when the job ends."""
    current.job, current.stream = job, stream
    if current is _consumer:
        if stream is None:
            _streams.pop(threading.get_ident(), None)
        else:
            _streams[threading.get_ident()] = stream


def streams_of_other_threads() -> list[Stream]:
    """Return the random streams of the jobs in other threads, as one of these jobs may have started this thread.

    The list is empty in the main thread, which no job has started, and in a worker process, where threads share a job.
    """
    if current is not _consumer or threading.current_thread() is threading.main_thread():
        return []
    return list(_streams.values())


def is_in_worker_process() -> bool:
    """Return True if this process is a worker, which does nothing but run jobs."""
    return current is not _consumer


def enter_worker_process() -> None:
    """Mark this process as a worker, in which all threads share one current job, as a job may start threads."""
    global current
    current = _Context()


def current_job() -> Job | None:
    """Return the :class:`Job` (epoch, index, attempt, worker) in which the caller runs; None outside of a job."""
    return current.job


def current_epoch() -> int | None:
    """Return the epoch of the current job, or the one that :func:`in_round` has set; None outside of a job."""
    job = current.job
    return None if job is None else job.epoch if current.round is None else current.round


def ask(what: str) -> None:
    """Record that the running job has used ``what``, which depends on the job, for a search by ``draws.DrawSearch``."""
    asked = current.asked
    if asked is not None:
        asked.append(what)


def take_is_delivered() -> bool:
    """Return True, once, if what the source of the running job makes is delivered as it is, so that it may be made
    right where the loop will read it."""
    is_delivered, current.is_delivered = current.is_delivered, False
    return is_delivered


def in_round(epoch: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``function(*arguments)``. During the call, the sequences of the current job see ``epoch`` as their epoch.

    A repeated sequence, or a source in a mix, counts its own epochs: one epoch of the loop may contain several of them.
    """
    before = current.round
    try:
        current.round = epoch
        return function(*arguments)
    finally:
        current.round = before


def in_part(number: int, function: Callable[..., Any], *arguments: Any, epoch: int | None = None) -> Any:
    """Return ``function(*arguments)``. During the call, random orders also depend on ``number``.

    ``number`` is that of a source in a mix or concatenation, whose sources are thus shuffled differently even if they
    have the same length and seed. Calls may be nested, as a source may have sources itself. If ``epoch`` is given,
    sequences see it as theirs, as with :func:`in_round`.
    """
    context = current
    part, round_ = context.part, context.round
    try:
        context.part = (*part, number)
        if epoch is not None:
            context.round = epoch
        return function(*arguments)
    finally:
        context.part, context.round = part, round_


def current_part() -> tuple[int, ...]:
    """Return the numbers that the running calls of :func:`in_part` were given, the outermost first; () outside."""
    return current.part


_to_forget: list[Callable[[], None]] = []


def on_new_epoch(forget: Callable[[], None]) -> None:
    """Register ``forget``, a function that clears a cache of values of one epoch. :func:`forget_epoch` calls it."""
    _to_forget.append(forget)


def forget_epoch() -> None:
    """Clear all caches of values of one epoch. Call this when an epoch may begin or the sequence may have changed."""
    for forget in _to_forget:
        forget()


def current_stream() -> Stream | None:
    """Return the current job's stream, its source of random numbers; None outside of a job."""
    return current.stream


Marks = list[tuple[str, int]]  # [(stage, its start in monotonic ns)]
Stages = tuple[tuple[str, int], ...]  # ((stage, ns), ...) in order

_MAX_STAGES = 12  # of a job; if it has more, those of the same name are added up


def mark(stage: str) -> None:
    """Record that a stage of the current job begins now, if :func:`begin_marks` has started a recording.

    ``stage`` is "source", "get_examples", "augmenter", "function_to_run" or "transport".
    """
    marks = current.marks
    if marks is not None:
        marks.append((stage, time.monotonic_ns()))


def begin_marks() -> Marks:
    """Start recording when the stages of the next job begin. Return the list that :func:`mark` fills during the job.
    The recording is that of this thread; in a worker process, it is that of all threads."""
    marks: Marks = []
    current.marks = marks
    return marks


def end_marks() -> None:
    """Stop recording the stages of jobs in this thread; in a worker process, in all its threads."""
    current.marks = None


def stages(marks: Marks, end_ns: int) -> Stages:
    """Return how long each stage of a job took, as ((stage, ns), ...), from its ``marks`` and its end at ``end_ns``.

    Consecutive stages of the same name are merged. If more than 12 stages remain, all of the same name are merged. A
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
