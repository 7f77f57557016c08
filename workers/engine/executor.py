"""What runs the engine's jobs, as the engine sees it: an executor, and the events it tells of.

There are three: :class:`workers.engine.threads.ThreadExecutor`, :class:`workers.process.executor.ProcessExecutor` and
:class:`workers.cluster.executor.RayExecutor`. Without any workers, ``serial`` takes the engine's place.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from workers.job.context import Stages
from workers.report.pool import PoolFigures

from .remote_errors import RemoteFailure
from .schedule import JobRow

NO_LIMIT = 2**62


class Stuck(NamedTuple):
    """Why the engine ends a worker: its job took longer than job_timeout, or it began none of its jobs."""

    job_timeout_s: float | None = None
    unbegun_s: float | None = None
    stack: str = ""


class Death(NamedTuple):
    """How a worker ended: Death(4711, -9, None, 11_800_000_000, "")."""

    pid: int | None
    exit_code: int | None = None  # negative: the signal that killed it; None: it died with its server
    stuck: Stuck | None = None  # the engine has killed it, for this
    max_rss: int = 0  # in bytes; 0: not known
    stack: str = ""  # where it was, as faulthandler says
    shortened: tuple[str, ...] = ()  # killed by SIGBUS: the files that it maps and that are shorter now, with sizes
    how: str = ""  # all that is known of it, where there is no exit code
    has_hung_up: bool = False  # it was ended because its descriptors were closed

    @property
    def is_with_server(self) -> bool:
        """All workers ended at once, because their server did."""
        return self.exit_code is None and self.stuck is None


class Detail(NamedTuple):
    """More of a job that has ended."""

    number: int  # of its worker
    start_ns: int  # monotonic
    stages: Stages


class Started(NamedTuple):
    """A worker exists."""

    worker: int


class WorkerReady(NamedTuple):
    """A worker has loaded what it works on."""

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
    """A worker is no more."""

    worker: int
    running: int  # the sending of the job it was in, 0 for none
    death: Death


class Cancelled(NamedTuple):
    """A worker has not run a job, because it was cancelled before."""

    worker: int
    sending: int


class Trimmed(NamedTuple):
    """A worker keeps no memory for later jobs, as it was asked to."""

    worker: int
    nbytes: int  # of its batches that somebody still holds


class NotStarted(NamedTuple):
    """A worker of which Started was told could not be made after all. It was in no job."""

    worker: int


class Fatal(NamedTuple):
    """There is no point in going on."""

    error: BaseException


Event = Started | NotStarted | WorkerReady | Done | Failed | Cancelled | Trimmed | Died | Fatal


class Executor(Protocol):
    """What the engine asks of an executor. Runs in: the engine's thread, unless said otherwise."""

    figures: PoolFigures  # what is done is noted here

    @property
    def may_add(self) -> int:
        """How many items of a stream may be on their way to the workers."""

    def start(self) -> None:
        """Start the workers that are not there."""

    def resize(self, nb_workers: int) -> None:
        """From now on there are to be so many workers. Those that are missing come by :meth:`start`; those that are too
        many, with the highest numbers, go one by one by :meth:`dismiss`."""

    def dismiss(self, worker: int) -> None:
        """A worker that has nothing to do is not needed any more. There will be no more events of it."""

    def poll(self, timeout_s: float | None) -> list[Event]:
        """The events there are. Blocks: until there is one, :meth:`wake` is called, or ``timeout_s`` is over."""

    def wake(self) -> None:
        """End a :meth:`poll`. Runs in: any thread."""

    def ship(self, item: Any) -> Any:
        """``item`` as the payload of a job. Runs in: the consumer's thread."""

    def send(self, worker: int, rows: list[JobRow]) -> None:
        """Have a worker do these jobs."""

    def trim(self, worker: int) -> None:
        """Have a worker give up all memory that it keeps for later jobs, and then tell of it (Trimmed)."""

    def read(self, value: Any, sending: int) -> Any:
        """The batch of a Done event.

        Raises:
            IntegrityError: it is not that of ``sending``.
        """

    def skip(self, value: Any) -> None:
        """Nobody wants the batch of a Done event."""

    def cancel(self, worker: int, sending: int) -> None:
        """A worker need not begin jobs up to ``sending``."""

    def update(self, parcel: Any) -> None:
        """All later jobs are to be done on this replica."""

    def number(self, worker: int) -> int:
        """Which of the workers it is, from 0; -1: it is gone. One that comes in the place of another has the same."""

    def look(self, worker: int) -> tuple[int, int]:
        """(sending of the job a worker is in, since when in monotonic ns); (0, 0) for none."""

    def kill(self, worker: int, why: Stuck) -> bool:
        """End a worker that is stuck. False: cannot be done here."""

    def ask_stack(self, worker: int) -> None:
        """Have a stuck worker write down its stack."""

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        """(what it has written, its process id)."""

    def rest(self) -> bool:
        """End the workers, which have nothing to do, until :meth:`start` is called again. False: they stay."""

    def close(self) -> None:
        """End all workers, whatever they are in."""
