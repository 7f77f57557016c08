"""Starts the worker processes of a pool, replaces those that have died, and ends those that are no longer needed."""

from __future__ import annotations

import itertools
import logging
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any

from workers import limits
from workers.engine import executor as events
from workers.engine import explanations
from workers.engine.executor import Event
from workers.report.pool import PoolFigures

from . import messages, replica, server_handle
from .fork_shortage import ForkShortage
from .item_slots import ItemSlots
from .program_settings import ProgramSettings
from .worker_handle import WorkerHandle

STOPPED_S = 5.0  # how long to wait for an answer from a server that is stopped (SIGSTOP)
SILENT_S = 30.0  # how long to wait for one that runs and has finished its imports, since a fork can be slow


class Unanswered:
    """The reports that the server (which forks the workers) still owes the pool. If one is overdue, the server hangs.

    The server must report each worker that it has forked, and each that has died. The pool also notices a death by an
    end of file on the worker's socket, and then awaits the server's report. Runs in: the engine's thread.
    """

    def __init__(self) -> None:
        self._since_s: dict[tuple[str, int], float] = {}  # {(report, worker): since when}, e.g. {("fork", 3): 81.2}
        self._heard_s = 0.0  # when the last message from the server came

    def __bool__(self) -> bool:
        return bool(self._since_s)

    def ask(self, what: str, worker: int) -> None:
        """Record that the server must report that ``worker`` was forked (``what``: "fork") or has ended ("end")."""
        self._since_s.setdefault((what, worker), time.monotonic())

    def answer(self, *what: str, worker: int) -> None:
        """Record that the reports ``what`` ("fork", "end") on ``worker`` have come, or are no longer needed."""
        for each in what:
            self._since_s.pop((each, worker), None)

    def heard(self) -> None:
        """Record that a message from the server has just come."""
        self._heard_s = time.monotonic()

    def forget(self) -> None:
        """Forget all reports that the server owes, since another server takes over."""
        self._since_s.clear()

    def left_s(self, timeout_s: float | None) -> float | None:
        """Return how many seconds to wait for messages: ``timeout_s``, or less if the server must be checked sooner.

        None stands for no limit.
        """
        if not self._since_s:
            return timeout_s
        return STOPPED_S if timeout_s is None else min(STOPPED_S, timeout_s)

    def overdue_s(self, is_stopped: Callable[[], bool], is_preloaded: bool) -> float | None:
        """Return for how many seconds the server has owed a report and sent nothing; None if that is not too long.

        Args:
            is_stopped: returns True if the server's process is suspended.
            is_preloaded: True if the server has finished its imports. Until then it may take any time, unless stopped.
        """
        if not self._since_s:
            return None
        seconds = time.monotonic() - max(self._heard_s, min(self._since_s.values()))
        if seconds < STOPPED_S:
            return None
        is_overdue = (is_preloaded and seconds > SILENT_S) or is_stopped()
        return seconds if is_overdue else None


logger = logging.getLogger("workers")

_MAX_FAILED_STARTS = 3  # per worker of the pool, without a successful start in between


