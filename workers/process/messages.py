"""The messages between the consumer, its workers and the server that forks them.

A frame on a socket is one message, accompanied by descriptors. Rows of jobs and of results are plain tuples on the
wire, as there may be tens of thousands a second; the receiver turns them into named tuples.

::

    consumer -> worker     Load, Jobs, Trim, Stop
    worker -> consumer     Ready, Results, Broken, Logged
    consumer -> server     Attach; end of file: kill all workers, exit
    pool -> server         Fork, Signal, Detach; end of file: kill the pool's workers
    server -> pool         Preloaded, Forked, NotForked, Exited, Detached
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Load(NamedTuple):
    """A new replica. Descriptors: its memory, then the pipe of the resource tracker if there is one."""

    replica: int  # its number, which its jobs repeat
    parcel: Any  # a workers.process.replica.ParcelMessage
    settings: Any  # a workers.process.program_settings.ProgramSettings
    key: bytes | None  # of multiprocessing, if the program has loaded it
    has_tracker: bool
    changed: Any = None  # a workers.process.changed_attributes.Changed relative to the last replica; None: all is new


class Jobs(NamedTuple):
    """Jobs to do. Descriptors: one for each of ``slots``."""

    replica: int  # the one that the jobs work on; it was sent before
    rows: list[tuple[Any, ...]]  # JobRows; a payload is None, a pickle, or the plain tuple of a PlacedItem
    free: list[int]  # the worker's own slots that the consumer has released, e.g. [0, 2]
    slots: list[tuple[int, int]]  # item slots of the consumer that are new to the worker, as (number, nbytes)
    gone: list[int]  # item slots that no longer exist


class Trim(NamedTuple):
    """Memory is short: free all memory kept for later jobs. The answer is Results without rows."""

    free: list[int]  # as in Jobs


class Stop(NamedTuple):
    """Finish and exit."""


class Ready(NamedTuple):
    """The replica is loaded, or loading it failed."""

    failure: Any  # None, or a RemoteFailure


class Results(NamedTuple):
    """The results of jobs. Descriptors: one for each new slot."""

    slots: list[tuple[int, int]]  # new since the last message, as (number, nbytes), e.g. [(3, 1048576)]
    gone: list[int]  # slots that were freed
    forgets: bool  # all layouts of earlier messages are forgotten: no row names one
    layouts: list[bytes]  # new ones, each a pickled Layout
    rows: list[tuple[int, int, Any]]  # (sending, job_ns, RemoteFailure, plain tuple of a Placed, or None: cancelled)
    details: list[tuple[int, int, Any]]  # of some rows, as (sending, monotonic start in ns, its Stages)
    #: Since the last report: a plain job.cores.CoreUse, the run time of jobs in ns, how often the interpreter's lock
    #: was probed, and how often it was free, e.g. (9_100_000, 0, 9_000_000, 3, 2). None: no report now.
    cores: tuple[int, ...] | None


class Broken(NamedTuple):
    """A message contradicts what the worker knows, so it exits."""

    failure: Any  # the RemoteFailure of an IntegrityError


class Logged(NamedTuple):
    """A log record, and the number of lost ones."""

    record: Any  # the attributes of a LogRecord, plain; or None
    dropped: int  # records lost since the last message


class Attach(NamedTuple):
    """A new pool. Descriptors: the server's end of its channel."""

    modules: list[str]  # to import first; empty unless this is the server's only pool


class Fork(NamedTuple):
    """Start a worker. Descriptors: its socket, its status page, and one for each of ``streams``."""

    worker: int
    number: int  # 0 to nb_workers - 1; a replacement has the same
    streams: list[int]  # those of 1 and 2 (standard output, standard error) that are open in the consumer


class Signal(NamedTuple):
    """Send a worker a signal."""

    worker: int
    signal: int


class Detach(NamedTuple):
    """The pool ends: kill its remaining workers, then answer Detached."""


class Preloaded(NamedTuple):
    """The server has done its imports."""

    seconds: float
    skipped: list[tuple[str, str]]  # (module, why each worker imports it for itself)


class Detached(NamedTuple):
    """No worker of the pool is left. This is the last message to it."""


class Forked(NamedTuple):
    """A worker has been started."""

    worker: int
    pid: int


class NotForked(NamedTuple):
    """A worker could not be started."""

    worker: int
    reason: str  # in the system's words, e.g. "Resource temporarily unavailable"


class Exited(NamedTuple):
    """A worker has ended."""

    worker: int
    exit_code: int  # negative: the signal that killed it
    max_rss: int  # in bytes
