"""Runs the engine's jobs in workers that are threads of the loop's own process."""

from __future__ import annotations

import contextvars
import itertools
import os
import queue
import sys
import threading
import time
import traceback
from typing import Any

from workers.batch.tree import own
from workers.errors import safe_to_raise
from workers.job.context import begin_marks, stages
from workers.job.portions import EVERY_NS, JobUnwantedError, PortionSender
from workers.report.pool import PoolFigures

from . import explanations
from .executor import (
    NO_LIMIT,
    Cancelled,
    Detail,
    Done,
    Event,
    Failed,
    Fatal,
    Started,
    Stuck,
    Trimmed,
    WorkerReady,
    Yielded,
)
from .remote_errors import exit_code
from .schedule import JobRow
from .serial import run_here


class _Thread(threading.Thread):
    def __init__(
        self, task: Any, name: int, number: int, events: queue.SimpleQueue[Any], context: contextvars.Context
    ) -> None:
        super().__init__(name=f"prefetch-worker-{number}", daemon=True)
        self.inbox: queue.SimpleQueue[JobRow | None] = queue.SimpleQueue()
        self.cancelled = 0  # jobs up to this sending are not to begin
        self.unwanted = 0  # jobs up to this sending may end when they yield an item
        self.is_closing = False
        self.running: tuple[int, int] = (0, 0)
        self._task = task
        self.worker = name  # the id by which the engine knows this thread
        self.number = number
        self._events = events
        self._pid = os.getpid()
        self._context = context

    def run(self) -> None:
        self._context.run(self._run_jobs)

    def _run_jobs(self) -> None:
        try:
            self._task.init_worker(self.number)
        except BaseException as raised:
            self._events.put(Fatal(safe_to_raise(raised)))
            return
        stream, portions = self._task.stream(), PortionSender(self._yielded, EVERY_NS)
        while (row := self.inbox.get()) is not None and not self.is_closing:
            self.running = (row.sending, time.monotonic_ns())
            if row.sending <= self.cancelled:  # checked after running is set: see StatusPage.begin
                self.running = (0, 0)
                self._events.put(Cancelled(self.worker, row.sending))
                del row
                continue
            start_ns, marks = time.monotonic_ns(), begin_marks()
            succeeded, value, ns = run_here(self._task, row, stream, self.number, False, portions)
            detail = Detail(self.number, start_ns, stages(marks, time.monotonic_ns()))
            if os.getpid() != self._pid:  # a child that the job has forked: nobody reads its results
                os._exit(exit_code(None if succeeded else value))
            self.running = (0, 0)
            if succeeded:
                self._events.put(Done(self.worker, row.sending, value, ns, 0, detail))
            else:
                self._events.put(Failed(self.worker, row.sending, value, ns, detail))
            del value, row

    def _yielded(self, items: list[Any]) -> None:
        """Send some items of the job that runs."""
        if self.is_closing or self.running[0] <= self.unwanted:
            raise JobUnwantedError
        self._events.put(Yielded(self.worker, self.running[0], own(items), 0))


class ThreadExecutor:
    """The executor whose workers are threads of this process. Suits jobs that wait, or release Python's global lock."""

    def __init__(self, task: Any, nb_workers: int, figures: PoolFigures) -> None:
        self.figures = figures
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._task = task
        self._nb_workers = nb_workers
        self._names = itertools.count()
        self._threads: dict[int, _Thread] = {}  # {name: thread}; a name is never used again
        self._context = contextvars.copy_context()  # the loop's, with numpy's errstate and decimal's context

    @property
    def may_add(self) -> int:
        return NO_LIMIT

    def start(self) -> None:
        there = {thread.number for thread in self._threads.values()}
        for number in range(self._nb_workers):
            if number in there:
                continue
            thread = _Thread(self._task, next(self._names), number, self._queue, self._context.copy())
            try:
                thread.start()
            except RuntimeError as error:
                raise explanations.too_few_workers(self._nb_workers, len(self._threads), str(error)) from error
            self._threads[thread.worker] = thread
            self.figures.started(number)
            self._queue.put(Started(thread.worker))
            self.figures.ready(number)
            self._queue.put(WorkerReady(thread.worker))

    def resize(self, nb_workers: int) -> None:
        self._nb_workers = nb_workers

    def dismiss(self, worker: int) -> None:
        thread = self._threads.pop(worker)
        self.figures.ended(thread.number)
        thread.inbox.put(None)

    def poll(self, timeout_s: float | None) -> list[Event]:
        events: list[Event] = []
        try:
            self._note(self._queue.get(timeout=timeout_s), events)
            while True:
                self._note(self._queue.get_nowait(), events)
        except queue.Empty:
            pass
        return events

    def _note(self, event: Event | None, events: list[Event]) -> None:
        if event is None or (not isinstance(event, Fatal) and event.worker not in self._threads):
            return
        events.append(event)
        if isinstance(event, (Done, Failed)) and event.detail is not None:
            self.figures.finished(event.detail.number, [event.job_ns])

    def send(self, worker: int, rows: list[JobRow]) -> None:
        for row in rows:
            self._threads[worker].inbox.put(row)

    def trim(self, worker: int) -> None:
        self._queue.put(Trimmed(worker, 0))  # nothing to free: its batches are the loop's own arrays

    def cancel(self, worker: int, sending: int, is_unwanted: bool = True) -> None:
        if worker in self._threads:
            self._threads[worker].cancelled = sending
            if is_unwanted:
                self._threads[worker].unwanted = sending

    def wake(self) -> None:
        self._queue.put(None)

    def ship(self, item: Any) -> Any:
        return (item,)

    def read(self, value: Any, sending: int) -> Any:
        return value  # the batch itself: it was not sent

    def skip(self, value: Any) -> None:
        pass

    def update(self, parcel: Any) -> None:
        pass  # jobs run on the user's own sequence

    def number(self, worker: int) -> int:
        return self._threads[worker].number if worker in self._threads else -1

    def look(self, worker: int) -> tuple[int, int]:
        return self._threads[worker].running

    def kill(self, worker: int, why: Stuck) -> bool:
        return False

    def ask_stack(self, worker: int) -> None:
        pass

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        frame = sys._current_frames().get(self._threads[worker].ident or 0)
        return ("".join(traceback.format_stack(frame)) if frame else ""), None

    def end_idle(self) -> bool:
        return False  # idle threads cost nothing

    def close(self) -> None:
        for thread in self._threads.values():
            thread.is_closing = True
            self.figures.ended(thread.number)
            thread.inbox.put(None)
        for thread in self._threads.values():
            if thread.ident is not None and thread is not threading.current_thread():
                # A job that hangs cannot be ended: its thread is a daemon, and ends with the process.
                thread.join(timeout=5.0)
