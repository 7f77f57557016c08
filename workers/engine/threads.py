"""The executor that needs no process: jobs run in threads of the consumer's."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from typing import Any

from workers.errors import presentable
from workers.job import seeding

from . import report
from .executor import NO_LIMIT, Cancelled, Counts, Done, Event, Failed, Fatal, Ready, Started, Stuck, Trimmed
from .remote_errors import exit_code
from .schedule import JobRow
from .serial import run_here


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
        try:
            self._task.init_worker(self._number)
        except BaseException as raised:
            self._events.put(Fatal(presentable(raised)))
            return
        stream = seeding.Stream(self._task.seed)
        while (row := self.inbox.get()) is not None and not self.is_closing:
            self.running = (row.sending, time.monotonic_ns())
            if row.sending <= self.cancelled:  # looked at behind that: see StatusPage.begin
                self.running = (0, 0)
                self._events.put(Cancelled(self._number, row.sending))
                del row
                continue
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
        self.counts = Counts()
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads = [_Thread(task, number, self._queue) for number in range(nb_workers)]

    @property
    def may_add(self) -> int:
        return NO_LIMIT

    def start(self) -> None:
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except RuntimeError as error:
                raise report.too_few_workers(len(self._threads), number, str(error)) from error
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

    def trim(self, worker: int) -> None:
        self._queue.put(Trimmed(worker, 0))  # its batches are the loop's own arrays

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

    def rest(self) -> bool:
        return False  # they cost nothing

    def close(self) -> None:
        for thread in self._threads:
            thread.is_closing = True
            thread.inbox.put(None)
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                # A job that does not end cannot be ended: its thread is a daemon and goes with the process.
                thread.join(timeout=5.0)
