"""Runs the engine's jobs in worker processes, which a server process forks and reaps.

The consumer has a socket to each worker and one to the server; :meth:`ProcessExecutor.poll` waits for all of them. Each
worker also has a status page (shared memory that shows its current job). The server reports the death of a worker in a
message. The executor then reads everything that the worker had sent, and replaces the worker.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
from collections.abc import Callable, Iterable
from typing import Any

from workers.batch.slot_reader import Unread
from workers.engine import executor as events
from workers.engine.executor import Event, Stuck
from workers.engine.remote_errors import RemoteFailure, unpack
from workers.engine.schedule import JobRow
from workers.errors import PlatformError
from workers.job.cores import CoreUse
from workers.report.pool import PoolFigures

from . import messages, preload, program_settings, replica, server_handle
from .channel import REFUSED_S, Channel
from .graceful_exit import Waker, let_end
from .item_slots import ItemSlots
from .logs import Inlet
from .status import STACK_SIGNAL
from .worker_handle import WorkerHandle
from .worker_pool import WorkerPool

_MAX_IN_SLOTS = 64


class ProcessExecutor:
    """The executor that runs jobs in ``nb_workers`` processes, each on a replica (its own copy) of the user's sequence.

    Args:
        make_parcel: a function that returns the parcel, which is the sequence pickled into shared memory.
        modules: the names of modules that the parcel needs; the server imports them once for all workers.
        figures: the figures for reports, in which the executor records its work.
    """

    def __init__(
        self, nb_workers: int, make_parcel: Callable[[], replica.Parcel], modules: Iterable[str], figures: PoolFigures
    ) -> None:
        self.figures = figures
        self._item_slots = ItemSlots()
        self._inlet = Inlet()
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self.wake = self._waker.wake
        self._selector.register(self._waker, selectors.EVENT_READ, "wake")
        try:
            settings = program_settings.collect()
            wanted = preload.modules_to_preload([*modules, *settings.modules])
            self._worker_pool = WorkerPool(nb_workers, wanted, settings, self._item_slots, self._selector, figures)
        except BaseException:
            self._close_own()
            raise
        self._workers = self._worker_pool.workers
        self._events = self._worker_pool.events
        try:
            self._worker_pool.parcel = make_parcel()  # may take a while; the server starts meanwhile
        except BaseException:
            self.close()
            raise

    @property
    def parcel(self) -> replica.Parcel | None:
        """The parcel (the pickled sequence in shared memory) that the workers load; None once it is released."""
        return self._worker_pool.parcel

    @property
    def may_add(self) -> int:
        """The most stream items that may be on their way to workers: few if in slots, which cost a descriptor each."""
        return _MAX_IN_SLOTS if self._item_slots.slots else events.NO_LIMIT

    # -- the engine's orders

    def start(self) -> None:
        self._worker_pool.start_all()

    def resize(self, nb_workers: int) -> None:
        self._worker_pool.resize(nb_workers)

    def dismiss(self, worker: int) -> None:
        self._worker_pool.dismiss(worker)

    def update(self, parcel: Any) -> None:
        self._worker_pool.update(parcel)

    def ship(self, item: Any) -> Any:
        return self._item_slots.ship(item)

    def send(self, worker: int, rows: list[JobRow]) -> None:
        self._workers[worker].send(rows, self._worker_pool.replica)

    def trim(self, worker: int) -> None:
        self._workers[worker].trim()

    def cancel(self, worker: int, sending: int, is_unwanted: bool = True) -> None:
        if worker in self._workers:
            self._workers[worker].page.cancel(sending, is_unwanted)

    def number(self, worker: int) -> int:
        return self._workers[worker].number if worker in self._workers else -1

    def look(self, worker: int) -> tuple[int, int]:
        return self._workers[worker].page.look()

    def kill(self, worker: int, why: Stuck) -> bool:
        if worker in self._workers:
            self._workers[worker].stuck = why
            self._worker_pool.send_signal(worker, signal.SIGKILL)
        return True

    def ask_stack(self, worker: int) -> None:
        if self._workers[worker].pid is None:
            self._worker_pool.server.ask_stack()  # the server is still importing
        self._worker_pool.send_signal(worker, STACK_SIGNAL)

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        process = self._workers[worker]
        if process.pid is None:
            return self._worker_pool.server.take_stack()
        return process.page.take_text(), process.pid

    def read(self, value: Unread, sending: int) -> Any:
        reader, layout, placed = value
        return reader.read(layout, placed, sending)

    def skip(self, value: Unread) -> None:
        reader, _, placed = value
        reader.skip(placed)

    # -- events

    def poll(self, timeout_s: float | None) -> list[Event]:
        staff, workers = self._worker_pool, self._workers
        if (number := staff.shortage.take()) is not None:
            staff.start_again(number)
        if staff.unanswered:
            staff.look_after_server()
        if not self._events:
            if _watch_unsent(workers, staff.server, self._selector):
                timeout_s = REFUSED_S if timeout_s is None else min(timeout_s, REFUSED_S)
            for key, ready in self._selector.select(staff.left_s(timeout_s)):
                if key.data == "wake":
                    self._waker.clear()
                elif key.data == "server":
                    self._from_server()
                elif key.data in workers:  # unless it died during this loop
                    if ready & selectors.EVENT_WRITE:
                        _flush(workers[key.data].channel)
                    self._from_worker(workers[key.data])
        events = self._events.copy()
        self._events.clear()
        return events

    def _from_server(self) -> None:
        try:
            received = self._worker_pool.server.channel.receive()
        except EOFError:
            if self._worker_pool.server_died():
                for name in list(self._workers):
                    self._exited(name, None, 0)
            return
        if received:
            self._worker_pool.unanswered.heard()
        for message, _ in received:
            if isinstance(message, messages.Exited):
                self._exited(message.worker, message.exit_code, message.max_rss)
            elif isinstance(message, messages.Preloaded):
                self._worker_pool.server.note(message)
            elif isinstance(message, messages.Forked):
                self._worker_pool.forked(message)
            elif isinstance(message, messages.NotForked):
                self._worker_pool.not_forked(message)

    def _exited(self, name: int, exit_code: int | None, max_rss: int) -> None:
        if (worker := self._workers.get(name)) is not None:
            while self._from_worker(worker):  # the messages that it had sent before it died
                pass
            self._worker_pool.exited(name, exit_code, max_rss)

    def _from_worker(self, worker: WorkerHandle) -> bool:
        """Handle all messages that ``worker`` has sent. Return True if there were any."""
        try:
            received = worker.channel.receive()
        except EOFError:
            if worker.is_watched:
                self._selector.unregister(worker.channel)
                worker.is_watched = False
                worker.hung_up()
                # Without its socket it is useless, even if it still runs.
                self._worker_pool.send_signal(worker.name, signal.SIGKILL)
            return False
        except PlatformError as error:  # no descriptors are left to receive those of the worker
            self._events.append(events.Fatal(error))
            return False
        for message, files in received:
            if isinstance(message, messages.Results):
                self.figures.segments_made += len(message.slots)
                times_ns = [job_ns for _, job_ns, _ in message.rows if job_ns > 0]  # 0 for a cancelled job
                self.figures.finished(worker.number, times_ns)
                if message.cores is not None:
                    had, wanted, of_ns, looks, free = message.cores
                    self.figures.used(CoreUse(had, wanted), of_ns)
                    self.figures.looked_at_lock(looks, free)
                found = worker.events_of(message, files)
                self._events += [] if worker.is_leaving else found
            elif isinstance(message, messages.Ready):
                self._ready(worker, message.failure)
            elif isinstance(message, messages.Broken):
                self._events.append(events.Fatal(unpack(message.failure, "a worker")))
            elif isinstance(message, messages.Logged):
                self._inlet.put(message)
        return bool(received)

    def _ready(self, worker: WorkerHandle, failure: RemoteFailure | None) -> None:
        if failure is not None:
            error = unpack(failure, "a worker, while it loaded the Sequence")
            self._events += [] if worker.is_leaving else [events.Fatal(error)]
            return
        self._worker_pool.ready(worker)

    # -- the end

    def end_idle(self) -> bool:
        """End all workers, and return True. The server stays, so that workers started later inherit its imports."""
        self._let_end()
        self._worker_pool.remove_all()
        return True

    def close(self) -> None:
        with contextlib.ExitStack() as ends:  # run all of these, even if one raises
            ends.callback(self._close_own)
            ends.callback(self._worker_pool.close)
            self._let_end()

    def _close_own(self) -> None:
        with contextlib.ExitStack() as ends:
            for each in (self._inlet, self._waker, self._selector, self._item_slots):
                ends.callback(each.close)

    def _let_end(self) -> None:
        let_end(self._workers, self._worker_pool.server, self._selector, self._waker, self._inlet)


def _watch_unsent(
    workers: dict[int, WorkerHandle], server: server_handle.Connection, selector: selectors.BaseSelector
) -> bool:
    """Make ``selector`` report when a worker's socket can take unsent messages; retry now what the kernel has refused.

    Returns:
        True if the kernel still refuses a message, so the caller must call this function again soon.
    """
    is_refused = False
    for name, worker in workers.items():
        channel = worker.channel
        if worker.is_watched and not channel.is_held and (channel.has_unsent or worker.awaits_room):
            if channel.is_refused:
                _flush(channel)
            is_refused |= channel.is_refused
            awaits_room = channel.has_unsent and not channel.is_refused
            if worker.awaits_room != awaits_room:
                worker.awaits_room = awaits_room
                selector.modify(channel, selectors.EVENT_READ | (selectors.EVENT_WRITE if awaits_room else 0), name)
    if server.channel.has_unsent:
        _flush(server.channel)
    return is_refused or server.channel.is_refused


def _flush(channel: Channel) -> None:
    with contextlib.suppress(ConnectionError):  # the other end has died: poll() will notice
        channel.flush()