class WorkerPool:
    """The worker processes of one front-end (a SequenceMap). Runs in: the engine's thread.

    Attributes:
        workers: {name: handle of a worker process}; a name is a number that is never used again.
        parcel: the sequence that the workers run jobs on, pickled in shared memory.
        replica: the number of the replicas (the workers' copies of the sequence) that new jobs run on.
        events: what has happened to the workers, for the engine.
    """

    def __init__(
        self,
        nb_workers: int,
        modules: frozenset[str],
        settings: ProgramSettings,
        item_slots: ItemSlots,
        selector: selectors.BaseSelector,
        figures: PoolFigures,
    ) -> None:
        self.workers: dict[int, WorkerHandle] = {}
        self.parcel: replica.Parcel | None = None
        self.replica = 0
        self.events: list[Event] = []
        self.shortage = ForkShortage()
        self.unanswered = Unanswered()
        self._nb_workers = nb_workers
        self._modules = modules
        self._settings = settings
        self._item_slots = item_slots
        self._selector = selector
        self._figures = figures
        self._names = itertools.count()
        self._failed_starts = 0  # in a row
        self.start_server()

    # -- starting

    def start_server(self) -> None:
        self.server = server_handle.connect(self._modules)
        self._selector.register(self.server.channel, selectors.EVENT_READ, "server")

    def start_all(self) -> None:
        """Start a process for each worker of the pool that has none."""
        self.shortage.forget()  # else a worker that could not be forked would be started twice
        there = {worker.number for worker in self.workers.values() if not worker.is_leaving}
        for number in range(self._nb_workers):
            if number not in there:
                self.start(number)

    def start(self, number: int) -> None:
        """Start a process for worker ``number``, unless the pool now has fewer workers."""
        if number >= self._nb_workers:
            return
        name = next(self._names)
        worker = WorkerHandle(name, number, self._item_slots)
        try:
            self.server.tell(*worker.order())
        except BaseException:
            worker.close()
            raise
        self.workers[name] = worker
        self.unanswered.ask("fork", name)
        if not self.server.channel.has_unsent:
            worker.theirs.close()
        self._selector.register(worker.channel, selectors.EVENT_READ, name)
        worker.is_watched = True
        assert self.parcel is not None
        worker.load(self.replica, self.parcel, self._settings)
        self._figures.started(number)
        self.events.append(events.Started(name))

    def start_again(self, number: int) -> None:
        """Start a replacement for worker ``number``. If no file descriptors are left for it, schedule a retry."""
        try:
            self.start(number)
        except OSError as error:
            reason = f"{error.strerror} (of {limits.descriptors()} descriptors, ulimit -n)"
            self._figures.ended(number, f"could not be started: {reason}")
            self._lack(number, reason)

    def update(self, parcel: Any) -> None:
        """Send all workers a new copy of the sequence (in ``parcel``), for all later jobs."""
        self.parcel = parcel
        self.replica += 1
        for worker in self.workers.values():
            if not worker.is_leaving:
                worker.load(self.replica, parcel, self._settings, parcel.changed)

    def resize(self, nb_workers: int) -> None:
        """Set the number of workers. Surplus ones stay until :meth:`dismiss`; :meth:`start_all` starts missing ones."""
        self._nb_workers = nb_workers
        self.shortage.keep_below(nb_workers)  # else the retry could be spent on a worker that is not wanted

    def dismiss(self, name: int) -> None:
        """Ask worker ``name``, which is idle and no longer needed, to exit."""
        worker = self.workers[name]
        worker.is_leaving = True
        self._figures.ended(worker.number)
        worker.stop()

    def send_signal(self, name: int, number: int) -> None:
        self.server.tell(messages.Signal(name, int(number)))
        if number == signal.SIGKILL:
            self.unanswered.ask("end", name)

    # -- events

    def look_after_server(self) -> None:
        """Kill the server if it has owed a report for too long. Its workers die too; a new server restarts them."""
        server = self.server
        seconds = self.unanswered.overdue_s(server.is_stopped, server.is_preloaded)
        if seconds is not None:
            logger.warning(
                "the server of the workers (process %d, its state is %r) has not answered for %.0f s: it and its "
                "workers are replaced",
                server.pid,
                server.state(),
                seconds,
            )
            self.unanswered.forget()
            server.kill()

    def left_s(self, timeout_s: float | None) -> float | None:
        """Return how many seconds to wait for messages: ``timeout_s``, or less if a check or a retry is due sooner.

        None stands for no limit.
        """
        return self.unanswered.left_s(self.shortage.left_s(timeout_s))

    def forked(self, message: messages.Forked) -> None:
        self.unanswered.answer("fork", worker=message.worker)
        if (worker := self.workers.get(message.worker)) is not None:
            worker.forked(message.pid)
            if not worker.is_leaving:
                self._figures.lanes[worker.number].pid = message.pid
            self.shortage.forked()

    def ready(self, worker: WorkerHandle) -> None:
        self._failed_starts = 0
        worker.is_ready = True
        if not worker.is_leaving:
            self._figures.ready(worker.number)
            self.events.append(events.WorkerReady(worker.name))

    def not_forked(self, message: messages.NotForked) -> None:
        """Handle the message that a worker could not be forked: go on with the others, and schedule a retry."""
        name, reason = message
        self.unanswered.answer("fork", worker=name)
        if name not in self.workers:
            return
        worker = self.remove(name)
        if worker.is_leaving:
            return
        self._figures.ended(worker.number, f"could not be started: {reason}")
        self.events.append(events.NotStarted(name))
        self._lack(worker.number, reason)

    def _lack(self, number: int, reason: str) -> None:
        """Schedule a retry for worker ``number``, which could not be started because of ``reason``.

        When no fork is pending any more, warn that workers are missing; or give up, if several attempts have failed in
        a row and the pool has no worker at all.
        """
        self.shortage.lost(number)
        if any(worker.pid is None for worker in self.workers.values()):
            return
        self.shortage.answered(len(self.workers))
        error = explanations.too_few_workers(self._nb_workers, len(self.workers), reason)
        if self.shortage.is_hopeless:
            self.events.append(events.Fatal(error))
        elif self.workers and self.shortage.tell():
            logger.warning("%s The pool goes on with these, and retries the others from time to time", error)

    def exited(self, name: int, exit_code: int | None, max_rss: int) -> None:
        """Report the death of worker ``name`` to the engine, and replace it. Its last messages must have been read."""
        worker = self.workers[name]
        running, _ = worker.page.look()
        death = worker.death(exit_code, max_rss, self.parcel.files if self.parcel else ())
        self.remove(name)
        if worker.is_leaving:
            return
        self._figures.ended(worker.number, explanations.how(death))
        self.events.append(events.Died(name, running, death))
        if not worker.is_ready:
            self._failed_starts += 1
            if self._is_hopeless:
                error = explanations.not_started(self._failed_starts, explanations.how(death), death.stack)
                self.events.append(events.Fatal(error))
                return
        self.start_again(worker.number)

    def server_died(self) -> bool:
        """Replace the server, which has died with all its workers. Return False if the pool cannot go on."""
        self._selector.unregister(self.server.channel)
        self.unanswered.forget()
        status = self.server.wait()
        self._failed_starts += not any(worker.is_ready for worker in self.workers.values())
        if self._is_hopeless:
            error = explanations.not_started(self._failed_starts, f"together with its server (exit code {status})", "")
            self.events.append(events.Fatal(error))
            return False
        try:
            self.start_server()
        except OSError as error:
            self.events.append(events.Fatal(explanations.too_few_workers(self._nb_workers, 0, str(error))))
            return False
        for worker in self.workers.values():
            worker.is_ready = True  # so that its death does not count as another failed start
        return True

    @property
    def _is_hopeless(self) -> bool:
        return self._failed_starts >= _MAX_FAILED_STARTS * self._nb_workers

    def remove(self, name: int) -> WorkerHandle:
        worker = self.workers.pop(name)
        self.unanswered.answer("fork", "end", worker=name)
        if worker.is_watched:
            self._selector.unregister(worker.channel)
        worker.close()
        return worker

    # -- the end

    def remove_all(self) -> None:
        """Kill and remove the workers that have not exited by themselves, for example because they are suspended."""
        for name in list(self.workers):
            self.send_signal(name, signal.SIGKILL)
            worker = self.remove(name)
            if not worker.is_leaving:
                self._figures.ended(worker.number)
        self.shortage.forget()

    def close(self) -> None:
        """End the pool: let the server kill the remaining workers, and release the pickled sequence."""
        self.server.close()
        for worker in self.workers.values():
            worker.close()
            if not worker.is_leaving:
                self._figures.ended(worker.number)
        self.workers.clear()
        self.parcel = None  # its memory is freed, unless others use it too
