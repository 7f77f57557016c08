"""The interface between the engine, which decides who computes what, and an executor, which runs its jobs in workers.

It is a protocol, Executor, and the events that an executor reports. In them, ``worker`` is the id of a worker, which is
never used again, and ``sending`` is the number under which a job was sent to a worker.

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
    """Why the engine kills a worker: its job took longer than job_timeout, or it does not start its jobs."""

    job_timeout_s: float | None = None
    unbegun_s: float | None = None
    stack: str = ""


class Death(NamedTuple):
    """How a worker died, and why if that is known: Death(4711, -9, None, 11_800_000_000, "")."""

    pid: int | None
    exit_code: int | None = None  # negative: the signal that killed it; None: it died with its server or node
    stuck: Stuck | None = None  # why the engine has killed it; None: it has not
    max_rss: int = 0  # in bytes; 0: unknown
    stack: str = ""  # its stack, from faulthandler; of a Ray actor, what Ray reports
    shortened: tuple[str, ...] = ()  # after SIGBUS: the mapped files that are shorter now, with sizes
    how: str = ""  # of a Ray actor: "lost" or "lost with its node"
    has_hung_up: bool = False  # it was ended because a job closed its descriptors

    @property
    def is_with_server(self) -> bool:
        """True if no single job can be blamed: the worker died with its server (the process that forks workers) or its
        machine, or while it was in one of several jobs sent together."""
        return self.exit_code is None and self.stuck is None


class Detail(NamedTuple):
    """On which worker a finished job ran, when it started, and how long each of its stages took."""

    number: int  # of its worker
    start_ns: int  # monotonic
    stages: Stages


class Started(NamedTuple):
    """The event that a worker was started. It may be sent jobs from now on."""

    worker: int


class WorkerReady(NamedTuple):
    """The event that a worker has loaded its replica (its copy of the sequence), so that it runs jobs."""

    worker: int


class Done(NamedTuple):
    """The event that a worker has finished a job, which was sent under the number ``sending``."""

    worker: int
    sending: int
    value: Any  # for Executor.read
    job_ns: int
    nbytes: int
    detail: Detail | None = None


class Failed(NamedTuple):
    """The event that a job, which was sent under the number ``sending``, has raised an exception."""

    worker: int
    sending: int
    error: BaseException | RemoteFailure
    job_ns: int
    detail: Detail | None = None


class Died(NamedTuple):
    """The event that a worker has died. ``running`` is the number under which its current job was sent."""

    worker: int
    running: int  # the sending of the job it was in; 0: none
    death: Death


class Cancelled(NamedTuple):
    """The event that a worker has skipped a job, sent under the number ``sending``, because it was cancelled."""

    worker: int
    sending: int


class Trimmed(NamedTuple):
    """The event that a worker has freed the memory that it kept for later jobs, as :meth:`Executor.trim` asks for."""

    worker: int
    nbytes: int  # of its batches that are still held


class NotStarted(NamedTuple):
    """The event that a worker, for which Started was reported, could not be started after all. It was in no job."""

    worker: int


class Fatal(NamedTuple):
    """The event that the engine cannot go on: it ends, and later requests raise ``error``."""

    error: BaseException


Event = Started | NotStarted | WorkerReady | Done | Failed | Cancelled | Trimmed | Died | Fatal


class Executor(Protocol):
    """What runs the engine's jobs: processes, threads or Ray actors. Runs in: the engine's thread, unless stated
    otherwise."""

    figures: PoolFigures  # its work is recorded here

    @property
    def may_add(self) -> int:
        """How many stream items (inputs of jobs, read by the consumer) may be on their way to workers at a time."""

    def start(self) -> None:
        """Start workers until there are as many as were set by :meth:`resize` or at the beginning."""

    def resize(self, nb_workers: int) -> None:
        """Set the number of workers. Missing workers are started by :meth:`start`; surplus workers, those with the
        highest numbers, are ended one by one by :meth:`dismiss`."""

    def dismiss(self, worker: int) -> None:
        """End an idle worker that is no longer needed. It causes no more events."""

    def poll(self, timeout_s: float | None) -> list[Event]:
        """Return the workers' new events. Blocks: until there is one, :meth:`wake` is called, or ``timeout_s`` is
        over."""

    def wake(self) -> None:
        """Make the current call of :meth:`poll`, or the next one, return at once. Runs in: any thread."""

    def ship(self, item: Any) -> Any:
        """Return ``item``, a job's input, in the form in which it is sent to a worker. Runs in: the consumer's
        thread."""

    def send(self, worker: int, rows: list[JobRow]) -> None:
        """Send these jobs to a worker, which runs them in this order."""

    def trim(self, worker: int) -> None:
        """Ask a worker to free all memory that it keeps for later jobs; it answers by a Trimmed event."""

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
        """Make all workers load the sequence in ``parcel`` (its pickle, in shared memory), and run later jobs on it."""

    def number(self, worker: int) -> int:
        """Return the number of a worker, from 0; -1: it is gone. Its replacement has the same number, but a new id."""

    def look(self, worker: int) -> tuple[int, int]:
        """Return (the number under which a worker's current job was sent, its start in monotonic ns); (0, 0): no
        job."""

    def kill(self, worker: int, why: Stuck) -> bool:
        """Kill a stuck worker; ``why`` is reported with its death. Return False if it is a thread: they cannot be
        killed."""

    def ask_stack(self, worker: int) -> None:
        """Ask a stuck worker to write down the stack of its job, for :meth:`take_stack`."""

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        """Return (the stack that a worker has written down, "" if none; its process id, None if it has none here)."""

    def rest(self) -> bool:
        """End the workers, which are idle, until :meth:`start` is called again. Return False if they are not ended."""

    def close(self) -> None:
        """End all workers, even those in the middle of a job."""
