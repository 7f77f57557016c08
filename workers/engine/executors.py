"""The executor that needs no process: jobs run in threads of the consumer's.

An executor runs what the engine sends it and tells what became of it, as events (tuples, see the words below).
:class:`workers.process.executor.ProcessExecutor` is the other one; without any workers, ``serial`` takes the engine's
place.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import Any, Protocol

from workers.batch.layout import own
from workers.errors import add_note, presentable
from workers.job import seeding

from .remote_errors import exit_code
from .schedule import Row

# The events of an executor:
STARTED = "started"  # (STARTED, worker)
READY = "ready"  # (READY, worker)
DONE = "done"  # (DONE, worker, serial, value, ns, nbytes)
FAILED = "failed"  # (FAILED, worker, serial, error, ns)
DIED = "died"  # (DIED, worker, serial of the job it was in or 0, how)
FATAL = "fatal"  # (FATAL, error): there is no point in going on


class Executor(Protocol):
    """What the engine asks of an executor. Runs in: the engine's thread, unless said otherwise."""

    def start(self) -> None:
        """Start the workers."""

    def poll(self, timeout_s: float | None) -> list[tuple[Any, ...]]:
        """The events there are. Blocks: until there is one, :meth:`wake` is called, or ``timeout_s`` is over."""

    def wake(self) -> None:
        """End a :meth:`poll`. Runs in: any thread."""

    def ship(self, item: Any) -> Any:
        """``item`` as the payload of a job. Runs in: the consumer's thread."""

    def send(self, worker: int, rows: list[Row]) -> None:
        """Have a worker do these jobs."""

    def read(self, value: Any) -> Any:
        """The batch of a DONE event."""

    def skip(self, value: Any) -> None:
        """Nobody wants the batch of a DONE event."""

    def cancel(self, worker: int, serial: int) -> None:
        """A worker need not begin jobs up to ``serial``."""

    def update(self, parcel: Any) -> None:
        """All later jobs are to be done on this replica."""

    def look(self, worker: int) -> tuple[int, int]:
        """(serial of the job a worker is in, since when in monotonic ns); (0, 0) for none."""

    def kill(self, worker: int, why: str, stack: str) -> bool:
        """End a worker that is stuck. False: cannot be done here."""

    def ask_stack(self, worker: int) -> None:
        """Have a stuck worker write down its stack."""

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        """(what it has written, its process id)."""

    def close(self) -> None:
        """End all workers, whatever they are in."""


def run_here(
    task: Any, row: Row, stream: seeding.Stream, worker: int | None, seed_globals: bool
) -> tuple[bool, Any, int]:
    """Run a job in this process: (whether it succeeded, its value or its error, ns)."""
    start = time.monotonic_ns()
    job = seeding.Job(row.epoch, row.index, row.attempt, worker)
    try:
        value = seeding.run_job(stream, job, lambda: own(task.run(row.index, row.payload)), seed_globals)
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


class _Thread(threading.Thread):
    def __init__(self, task: Any, number: int, events: queue.SimpleQueue[Any]) -> None:
        super().__init__(name=f"prefetch-worker-{number}", daemon=True)
        self.inbox: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
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
            if row.serial <= self.cancelled:
                del row
                continue
            self.running = (row.serial, time.monotonic_ns())
            succeeded, value, ns = run_here(self._task, row, stream, self._number, False)
            if os.getpid() != self._pid:  # a child that the job has forked: there nobody waits for it
                os._exit(exit_code(None if succeeded else value))
            self.running = (0, 0)
            result = (value, ns, 0) if succeeded else (value, ns)
            self._events.put((DONE if succeeded else FAILED, self._number, row.serial, *result))
            del value, result, row


class ThreadExecutor:
    """Runs jobs in threads of this process: for functions that wait, or that let go of the interpreter's lock."""

    def __init__(self, task: Any, nb_workers: int) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [_Thread(task, number, self._queue) for number in range(nb_workers)]

    def start(self) -> None:
        for number, thread in enumerate(self._threads):
            thread.start()
            self._queue.put((STARTED, number))
            self._queue.put((READY, number))

    def poll(self, timeout_s: float | None) -> list[tuple[Any, ...]]:
        events = []
        try:
            events.append(self._queue.get(timeout=timeout_s))
            while True:
                events.append(self._queue.get_nowait())
        except queue.Empty:
            pass
        return [event for event in events if event is not None]

    def send(self, worker: int, rows: list[Row]) -> None:
        for row in rows:
            self._threads[worker].inbox.put(row)

    def cancel(self, worker: int, serial: int) -> None:
        self._threads[worker].cancelled = serial

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

    def kill(self, worker: int, why: str, stack: str) -> bool:
        return False

    def ask_stack(self, worker: int) -> None:
        pass

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        import sys
        import traceback

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
