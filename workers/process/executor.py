"""The process executor: worker processes, and the server that forks and reaps them, as the consumer has them.

Each worker has a private socket pair and a status page; the server has a socket of its own. Everything is waited for
in one place, :meth:`ProcessExecutor.poll`. A worker's death is one more message (from the server): what the worker had
sent before is read to the end, then it is replaced.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import selectors
import signal
from collections.abc import Callable, Iterable
from typing import Any

from workers.engine import executor as events
from workers.engine import report
from workers.engine.executor import Event, Stuck
from workers.engine.remote_errors import RemoteFailure, unpack
from workers.engine.schedule import JobRow

from . import messages, preload, replica, server_handle, surroundings
from .ending import let_end
from .logs import Inlet
from .ring import Ring
from .shortage import Shortage
from .status import STACK_SIGNAL
from .waker import Waker
from .worker_handle import Unread, WorkerHandle

logger = logging.getLogger("workers")

_MAX_IN_RING = 64
_MAX_FAILED_STARTS = 3  # of each worker, without one that succeeds in between


class ProcessExecutor:
    """Runs jobs in ``nb_workers`` processes, each on its own replica of what the parcel holds. ``modules`` are those
    that it names, to be imported once for all of them."""

    def __init__(self, nb_workers: int, make_parcel: Callable[[], replica.Parcel], modules: Iterable[str]) -> None:
        self.counts = events.Counts()
        self._nb_workers = nb_workers
        self._workers: dict[int, WorkerHandle] = {}  # {worker: its process}; numbers are never used again
        self._names = itertools.count()
        self._failed_starts = 0  # in a row
        self._shortage = Shortage()
        self._ring = Ring()
        self._inlet = Inlet()
        self._selector = selectors.DefaultSelector()
        self._waker = Waker()
        self.wake = self._waker.wake
        self._selector.register(self._waker, selectors.EVENT_READ, "wake")
        self._events: list[Event] = []
        self._surroundings = surroundings.collect()
        self._modules = preload.worth_it([*modules, *self._surroundings.modules])
        self._start_server()
        try:
            self.parcel: replica.Parcel | None = make_parcel()  # may take a while, in which the server starts
        except BaseException:
            self.close()
            raise

    @property
    def may_add(self) -> int:
        """How many items may be on their way: each that lies in the ring costs a descriptor."""
        return _MAX_IN_RING if self._ring.slots else events.NO_LIMIT

    # -- starting

    def _start_server(self) -> None:
        self._server = server_handle.connect(self._modules)
        self._selector.register(self._server.channel, selectors.EVENT_READ, "server")

    def start(self) -> None:
        for number in range(self._nb_workers):
            self._start_worker(number)

    def _start_worker(self, number: int) -> None:
        name = next(self._names)
        worker = self._workers[name] = WorkerHandle(name, number, self._ring)
        self._server.tell(*worker.order())
        if not self._server.channel.has_unsent:
            worker.theirs.close()
        self._selector.register(worker.channel, selectors.EVENT_READ, name)
        worker.is_watched = True
        assert self.parcel is not None
        worker.load(self.parcel, self._surroundings)
        self._events.append(events.Started(name))

    # -- the engine's orders

    def update(self, parcel: Any) -> None:
        self.parcel = parcel
        for worker in self._workers.values():
            worker.load(parcel, self._surroundings)

    def ship(self, item: Any) -> Any:
        return self._ring.ship(item)

    def send(self, worker: int, rows: list[JobRow]) -> None:
        self._workers[worker].send(rows)

    def trim(self, worker: int) -> None:
        self._workers[worker].trim()

    def cancel(self, worker: int, sending: int) -> None:
        if worker in self._workers:
            self._workers[worker].page.cancel(sending)

    def look(self, worker: int) -> tuple[int, int]:
        return self._workers[worker].page.look()

    def kill(self, worker: int, why: Stuck) -> bool:
        if worker in self._workers:
            self._workers[worker].stuck = why
            self._signal(worker, signal.SIGKILL)
        return True

    def ask_stack(self, worker: int) -> None:
        if self._workers[worker].pid is None:
            self._server.ask_stack()  # it is still at its imports
        self._signal(worker, STACK_SIGNAL)

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        process = self._workers[worker]
        return self._server.take_stack() if process.pid is None else (process.page.take_text(), process.pid)

    def _signal(self, worker: int, number: int) -> None:
        self._server.tell(messages.Signal(worker, int(number)))

    def read(self, value: Unread) -> Any:
        reader, placed = value
        return reader.read(placed)

    def skip(self, value: Unread) -> None:
        reader, placed = value
        reader.skip(placed)

    # -- what comes back

    def poll(self, timeout_s: float | None) -> list[Event]:
        if (number := self._shortage.take()) is not None:
            self._start_worker(number)
        if not self._events:
            _watch_unsent(self._workers, self._server, self._selector)
            for key, ready in self._selector.select(self._shortage.left_s(timeout_s)):
                if key.data == "wake":
                    self._waker.clear()
                elif key.data == "server":
                    self._from_server()
                elif key.data in self._workers:  # else it died in this very round
                    if ready & selectors.EVENT_WRITE:
                        with contextlib.suppress(OSError):
                            self._workers[key.data].channel.flush()
                    self._from_worker(self._workers[key.data])
        events, self._events = self._events, []
        return events

    def _from_server(self) -> None:
        try:
            received = self._server.channel.receive()
        except EOFError:
            self._server_died()
            return
        for message, _ in received:
            if isinstance(message, messages.Exited):
                self._exited(message.worker, message.exit_code, message.max_rss)
            elif isinstance(message, messages.Preloaded):
                self._server.note(message)
            elif isinstance(message, messages.Forked) and message.worker in self._workers:
                self._workers[message.worker].pid = message.pid
                self._workers[message.worker].theirs.close()
                self._shortage.forked()
            elif isinstance(message, messages.NotForked) and message.worker in self._workers:
                self._not_forked(message)

    def _from_worker(self, worker: WorkerHandle) -> bool:
        """Read what is there. False: there will be no more."""
        try:
            received = worker.channel.receive()
        except EOFError:
            if worker.is_watched:
                self._selector.unregister(worker.channel)
                worker.is_watched = False
                # It is of no use any more, even if it is only its socket that is gone.
                self._signal(worker.name, signal.SIGKILL)
            return False
        for message, files in received:
            if isinstance(message, messages.Results):
                self.counts.segments_made += len(message.slots)
                self.counts.segments_given_up += len(message.gone)
                self._events += worker.events_of(message, files)
            elif isinstance(message, messages.Ready):
                self._ready(worker, message.failure)
            elif isinstance(message, messages.Logged):
                self._inlet.put(message)
        return bool(received)

    def _ready(self, worker: WorkerHandle, failure: RemoteFailure | None) -> None:
        if failure is not None:
            self._events.append(events.Fatal(unpack(failure, "a worker, while it loaded the Sequence")))
            return
        self._failed_starts = 0
        worker.is_ready = True
        self._events.append(events.Ready(worker.name))

    def _not_forked(self, message: messages.NotForked) -> None:
        """Go on with the workers that there are, and tell when it is known how many these are."""
        name, reason = message
        self._shortage.lost(self._remove(name).number)
        self._events.append(events.NotStarted(name))
        if any(worker.pid is None for worker in self._workers.values()):
            return
        self._shortage.answered(len(self._workers))
        error = report.too_few_workers(self._nb_workers, len(self._workers), reason)
        if self._shortage.is_hopeless:
            self._events.append(events.Fatal(error))
        elif self._workers and self._shortage.tell():
            logger.warning("%s These go on; from time to time it is tried again", error)

    def _remove(self, name: int) -> WorkerHandle:
        worker = self._workers.pop(name)
        if worker.is_watched:
            self._selector.unregister(worker.channel)
        worker.close()
        return worker

    def _exited(self, name: int, exit_code: int | None, max_rss: int) -> None:
        if (worker := self._workers.get(name)) is None:
            return
        while self._from_worker(worker):  # what it had sent before it died
            pass
        running, _ = worker.page.look()
        death = worker.death(exit_code, max_rss, self.parcel.files if self.parcel else ())
        self._remove(name)
        self._events.append(events.Died(name, running, death))
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS * self._nb_workers:
                error = report.not_started(self._failed_starts, report.how(death), death.stack)
                self._events.append(events.Fatal(error))
                return
        self._start_worker(worker.number)

    def _server_died(self) -> None:
        """All workers die with the server. Start anew."""
        self._selector.unregister(self._server.channel)
        status = self._server.wait()
        self._failed_starts += not any(worker.is_ready for worker in self._workers.values())
        if self._failed_starts >= _MAX_FAILED_STARTS * self._nb_workers:
            error = report.not_started(self._failed_starts, f"its server ended with status {status}", "")
            self._events.append(events.Fatal(error))
            return
        try:
            self._start_server()
        except OSError as error:
            self._events.append(events.Fatal(report.too_few_workers(self._nb_workers, 0, str(error))))
            return
        for name in list(self._workers):
            self._workers[name].is_ready = True  # not counted as a failed start of its own
            self._exited(name, None, 0)

    # -- the end

    def rest(self) -> bool:
        """The server stays: workers that are started later have the same imports."""
        let_end(self._workers, self._server, self._selector, self._waker, self._inlet)
        for name in list(self._workers):
            self._signal(name, signal.SIGKILL)  # it has not ended by itself: it was stopped, say
            self._remove(name)
        self._shortage.forget()
        return True

    def close(self) -> None:
        let_end(self._workers, self._server, self._selector, self._waker, self._inlet)
        self._server.close()
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._ring.close()
        self._selector.close()
        self._waker.close()
        self._inlet.close()
        self.parcel = None  # its memory is free, unless others have it too


def _watch_unsent(
    workers: dict[int, WorkerHandle], server: server_handle.Connection, selector: selectors.BaseSelector
) -> None:
    """Wait for sockets to take what they did not take at once; hardly ever anything."""
    for name, worker in workers.items():
        if worker.is_watched:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.channel.has_unsent else 0)
            if selector.get_key(worker.channel).events != wanted:
                selector.modify(worker.channel, wanted, name)
    if server.channel.has_unsent:
        with contextlib.suppress(OSError):
            server.channel.flush()
