"""The process executor: worker processes, their sockets, boards and slots, as the consumer has them.

Each worker has a private socket pair and a board; the server, which forks and reaps them, has a socket of its own.
Everything is waited for in one place, :meth:`ProcessExecutor.poll`. A worker's death is one more message (from the
server): what the worker had sent before is read to the end, then it is replaced.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from workers.batch.slots import SMALL_NBYTES, SlotReader
from workers.engine import executors
from workers.engine.remote_errors import RemoteFailure, unpack
from workers.engine.schedule import Row
from workers.errors import PlatformError, WorkerStartError, add_note

from . import channel as channels
from . import messages, replica
from .board import STACK_SIGNAL, Board, describe_status
from .channel import Channel

_GRACE_S = 0.25  # for workers to end by themselves
_MAX_FAILED_STARTS = 3  # of each worker, without one that succeeds in between
_SERVER = """\
import sys
sys.path[:] = {path!r}
from workers.process.server import main
main({descriptor}, {consumer})
"""


class Death(NamedTuple):
    """How a worker ended."""

    how: str  # e.g. "killed by SIGKILL"
    pid: int | None
    max_rss: int  # in bytes, 0: not known
    text: str  # what faulthandler said


class _Worker:
    """One worker process, as the consumer has it."""

    def __init__(self, number: int) -> None:
        self.number = number  # 0 to nb_workers - 1; its successor has the same
        mine, self.theirs = channels.pair()
        mine.setblocking(False)
        self.channel = Channel(mine)
        self.board = Board()
        self.reader = SlotReader()
        self.pid: int | None = None
        self.is_ready = False
        self.is_watched = False
        self.killed_for = ""
        self.stack = ""

    def close(self) -> None:
        self.channel.close()
        self.theirs.close()
        self.board.close()


class ProcessExecutor:
    """Runs jobs in ``nb_workers`` processes, each on its own replica of what the parcel holds."""

    def __init__(self, nb_workers: int, make_parcel: Callable[[], replica.Parcel]) -> None:
        self._nb_workers = nb_workers
        self._workers: dict[int, _Worker] = {}  # {worker: its process}; numbers are never used again
        self._next_worker = 0
        self._failed_starts = 0  # in a row
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_out, False)
        os.set_blocking(self._wake_in, False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, "wake")
        self._events: list[tuple[Any, ...]] = []
        self._start_server()
        try:
            self.parcel = make_parcel()  # may take a while, in which the server starts
        except BaseException:
            self.close()
            raise

    # -- starting

    def _start_server(self) -> None:
        mine, theirs = channels.pair()
        try:
            self._process = _launch(theirs)
        except BaseException:
            mine.close()
            raise
        finally:
            theirs.close()
        mine.setblocking(False)
        self._server = Channel(mine)
        self._selector.register(mine, selectors.EVENT_READ, "server")

    def start(self) -> None:
        for number in range(self._nb_workers):
            self._start_worker(number)

    def _start_worker(self, number: int) -> None:
        name = self._next_worker
        self._next_worker += 1
        worker = self._workers[name] = _Worker(number)
        files = [worker.theirs.fileno(), worker.board.descriptor]
        with contextlib.suppress(OSError):  # the server has died: we shall be told
            self._server.send((messages.FORK, name, number), files)
        if not self._server.has_unsent:
            worker.theirs.close()
        self._selector.register(worker.channel, selectors.EVENT_READ, name)
        worker.is_watched = True
        self._load(worker)
        self._events.append((executors.STARTED, name))

    def _load(self, worker: _Worker) -> None:
        self._transmit(worker, (messages.LOAD, self.parcel.message()), self.parcel.descriptors)

    def _transmit(self, worker: _Worker, message: tuple[Any, ...], files: list[int]) -> None:
        with contextlib.suppress(OSError):  # it has died: we shall be told
            worker.channel.send(message, files)

    # -- the engine's orders

    def update(self, parcel: Any) -> None:
        self.parcel = parcel
        for worker in self._workers.values():
            self._load(worker)

    def ship(self, item: Any) -> Any:
        pickled = replica.Pickled(item, "the item")
        return replica.Parcel(pickled) if len(pickled.pickle) > SMALL_NBYTES or pickled.buffers else pickled.pickle

    def send(self, worker: int, rows: list[Row]) -> None:
        process = self._workers[worker]
        files: list[int] = []
        plain: list[tuple[Any, ...]] = []
        for row in rows:
            if isinstance(row.payload, replica.Parcel):
                files += row.payload.descriptors  # one: nothing of it was placed before
                plain.append((*row[:4], row.payload.message()))
            else:
                plain.append(tuple(row))
        self._transmit(process, (messages.JOBS, plain, process.reader.take_freed()), files)

    def cancel(self, worker: int, serial: int) -> None:
        if worker in self._workers:
            self._workers[worker].board.cancel(serial)

    def look(self, worker: int) -> tuple[int, int]:
        return self._workers[worker].board.look()

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; closed: it needs no waking
            os.write(self._wake_in, b"x")

    def kill(self, worker: int, why: str, stack: str) -> bool:
        if worker in self._workers:
            self._workers[worker].killed_for = why
            self._workers[worker].stack = stack
            self._signal(worker, signal.SIGKILL)
        return True

    def ask_stack(self, worker: int) -> None:
        self._signal(worker, STACK_SIGNAL)

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        process = self._workers[worker]
        return process.board.take_text(), process.pid

    def _signal(self, worker: int, number: int) -> None:
        with contextlib.suppress(OSError):
            self._server.send((messages.SIGNAL, worker, int(number)))

    def read(self, value: tuple[SlotReader, tuple[Any, ...]]) -> Any:
        reader, row = value
        return reader.read(*row[2:7])

    def skip(self, value: tuple[SlotReader, tuple[Any, ...]]) -> None:
        reader, row = value
        reader.skip(row[3])

    # -- what comes back

    def poll(self, timeout_s: float | None) -> list[tuple[Any, ...]]:
        if not self._events:
            self._watch_unsent()
            for key, ready in self._selector.select(timeout_s):
                if key.data == "wake":
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_out, 4096)
                elif key.data == "server":
                    self._from_server()
                elif key.data in self._workers:  # else it died in this very round
                    if ready & selectors.EVENT_WRITE:
                        with contextlib.suppress(OSError):
                            self._workers[key.data].channel.flush()
                    self._from_worker(key.data)
        events, self._events = self._events, []
        return events

    def _watch_unsent(self) -> None:
        """Wait for sockets to take what they did not take at once; hardly ever anything."""
        for name, worker in self._workers.items():
            if worker.is_watched:
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.channel.has_unsent else 0)
                if self._selector.get_key(worker.channel).events != wanted:
                    self._selector.modify(worker.channel, wanted, name)
        if self._server.has_unsent:
            with contextlib.suppress(OSError):
                self._server.flush()

    def _from_server(self) -> None:
        try:
            received = self._server.receive()
        except EOFError:
            self._server_died()
            return
        for message, _ in received:
            if message[0] == messages.FORKED and message[1] in self._workers:
                self._workers[message[1]].pid = message[2]
                self._workers[message[1]].theirs.close()
            elif message[0] == messages.EXITED:
                self._exited(message[1], describe_status(message[2]), message[3])

    def _from_worker(self, name: int) -> bool:
        """Read what is there. False: there will be no more."""
        worker = self._workers[name]
        try:
            received = worker.channel.receive()
        except EOFError:
            if worker.is_watched:
                self._selector.unregister(worker.channel)
                worker.is_watched = False
                # It is of no use any more, even if it is only its socket that is gone.
                self._signal(name, signal.SIGKILL)
            return False
        for message, files in received:
            if message[0] == messages.RESULTS:
                self._results(name, worker, message, files)
            elif message[0] == messages.READY:
                self._ready(name, worker, message[1])
        return bool(received)

    def _results(self, name: int, worker: _Worker, message: tuple[Any, ...], files: list[int]) -> None:
        _, slots, gone, layouts, rows = message
        reader = worker.reader
        reader.learn(slots, gone, layouts, files)
        for row in rows:
            if row[1] == messages.DONE:
                self._events.append((executors.DONE, name, row[0], (reader, row), row[7], row[5]))
            else:
                self._events.append((executors.FAILED, name, row[0], row[2], row[3]))

    def _ready(self, name: int, worker: _Worker, failure: RemoteFailure | None) -> None:
        if failure is not None:
            error = unpack(failure, "a worker, while it loaded the Sequence")
            self._events.append((executors.FATAL, error))
            return
        self._failed_starts = 0
        worker.is_ready = True
        self._events.append((executors.READY, name))

    def _exited(self, name: int, how: str, max_rss: int) -> None:
        worker = self._workers.get(name)
        if worker is None:
            return
        while self._from_worker(name):  # what it had sent before it died
            pass
        serial, _ = worker.board.look()
        death = Death(worker.killed_for or how, worker.pid, max_rss, worker.stack or worker.board.take_text())
        if worker.is_watched:
            self._selector.unregister(worker.channel)
        worker.close()
        del self._workers[name]
        self._events.append((executors.DIED, name, serial, death))
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS * self._nb_workers:
                self._events.append((executors.FATAL, _start_error(self._failed_starts, death)))
                return
        self._start_worker(worker.number)

    def _server_died(self) -> None:
        """All workers die with the server. Start anew."""
        self._selector.unregister(self._server.socket)
        self._server.close()
        status = self._process.wait()
        self._failed_starts += not any(worker.is_ready for worker in self._workers.values())
        if self._failed_starts >= _MAX_FAILED_STARTS * self._nb_workers:
            how = f"its server ended with status {status}"
            self._events.append((executors.FATAL, _start_error(self._failed_starts, Death(how, None, 0, ""))))
            return
        self._start_server()
        for name in list(self._workers):
            self._workers[name].is_ready = True  # not counted as a failed start of its own
            self._exited(name, "killed with its server", 0)

    def close(self) -> None:
        self._stop_workers()
        with contextlib.suppress(OSError):  # gone already; else it is told, though forks of ours hold the socket too
            self._server.socket.shutdown(socket.SHUT_RDWR)
        self._server.close()  # it kills what is left
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._selector.close()
        # First forgotten: the number may soon be that of a file of the user's.
        wake_in, self._wake_in = self._wake_in, -1
        os.close(wake_in)
        os.close(self._wake_out)
        for piece in self.parcel.pieces if hasattr(self, "parcel") else []:
            piece.close()

    def _stop_workers(self) -> None:
        """Let workers that are in no job end by themselves."""
        waiting = set()
        for name, worker in self._workers.items():
            worker.board.cancel(2**62)
            self._transmit(worker, (messages.STOP,), [])
            if worker.is_ready:
                waiting.add(name)
        deadline = time.monotonic() + _GRACE_S
        while waiting and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                try:
                    if key.data == "server":
                        for message, _ in self._server.receive():
                            if message[0] == messages.EXITED:
                                waiting.discard(message[1])
                    elif key.data == "wake":
                        os.read(self._wake_out, 4096)
                    else:
                        for _, files in self._workers[key.data].channel.receive():
                            for file in files:
                                os.close(file)
                except BlockingIOError:
                    pass
                except EOFError:
                    if key.data == "server":
                        return
                    self._selector.unregister(key.fileobj)


def _start_error(times: int, death: Death) -> WorkerStartError:
    error = WorkerStartError(
        f"{times} workers in a row ended before they could take a job, the last one {death.how}. The likely causes: "
        "memory is short, or an import of the Sequence's module ends or crashes the process."
    )
    if death.text:
        add_note(error, death.text)
    return error


def _launch(theirs: socket.socket) -> subprocess.Popen[bytes]:
    if not sys.executable:
        raise PlatformError('sys.executable is not set: use nb_workers=0 or executor="thread" here')
    here = str(Path(__file__).resolve().parents[2])  # where the package workers lies
    path = sys.path if here in sys.path else [*sys.path, here]
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        environment.setdefault(name, "1")  # each worker is one thread; the user's own choice stands
    # The order of a set of strings is then the same in every run.
    environment.setdefault("PYTHONHASHSEED", "0")
    code = _SERVER.format(path=path, descriptor=theirs.fileno(), consumer=os.getpid())
    return subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=[theirs.fileno()],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is the consumer's to handle
    )
