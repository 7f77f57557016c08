"""Defines the interface between the engine, which decides which worker runs which job, and executors, which run jobs.

The interface is the protocol Executor, and the events that an executor reports. In an event, ``worker`` is the id of a
worker, which no other worker ever gets, and ``sending`` is the number under which a job was sent to this worker.

There are three executors: :class:`workers.engine.threads.ThreadExecutor`,
:class:`workers.process.executor.ProcessExecutor` and :class:`workers.cluster.executor.RayExecutor`. Without workers,
module ``serial`` replaces both the engine and the executor.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from workers.job.context import Stages
from workers.report.pool import PoolFigures

from .remote_errors import RemoteFailure
from .schedule import JobRow

NO_LIMIT = 2**62


class Stuck(NamedTuple):
    """The reason why the engine kills a stuck worker: its job exceeded job_timeout, or it starts none of its jobs."""

    job_timeout_s: float | None = None
    unbegun_s: float | None = None
    stack: str = ""


class Death(NamedTuple):
    """How a worker died, and why if this is known, e.g. Death(pid=4711, exit_code=-9, max_rss=11_800_000_000)."""

    pid: int | None
    exit_code: int | None = None  # negative: the signal that killed it; None: unknown, see is_with_server
    stuck: Stuck | None = None  # why the engine killed the worker; None: it did not
    max_rss: int = 0  # the most memory that it held, in bytes; 0: unknown
    stack: str = ""  # its stack, from faulthandler; of a Ray actor, what Ray reports
    shortened: tuple[str, ...] = ()  # after SIGBUS: the mapped files that are shorter now, with sizes
    how: str = ""  # of a Ray actor: "lost" or "lost with its node"
    has_hung_up: bool = False  # it was ended because a job had closed its descriptors

    @property
    def is_with_server(self) -> bool:
        """True if no single job can be blamed for the death.
        The worker's server (which forks workers) or machine died too, or any of several jobs may be the cause."""
        return self.exit_code is None and self.stuck is None


class Detail(NamedTuple):
    """The details of a finished job: who ran it, when it started, and how long each of its stages took."""

    number: int  # the number of the worker that ran the job
    start_ns: int  # monotonic time
    stages: Stages


class Started(NamedTuple):
    """The event that a worker was started, so that jobs may be sent to it."""

    worker: int


class WorkerReady(NamedTuple):
    """The event that a worker has loaded its replica (its copy of the sequence), so that it now runs jobs."""

    worker: int


class Done(NamedTuple):
    """The event that a worker has finished the job sent under the number ``sending``."""

    worker: int
    sending: int
    value: Any  # the argument of Executor.read
    job_ns: int
    nbytes: int
    detail: Detail | None = None


class Yielded(NamedTuple):
    """The event that the job sent under the number ``sending``, which still runs, has made some of its items."""

    worker: int
    sending: int
    value: Any  # the argument of Executor.read
    nbytes: int


class Failed(NamedTuple):
    """The event that the job sent under the number ``sending`` has raised an exception."""

    worker: int
    sending: int
    error: BaseException | RemoteFailure
    job_ns: int
    detail: Detail | None = None


class Died(NamedTuple):
    """The event that a worker has died. Its current job was sent under the number ``running``; 0 if it had none."""

    worker: int
    running: int  # the sending of the job that it was in; 0: none
    death: Death


class Cancelled(NamedTuple):
    """The event that a worker has skipped the job sent under the number ``sending``, because the job was cancelled."""

    worker: int
    sending: int


class Trimmed(NamedTuple):
    """The event that a worker has freed the memory that it kept for later jobs, in answer to :meth:`Executor.trim`."""

    worker: int
    nbytes: int  # size of its batches that the loop still holds


class NotStarted(NamedTuple):
    """The event that a worker could not be started, although Started was reported for it. It has run no job."""

    worker: int


class Fatal(NamedTuple):
    """The event that an ``error`` ends the engine. Later requests to the engine raise this error."""

    error: BaseException


Event = Started | NotStarted | WorkerReady | Done | Yielded | Failed | Cancelled | Trimmed | Died | Fatal


class Executor(Protocol):
    """The interface to the workers that run the engine's jobs: processes, threads or Ray actors.
    The methods are called in the engine's thread, unless stated otherwise."""

    figures: PoolFigures  # where the executor records its work

    @property
    def may_add(self) -> int:
        """The most jobs whose input the consumer may have shipped (see :meth:`ship`) before it takes their results."""

    def start(self) -> None:
        """Start missing workers, until there are as many as the constructor or the last :meth:`resize` has set."""

    def resize(self, nb_workers: int) -> None:
        """Set the number of workers, without starting or ending any.
        :meth:`start` starts missing workers; :meth:`dismiss` ends surplus ones, which have the highest numbers."""

    def dismiss(self, worker: int) -> None:
        """End an idle worker that is no longer needed. Report no more events of this worker."""

    def poll(self, timeout_s: float | None) -> list[Event]:
        """Wait for new events, or until :meth:`wake` is called or ``timeout_s`` has passed, and return the events."""

    def wake(self) -> None:
        """Make the current call of :meth:`poll`, or the next one, return immediately. May be called in any thread."""

    def ship(self, item: Any) -> Any:
        """Convert ``item``, the input of a job, to the form that is sent to a worker. Runs in the consumer's thread."""

    def send(self, worker: int, rows: list[JobRow]) -> None:
        """Send the jobs ``rows`` to a worker, which runs them in this order."""

    def trim(self, worker: int) -> None:
        """Ask a worker to free all memory that it keeps for later jobs. Its answer is reported as a Trimmed event."""

    def read(self, value: Any, sending: int) -> Any:
        """Return the batch in ``value``, which came with the Done event of the job sent under the number ``sending``.

        Raises:
            IntegrityError: ``value`` is not the batch of this job.
        """

    def skip(self, value: Any) -> None:
        """Discard the batch in ``value``, which came with a Done event, without reading it."""

    def cancel(self, worker: int, sending: int, is_unwanted: bool = True) -> None:
        """Tell a worker to skip the jobs that it has not started, up to the one sent under the number ``sending``.
        If ``is_unwanted``, the running one may end too, when its function yields an item."""

    def update(self, parcel: Any) -> None:
        """Make all workers load the sequence that is pickled in ``parcel``, and run later jobs on it."""

    def number(self, worker: int) -> int:
        """Return the number of a worker, from 0; -1 if it is gone. A replacement gets the same number, but a new id."""

    def look(self, worker: int) -> tuple[int, int]:
        """Return (number under which a worker's current job was sent, its start in monotonic ns); (0, 0) for no job."""

    def kill(self, worker: int, why: Stuck) -> bool:
        """Kill a stuck worker, and report ``why`` with its death. Return False for a thread, which cannot be killed."""

    def ask_stack(self, worker: int) -> None:
        """Ask a stuck worker to write down the stack of its job, for :meth:`take_stack`."""

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        """Return (the stack that a worker has written, "" for none; its process id, None for a thread or Ray actor)."""

    def end_idle(self) -> bool:
        """End all workers, which must be idle; :meth:`start` starts new ones. Return False if they were not ended."""

    def close(self) -> None:
        """End all workers, even those in the middle of a job."""
