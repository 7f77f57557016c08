"""The interface between the engine, which decides who computes what, and an executor, which runs its jobs in workers.

It consists of the protocol Executor, and of the events that an executor reports. In them, ``worker`` is the id of a
worker, which is never used again, and ``sending`` is the number under which a job was sent to a worker.

There are three executors: :class:`workers.engine.threads.ThreadExecutor`,
:class:`workers.process.executor.ProcessExecutor` and :class:`workers.cluster.executor.RayExecutor`. Without workers,
``serial`` takes the place of the engine.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from workers.job.context import Stages
from workers.report.pool import PoolFigures

from .remote_errors import RemoteFailure
from .schedule import JobRow

NO_LIMIT = 2**62


class Stuck(NamedTuple):
    """The reason why the engine kills a worker: its job took longer than job_timeout, or it starts none of its jobs."""

    job_timeout_s: float | None = None
    unbegun_s: float | None = None
    stack: str = ""


class Death(NamedTuple):
    """How a worker died, and why if that is known, e.g. Death(4711, -9, None, 11_800_000_000, "")."""

    pid: int | None
    exit_code: int | None = None  # negative: the signal that killed it; None: unknown, see is_with_server
    stuck: Stuck | None = None  # why the engine has killed it; None: it has not
    max_rss: int = 0  # in bytes; 0: unknown
    stack: str = ""  # its stack, from faulthandler; of a Ray actor, what Ray reports
    shortened: tuple[str, ...] = ()  # after SIGBUS: the mapped files that are shorter now, with sizes
    how: str = ""  # of a Ray actor: "lost" or "lost with its node"
    has_hung_up: bool = False  # it was ended because a job closed its descriptors

    @property
    def is_with_server(self) -> bool:
        """True if no single job can be blamed for the death.
        The worker died with its server (the process that forks workers) or machine, or while in one of several jobs."""
        return self.exit_code is None and self.stuck is None


class Detail(NamedTuple):
    """The worker that ran a finished job, when the job started, and how long each of its stages took."""

    number: int  # of its worker
    start_ns: int  # monotonic
    stages: Stages


class Started(NamedTuple):
    """The event that a worker was started. It may be sent jobs from now on."""

    worker: int


class WorkerReady(NamedTuple):
    """The event that a worker has loaded its replica, which is its copy of the sequence. It runs jobs from now on."""

    worker: int


class Done(NamedTuple):
    """The event that a worker has finished the job sent under the number ``sending``."""

    worker: int
    sending: int
    value: Any  # for Executor.read
    job_ns: int
    nbytes: int
    detail: Detail | None = None


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
    running: int  # the sending of the job it was in; 0: none
    death: Death


class Cancelled(NamedTuple):
    """The event that a worker has skipped the job sent under the number ``sending``, because it was cancelled."""

    worker: int
    sending: int


class Trimmed(NamedTuple):
    """The event that a worker has freed the memory that it kept for later jobs, in answer to :meth:`Executor.trim`."""

    worker: int
    nbytes: int  # of its batches that are still held


class NotStarted(NamedTuple):
    """The event that a worker could not be started, although Started was reported for it. It was in no job."""

    worker: int


class Fatal(NamedTuple):
    """The event that the engine cannot go on. It ends, and later requests raise ``error``."""

    error: BaseException


Event = Started | NotStarted | WorkerReady | Done | Failed | Cancelled | Trimmed | Died | Fatal


class Executor(Protocol):
    """The interface to the workers that run the engine's jobs: processes, threads or Ray actors.
    The methods are called in the engine's thread, unless stated otherwise."""

    figures: PoolFigures  # its work is recorded here

    @property
    def may_add(self) -> int:
        """The most stream items (inputs of jobs, read by the consumer) that may be on their way to workers."""

    def start(self) -> None:
        """Start the missing workers, so that there are as many as :meth:`resize` or the constructor has set."""

    def resize(self, nb_workers: int) -> None:
        """Set the number of workers, without starting or ending any.
        :meth:`start` starts missing workers; :meth:`dismiss` ends surplus ones, which have the highest numbers."""

    def dismiss(self, worker: int) -> None:
        """End an idle worker that is no longer needed. It causes no more events."""

    def poll(self, timeout_s: float | None) -> list[Event]:
        """Wait for new events, or until :meth:`wake` is called or ``timeout_s`` has passed, and return the events."""

    def wake(self) -> None:
        """Make the current call of :meth:`poll`, or the next one, return immediately. May be called in any thread."""

    def ship(self, item: Any) -> Any:
        """Return ``item``, a job's input, in the form that is sent to a worker. Runs in the consumer's thread."""

    def send(self, worker: int, rows: list[JobRow]) -> None:
        """Send these jobs to a worker, which runs them in this order."""

    def trim(self, worker: int) -> None:
        """Ask a worker to free all memory that it keeps for later jobs. It answers with a Trimmed event."""

    def read(self, value: Any, sending: int) -> Any:
        """Return the batch in ``value``, which came with the Done event of the job sent under the number ``sending``.

        Raises:
            IntegrityError: it is not the batch of this job.
        """

    def skip(self, value: Any) -> None:
        """Discard the batch in ``value``, which came with a Done event, without reading it."""

    def cancel(self, worker: int, sending: int) -> None:
        """Tell a worker to skip the jobs that it has not started, up to the one sent under the number ``sending``."""

    def update(self, parcel: Any) -> None:
        """Make all workers load the sequence that is pickled in ``parcel``, and run later jobs on it."""

    def number(self, worker: int) -> int:
        """Return the number of a worker, from 0, or -1 if it is gone. A replacement has its number, but a new id."""

    def look(self, worker: int) -> tuple[int, int]:
        """Return (number under which a worker's current job was sent, its start in monotonic ns); (0, 0) if none."""

    def kill(self, worker: int, why: Stuck) -> bool:
        """Kill a stuck worker, and report ``why`` with its death. Return False for a thread, which cannot be killed."""

    def ask_stack(self, worker: int) -> None:
        """Ask a stuck worker to write down the stack of its job, for :meth:`take_stack`."""

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        """Return (the stack that a worker has written down, "" if none; its process id, None if it has none here)."""

    def end_idle(self) -> bool:
        """End all workers, which are idle, until :meth:`start` is called again. Return False if they were not ended."""

    def close(self) -> None:
        """End all workers, even those in the middle of a job."""
