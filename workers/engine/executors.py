"""The executor that needs no process: jobs run in threads of the consumer's.

An executor runs what the engine sends it and tells what became of it, as events.
:class:`workers.process.executor.ProcessExecutor` is the other one; without any workers, ``serial`` takes the engine's
place.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from typing import Any, NamedTuple, Protocol

from workers.batch.layout import makes_fresh_batches, own
from workers.errors import add_note, presentable
from workers.job import seeding

from .remote_errors import RemoteFailure, exit_code
from .schedule import JobRow


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


class Started(NamedTuple):
    """A worker exists."""

    worker: int


class Ready(NamedTuple):
    """A worker has loaded what it works on."""

    worker: int


class Done(NamedTuple):
    """A worker has finished a job."""

    worker: int
    sending: int
    value: Any  # for Executor.read
    job_ns: int
    nbytes: int


class Failed(NamedTuple):
    """A job has raised an exception."""

    worker: int
    sending: int
    error: BaseException | RemoteFailure
    job_ns: int


class Died(NamedTuple):
    """A worker is no more."""

    worker: int
    running: int  # the sending of the job it was in, 0 for none
    death: Death


class Fatal(NamedTuple):
    """There is no point in going on."""

    error: BaseException


Event = Started | Ready | Done | Failed | Died | Fatal


class Executor(Protocol):
    """What the engine asks of an executor. Runs in: the engine's thread, unless said otherwise."""

    def start(self) -> None:
        """Start the workers."""

    def poll(self, timeout_s: float | None) -> list[Event]:
        """The events there are. Blocks: until there is one, :meth:`wake` is called, or ``timeout_s`` is over."""

    def wake(self) -> None:
        """End a :meth:`poll`. Runs in: any thread."""

    def ship(self, item: Any) -> Any:
        """``item`` as the payload of a job. Runs in: the consumer's thread."""

    def send(self, worker: int, rows: list[JobRow]) -> None:
        """Have a worker do these jobs."""

    def read(self, value: Any) -> Any:
        """The batch of a Done event."""

    def skip(self, value: Any) -> None:
        """Nobody wants the batch of a Done event."""

    def cancel(self, worker: int, sending: int) -> None:
        """A worker need not begin jobs up to ``sending``."""

    def update(self, parcel: Any) -> None:
        """All later jobs are to be done on this replica."""

    def look(self, worker: int) -> tuple[int, int]:
        """(sending of the job a worker is in, since when in monotonic ns); (0, 0) for none."""

    def kill(self, worker: int, why: Stuck) -> bool:
        """End a worker that is stuck. False: cannot be done here."""

    def ask_stack(self, worker: int) -> None:
        """Have a stuck worker write down its stack."""

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        """(what it has written, its process id)."""

    def close(self) -> None:
        """End all workers, whatever they are in."""


def run_here(
    task: Any, row: JobRow, stream: seeding.Stream, worker: int | None, seed_globals: bool
) -> tuple[bool, Any, int]:
    """Run a job in this process: (whether it succeeded, its value or its error, ns)."""
    start = time.monotonic_ns()
    job = seeding.Job(row.epoch, row.index, row.attempt, worker)
    try:
        value = seeding.run_job(
            stream, job, lambda: own(task.run(row.index, row.payload), _is_fresh(task, row)), seed_globals
        )
    except BaseException as raised:  # also what would end this program: it is the loop's to know
        if isinstance(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # the user's Ctrl-C, not the job's
        value = presentable(raised)
        add_note(value, f"raised in batch {row.index} of epoch {row.epoch}, in this process")
        try:  # without a cycle: what this frame holds would live until the garbage is collected
            return False, value, time.monotonic_ns() - start
        finally:
            del value
    return True, value, time.monotonic_ns() - start


def _is_fresh(task: Any, row: JobRow) -> bool:
    """Whether nobody but the consumer will have the arrays of a job's batch."""
    return row.payload is None and not task.functions and makes_fresh_batches(task.source)


class _Thread(threading.Thread):
    def __init__(self, task: Any, number: int, events: queue.SimpleQueue[Any]) -> None:
        super().__init__(name=f"prefetch-worker-{number}", daemon=True)
        self.inbox: queue.SimpleQueue[JobRow | None] = queue.SimpleQueue()
        self.cancelled = 0
        self.is_closing = False
        self.running: tuple[int, int] = (0, 0)
        self._task = task
        self._number = number
        self._events = events
        self._pid = os.getpid()

    def run(self) -> None:
        stream = seeding.Stream(self._task.seed)
        while (row := self.inbox.get()) is not None and not self.is_closing:
            if row.sending <= self.cancelled:
                del row
                continue
            self.running = (row.sending, time.monotonic_ns())
            succeeded, value, ns = run_here(self._task, row, stream, self._number, False)
            if os.getpid() != self._pid:  # a child that the job has forked: there nobody waits for it
                os._exit(exit_code(None if succeeded else value))
            self.running = (0, 0)
            if succeeded:
                self._events.put(Done(self._number, row.sending, value, ns, 0))
            else:
                self._events.put(Failed(self._number, row.sending, value, ns))
            del value, row


class ThreadExecutor:
    """Runs jobs in threads of this process: for functions that wait, or that let go of the interpreter's lock."""

    def __init__(self, task: Any, nb_workers: int) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [_Thread(task, number, self._queue) for number in range(nb_workers)]

    def start(self) -> None:
        for number, thread in enumerate(self._threads):
            thread.start()
            self._queue.put(Started(number))
            self._queue.put(Ready(number))

    def poll(self, timeout_s: float | None) -> list[Event]:
        events = []
        try:
            events.append(self._queue.get(timeout=timeout_s))
            while True:
                events.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return [event for event in events if event is not None]

    def send(self, worker: int, rows: list[JobRow]) -> None:
        for row in rows:
            self._threads[worker].inbox.put(row)

    def cancel(self, worker: int, sending: int) -> None:
        self._threads[worker].cancelled = sending

    def wake(self) -> None:
        self._queue.put(None)

    def ship(self, item: Any) -> Any:
        return (item,)

    def read(self, value: Any) -> Any:
        return value

    def skip(self, value: Any) -> None:
        pass

    def update(self, parcel: Any) -> None:
        pass  # jobs run on the user's own object

    def look(self, worker: int) -> tuple[int, int]:
        return self._threads[worker].running

    def kill(self, worker: int, why: Stuck) -> bool:
        return False

    def ask_stack(self, worker: int) -> None:
        pass

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        frame = sys._current_frames().get(self._threads[worker].ident or 0)
        return ("".join(traceback.format_stack(frame)) if frame else ""), None

    def close(self) -> None:
        for thread in self._threads:
            thread.is_closing = True
            thread.inbox.put(None)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                # A job that does not end cannot be ended: its thread is a daemon and goes with the process.
                thread.join(timeout=5.0)
