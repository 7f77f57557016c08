"""Defines the messages between the consumer (the process of the loop), its workers and the server that forks them.

Messages travel over sockets, some of them with file descriptors. Jobs and results are plain tuples in a message, as
there may be tens of thousands a second. A *sending* is the number under which a job is sent to a worker. A *slot* is a
piece of shared memory: a worker's slots hold batches; the consumer's *item slots* hold items of a stream, the inputs of
jobs. A *pool* is the workers of one front-end, such as a SequenceMap.

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
    """The consumer's message that gives a worker a new replica (its copy of the sequence).

    Sent with file descriptors: the replica's memory, then the pipe of multiprocessing's resource tracker if one runs.
    """

    replica: int  # the number of the replica, to which Jobs messages refer
    parcel: Any  # a workers.process.replica.ParcelMessage
    settings: Any  # a workers.process.program_settings.ProgramSettings
    key: bytes | None  # multiprocessing's authentication key; None if the program has not loaded multiprocessing
    has_tracker: bool  # True if the pipe of the resource tracker is among the descriptors
    changed: Any = None  # a changed_attributes.Changed: what differs from the last replica; None if anything may differ


class Jobs(NamedTuple):
    """The consumer's message with jobs for a worker, each the computation of one batch.

    Sent with file descriptors: one for each of ``slots``.
    """

    replica: int  # the number of the replica to run the jobs on, from an earlier Load
    rows: list[tuple[Any, ...]]  # JobRows as plain tuples; a payload is None, a pickle, or a PlacedItem as a tuple
    free: list[int]  # the numbers of the worker's own slots that the consumer has released, e.g. [0, 2]
    slots: list[tuple[int, int]]  # item slots of the consumer that are new to the worker, as (number, nbytes)
    gone: list[int]  # the numbers of item slots that no longer exist


class Trim(NamedTuple):
    """The consumer's message that asks a worker to free all memory that it keeps for later jobs, as memory is short.

    The worker answers with a Results message in which ``answers_trim`` is True.
    """

    free: list[int]  # as in Jobs


class Stop(NamedTuple):
    """The consumer's message that asks a worker to finish and exit."""


class Ready(NamedTuple):
    """The worker's message that it has loaded its replica (its copy of the sequence), or has failed to load it."""

    failure: Any  # a RemoteFailure; None if the replica was loaded


YIELDED = -1  # stands for the duration of a job that has sent only some of its items


class Results(NamedTuple):
    """The worker's message with the results of jobs, except the arrays of batches: these are in slots (shared memory).

    Sent with file descriptors: one for each new slot.
    """

    slots: list[tuple[int, int]]  # slots new since the last message, as (number, nbytes), e.g. [(3, 1048576)]
    gone: list[int]  # the numbers of slots that no longer exist
    forgets: bool  # True if the consumer must forget the layouts of all earlier messages
    layouts: list[bytes]  # layouts (structures of batches) that rows refer to for the first time, each pickled
    #: (sending, job_ns or YIELDED, a Placed as a tuple | a RemoteFailure | None if the job was cancelled)
    rows: list[tuple[int, int, Any]]
    details: list[tuple[int, int, Any]]  # for some of the rows: (sending, monotonic start in ns, Stages)
    #: Since the last report: the two times of a job.cores.CoreUse, the run time of jobs in ns, how often the
    #: interpreter lock was probed and how often it was free, e.g. (9_100_000, 0, 9_000_000, 3, 2). None: no new report.
    cores: tuple[int, ...] | None
    answers_trim: bool


class Broken(NamedTuple):
    """The worker's message that it exits because it has received an invalid message, e.g. about an unknown slot."""

    failure: Any  # the RemoteFailure of an IntegrityError


class Logged(NamedTuple):
    """The worker's message with a log record for the program's handlers, and with the number of lost records."""

    record: Any  # the attributes of a LogRecord, {name: value}; None if there are only lost records to report
    dropped: int  # the number of records lost since the last message


class Attach(NamedTuple):
    """The consumer's message that announces a new pool of workers to the server, which will fork them.

    Sent with one file descriptor: the server's end of the socket pair over which the pool will send its orders.
    """

    modules: list[str]  # the modules to import first; empty if the server has other pools


class Fork(NamedTuple):
    """The pool's order to the server to fork a worker process.

    Sent with file descriptors: the worker's socket, its status page (shared memory), and one for each of ``streams``.
    """

    worker: int  # the name of the process; the pool never uses it again
    number: int  # 0 to nb_workers - 1; if the process dies, its replacement gets the same number
    streams: list[int]  # which of 1 and 2 (standard output and standard error) are open in the consumer, e.g. [1, 2]


class Signal(NamedTuple):
    """The pool's order to the server to send a signal, such as SIGKILL, to one of the pool's workers."""

    worker: int
    signal: int


class Detach(NamedTuple):
    """The pool's last order to the server: to kill the pool's remaining workers, and then to answer Detached."""


class Preloaded(NamedTuple):
    """The server's message that it has imported the modules that the workers need, and how long that took."""

    seconds: float
    skipped: list[tuple[str, str]]  # (module not imported, why each worker must import it for itself)


class Detached(NamedTuple):
    """The server's last message to a pool: none of the pool's workers is left."""


class Forked(NamedTuple):
    """The server's message that it has forked a worker process."""

    worker: int
    pid: int


class NotForked(NamedTuple):
    """The server's message that it could not fork a worker process."""

    worker: int
    reason: str  # the system's error text, e.g. "Resource temporarily unavailable"


class Exited(NamedTuple):
    """The server's message that a worker process has ended, with its exit code and its peak memory."""

    worker: int
    exit_code: int  # e.g. -9 if signal 9 has killed the process
    max_rss: int  # its peak resident memory, in bytes
