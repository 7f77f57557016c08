"""What travels between the consumer, its workers and the server that forks them.

A frame on a socket is one message, with descriptors beside it. Rows of jobs and of results are plain tuples on the
wire, for there may be tens of thousands a second; they get their names where they are received.

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
    """A new replica. Descriptors: its memory, and the resource tracker's pipe if there is one."""

    replica: int  # its number, which the jobs that belong to it name
    parcel: Any  # a workers.process.replica.ParcelMessage
    settings: Any  # a workers.process.program_settings.ProgramSettings
    key: bytes | None  # of multiprocessing, if the program has loaded that
    has_tracker: bool
    changed: Any = None  # a workers.process.changed_attributes.Changed, since the last replica; None: all is new


class Jobs(NamedTuple):
    """Work. Descriptors: one for each of ``slots``."""

    replica: int  # the jobs are to be done on this one, which was sent before
    rows: list[tuple[Any, ...]]  # JobRows; a payload is None, a pickle, or the plain tuple of an PlacedItem
    free: list[int]  # the worker's own slots that the consumer has let go, e.g. [0, 2]
    slots: list[tuple[int, int]]  # of the consumer's item slots that the worker does not know yet, as (number, nbytes)
    gone: list[int]  # and those that are no more


class Trim(NamedTuple):
    """Memory is short: give up all that is kept for later jobs. The answer are Results without rows."""

    free: list[int]  # as in Jobs


class Stop(NamedTuple):
    """Finish and exit."""


class Ready(NamedTuple):
    """The replica is loaded, or could not be."""

    failure: Any  # None, or a RemoteFailure


class Results(NamedTuple):
    """What came of jobs. Descriptors: one for each new slot."""

    slots: list[tuple[int, int]]  # made since the last message, as (number, nbytes), e.g. [(3, 1048576)]
    gone: list[int]  # slots that were given up
    forgets: bool  # no row names a layout of an earlier message
    layouts: list[bytes]  # new ones, each a pickled Layout
    rows: list[tuple[int, int, Any]]  # (sending, job_ns, RemoteFailure, plain tuple of a Placed, or None: cancelled)
    details: list[tuple[int, int, Any]]  # of some of them, as (sending, when it began in monotonic ns, its Stages)
    #: What jobs have had of the cores, as a plain job.cores.Use, how long they took, how often the interpreter's lock
    #: was looked at, and was free: all since it was told last.
    cores: tuple[int, ...] | None


class Broken(NamedTuple):
    """What the worker was told contradicts what it knows. It ends."""

    failure: Any  # the RemoteFailure of an IntegrityError


class Logged(NamedTuple):
    """Something was logged."""

    record: Any  # the attributes of a LogRecord, plain; or None
    dropped: int  # how many were not sent since the last one


class Attach(NamedTuple):
    """Another pool. Descriptors: the server's end of a channel of its own."""

    modules: list[str]  # to be imported before; empty unless it is the only pool


class Fork(NamedTuple):
    """Start a worker. Descriptors: its socket, its status page, and what it writes ``streams`` to."""

    worker: int
    number: int  # which of the nb_workers it is, e.g. 0; its successor has the same
    streams: list[int]  # those of 1 and 2 (standard output, standard error) that the consumer has


class Signal(NamedTuple):
    """Send a worker a signal."""

    worker: int
    signal: int


class Detach(NamedTuple):
    """The pool ends: kill what is left of its workers, and say when that is done."""


class Preloaded(NamedTuple):
    """The server has imported what it was to."""

    seconds: float
    skipped: list[tuple[str, str]]  # (module, why the workers import it for themselves)


class Detached(NamedTuple):
    """No worker of the pool is left, and nothing more will come."""


class Forked(NamedTuple):
    """A worker runs."""

    worker: int
    pid: int


class NotForked(NamedTuple):
    """A worker could not be started."""

    worker: int
    reason: str  # as the system says it, e.g. "Resource temporarily unavailable"


class Exited(NamedTuple):
    """A worker has ended."""

    worker: int
    exit_code: int  # negative: the signal that killed it
    max_rss: int  # in bytes
