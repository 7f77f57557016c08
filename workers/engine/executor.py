"""The interface between the engine and the executor, which runs its jobs: the Executor protocol, and its events.

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
    """The reason to end a worker: its job took longer than job_timeout, or it started none of its jobs."""

    job_timeout_s: float | None = None
    unbegun_s: float | None = None
    stack: str = ""


class Death(NamedTuple):
    """The end of a worker: Death(4711, -9, None, 11_800_000_000, "")."""

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
        """True if all workers ended at once, because their server did."""
        return self.exit_code is None and self.stuck is None


class Detail(NamedTuple):
    """The details of a finished job."""

    number: int  # of its worker
    start_ns: int  # monotonic
    stages: Stages


class Started(NamedTuple):
    """A worker exists."""

    worker: int


class WorkerReady(NamedTuple):
    """A worker has loaded its replica."""

    worker: int


class Done(NamedTuple):
    """A worker has finished a job."""

    worker: int
    sending: int
    value: Any  # for Executor.read
    job_ns: int
    nbytes: int
    detail: Detail | None = None


class Failed(NamedTuple):
    """A job has raised an exception."""

    worker: int
    sending: int
    error: BaseException | RemoteFailure
    job_ns: int
    detail: Detail | None = None


class Died(NamedTuple):
    """A worker has died."""

    worker: int
    running: int  # the sending of the job it was in; 0: none
    death: Death


class Cancelled(NamedTuple):
    """A worker has skipped a job, which was cancelled before it started."""

    worker: int
    sending: int


class Trimmed(NamedTuple):
    """A worker has given up the memory that it kept for later jobs, as requested."""

    worker: int
    nbytes: int  # of its batches that are still held


class NotStarted(NamedTuple):
    """A worker that was reported by Started could not be started after all. It was in no job."""

    worker: int


class Fatal(NamedTuple):
    """The engine cannot go on."""

    error: BaseException


Event = Started | NotStarted | WorkerReady | Done | Failed | Cancelled | Trimmed | Died | Fatal


class Executor(Protocol):
    """An executor, as the engine uses it. Runs in: the engine's thread, unless stated otherwise."""

    figures: PoolFigures  # its work is recorded here

    @property
    def may_add(self) -> int:
        """The number of stream items that may be on their way to the workers."""

    def start(self) -> None:
        """Start the missing workers."""

    def resize(self, nb_workers: int) -> None:
        """Set the number of workers. Missing workers are started by :meth:`start`; surplus workers, those with the
        highest numbers, are ended one by one by :meth:`dismiss`."""

    def dismiss(self, worker: int) -> None:
        """End an idle worker that is no longer needed. It causes no more events."""

    def poll(self, timeout_s: float | None) -> list[Event]:
        """Return the pending events. Blocks: until there is one, :meth:`wake` is called, or ``timeout_s`` is over."""

    def wake(self) -> None:
        """End a :meth:`poll`. Runs in: any thread."""

    def ship(self, item: Any) -> Any:
        """Return ``item`` as the payload of a job. Runs in: the consumer's thread."""

    def send(self, worker: int, rows: list[JobRow]) -> None:
        """Send these jobs to a worker."""

    def trim(self, worker: int) -> None:
        """Ask a worker to give up all memory that it keeps for later jobs; Trimmed is its answer."""

    def read(self, value: Any, sending: int) -> Any:
        """Return the batch of a Done event.

        Raises:
            IntegrityError: it is not the batch of ``sending``.
        """

    def skip(self, value: Any) -> None:
        """Discard the batch of a Done event."""

    def cancel(self, worker: int, sending: int) -> None:
        """Tell a worker not to start jobs up to ``sending``."""

    def update(self, parcel: Any) -> None:
        """Run all later jobs on the sequence in this parcel."""

    def number(self, worker: int) -> int:
        """Return the number of a worker, from 0; -1: it is gone. A worker that replaces another has the same number."""

    def look(self, worker: int) -> tuple[int, int]:
        """Return (the sending of the job a worker is in, its start in monotonic ns); (0, 0): none."""

    def kill(self, worker: int, why: Stuck) -> bool:
        """Kill a stuck worker. Returns False if that is impossible."""

    def ask_stack(self, worker: int) -> None:
        """Ask a stuck worker to write down its stack."""

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        """Return (the stack it has written, its process id)."""

    def rest(self) -> bool:
        """End the idle workers until :meth:`start` is called again. Returns False if they stay."""

    def close(self) -> None:
        """End all workers, whatever they are doing."""
