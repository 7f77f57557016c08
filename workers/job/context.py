"""The job that runs now: what it is, and whose random stream it draws from."""

from __future__ import annotations

import threading
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
    marks: list[tuple[str, int]] | None = None  # see ``stages``; None: nobody wants to know


class _ThreadContext(_Context, threading.local):
    pass


_consumer = _ThreadContext()
here: _Context = _consumer


_streams: dict[int, Stream] = {}  # {thread that is in a job: its stream}; in a worker process none


def enter(job: Job | None, stream: Stream | None) -> None:
    """From here on this thread is in ``job``; None: in none."""
    here.job, here.stream = job, stream
    if here is _consumer:
        if stream is None:
            _streams.pop(threading.get_ident(), None)
        else:
            _streams[threading.get_ident()] = stream


def streams_of_other_threads() -> list[Stream]:
    """Those that this thread, which is in no job, may belong to: of the jobs that run in this process now.

    The main thread belongs to none: no job has started it.
    """
    if here is not _consumer or threading.current_thread() is threading.main_thread():
        return []
    return list(_streams.values())


def is_in_worker_process() -> bool:
    """Whether this process computes jobs and does nothing else."""
    return here is not _consumer


def enter_worker_process() -> None:
    """From here on all threads of this process are in the same job, for a job may use threads of its own."""
    global here
    here = _Context()


def current_job() -> Job | None:
    """The job that runs now, or None outside of one."""
    return here.job


def current_stream() -> Stream | None:
    """The random stream of the job that runs now, or None outside of one."""
    return here.stream
