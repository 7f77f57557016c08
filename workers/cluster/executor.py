"""Runs jobs on a Ray cluster: its actors are the workers, and its object store moves their parcels and batches.

An actor is an object in a process of its own, on any node (machine). A parcel is the pickled sequence.

::

    engine's thread                Ray                      an actor, on any node
      send    -- run.remote(rows) ------------------------>   Actor.run, one call at a time
      poll    <- SimpleQueue <- future <- object store <---   Answers, whose arrays the consumer maps

The pieces of a parcel are put into the object store once, and each node fetches them once. If an actor dies, alone or
with its node, its unanswered calls raise an exception, and other actors run their jobs again.
"""

from __future__ import annotations

import itertools
import logging
import queue
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Literal, TypeAlias

from workers.batch.tree import dumps, own
from workers.engine import explanations
from workers.engine.executor import (
    NO_LIMIT,
    Cancelled,
    Death,
    Detail,
    Died,
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
from workers.engine.remote_errors import RemoteFailure, unpack
from workers.engine.schedule import JobRow
from workers.errors import PlatformError
from workers.process import program_settings, replica
from workers.process.logs import Inlet
from workers.report.pool import PoolFigures

from . import connection
from .actor import Actor, ActorHandle, Answer, Told
from .connection import Store
from .health import Health, Room

logger = logging.getLogger("workers")

Call: TypeAlias = "list[int] | Literal['load', 'stack', 'node']"  # the kind of a call, or the numbers of its jobs

_CONTROL = "control"  # the concurrency group of calls that do not wait for jobs
_MAX_FAILED_STARTS = 3  # for each worker, without a successful start in between


class RayExecutor:
    """The executor whose workers are ``nb_workers`` Ray actors, each with its own copy of the parcel's sequence.

    ``options`` are the user's ``executor_options``, already checked.
    """

    def __init__(
        self, nb_workers: int, make_parcel: Callable[[], replica.Parcel], options: dict[str, Any], figures: PoolFigures
    ) -> None:
        self.figures = figures
        self._ray = connection.connect(options.get("address"))
        needs = connection.actor_options(options)
        self._make = self._ray.remote(concurrency_groups={_CONTROL: 1})(Actor).options(**needs)
        self._room = Room(needs)
        self._is_writable = bool(options.get("writable", False))
        self._queue: queue.SimpleQueue[tuple[int, Call, Future[Any]] | None] = queue.SimpleQueue()
        self._events: list[Event] = []
        self._nb_workers = nb_workers
        self._names = itertools.count()
        self._actors: dict[int, ActorHandle] = {}  # {name: actor}; names are never reused
        self._failed_starts = 0  # in a row
        self._program_settings = program_settings.collect()
        self._store = Store(self._ray.put)
        self.parcel: replica.Parcel | None = make_parcel()
        self._health = Health(self._ray, options.get("node_timeout", connection.NODE_TIMEOUT_S))
        self._inlet = Inlet()

    @property
    def may_add(self) -> int:
        return NO_LIMIT

    # -- the engine's orders

    def start(self) -> None:
        there = {actor.number for actor in self._actors.values()}
        for number in range(self._nb_workers):
            if number not in there:
                self._start(number)

    def _start(self, number: int) -> None:
        if number >= self._nb_workers:
            return
        name = next(self._names)
        actor = self._actors[name] = ActorHandle(number, self._make.remote(number))
        self.figures.started(number)
        self._load(name, actor)  # Started is reported only once it has room and has loaded
        self._ask(name, actor)

    def _load(self, name: int, actor: ActorHandle) -> None:
        assert self.parcel is not None
        pieces = [self._store.reference(piece) for piece in self.parcel.pieces]
        call = actor.handle.load.remote(self._store.replica, self.parcel.message(), self._program_settings, *pieces)
        self._follow(name, "load", call)

    def has_changed_in_place(self) -> bool:
        """Return True if shared arrays have changed in place, so that :meth:`update` must send them again."""
        return self._store.has_changed()

    def update(self, parcel: Any) -> None:
        self.parcel = parcel
        self._store.keep(parcel.pieces)
        for name, actor in self._actors.items():
            self._load(name, actor)

    def resize(self, nb_workers: int) -> None:
        self._nb_workers = nb_workers

    def dismiss(self, worker: int) -> None:
        actor = self._actors.pop(worker)
        self.figures.ended(actor.number)
        self._end(actor)

    def _end(self, actor: ActorHandle) -> None:
        try:
            self._ray.kill(actor.handle, no_restart=True)
        except Exception as error:  # the actor or the cluster is gone
            logger.debug("an actor could not be ended: %s", error)

    def ship(self, item: Any) -> Any:
        return dumps(item)

    def send(self, worker: int, rows: list[JobRow]) -> None:
        self._follow(worker, *self._actors[worker].run(self._store.replica, rows))

    def _ask(self, name: int, actor: ActorHandle) -> None:
        """Ask an actor for the id of its node (machine); the answer arrives in :meth:`poll`."""
        self._follow(name, "node", actor.handle.node.options(concurrency_group=_CONTROL).remote())

    def _follow(self, name: int, call: Call, reference: Any) -> None:
        arrived = self._queue
        self._health.called(self._actors[name])
        reference.future().add_done_callback(lambda future: arrived.put((name, call, future)))

    def trim(self, worker: int) -> None:
        self._events.append(Trimmed(worker, 0))  # Ray's store spills to disk what does not fit
        self.wake()

    def cancel(self, worker: int, sending: int, is_unwanted: bool = True) -> None:
        if worker in self._actors:  # not by ray.cancel, after which the actor waits for the cancelled call
            self._actors[worker].handle.cancel.options(concurrency_group=_CONTROL).remote(sending)

    def wake(self) -> None:
        self._queue.put(None)

    def number(self, worker: int) -> int:
        return self._actors[worker].number if worker in self._actors else -1

    def look(self, worker: int) -> tuple[int, int]:
        return self._actors[worker].look()

    def kill(self, worker: int, why: Stuck) -> bool:
        if worker in self._actors:
            self._actors[worker].stuck = why
            self._end(self._actors[worker])
        return True

    def ask_stack(self, worker: int) -> None:
        actor = self._actors[worker]
        actor.stack = ""
        self._follow(worker, "stack", actor.handle.stack.options(concurrency_group=_CONTROL).remote())

    def take_stack(self, worker: int) -> tuple[str, int | None]:
        return self._actors[worker].stack, None

    def read(self, value: Answer, sending: int) -> Any:
        """Return the batch in ``value``. Its arrays are read-only unless the option "writable" is set."""
        items = value.items(sending)
        return own(items) if self._is_writable else items

    def skip(self, value: Any) -> None:
        pass

    # -- what comes back

    def poll(self, timeout_s: float | None) -> list[Event]:
        look_s = self._health.look_s(self._actors)
        wait_s = 0.0 if self._events else look_s if timeout_s is None else min(look_s, timeout_s)
        try:
            arrived = self._queue.get(timeout=wait_s)
            while True:
                if arrived is not None:
                    self._answered(*arrived)
                del arrived
                arrived = self._queue.get_nowait()
        except queue.Empty:
            pass
        self._health.has_waited(wait_s)
        if self._ray.is_initialized():
            self._look_at_the_cluster()
        else:  # any call would start a new Ray cluster
            self._events = [Fatal(PlatformError("the program has left the Ray cluster: ray.shutdown() was called"))]
        events, self._events = self._events, []
        return events

    def _look_at_the_cluster(self) -> None:
        if text := self._health.of_head():
            self._events.append(Fatal(PlatformError(f"{text}; the remaining batches cannot be delivered")))
        for name, text in self._health.of_nodes(self._actors, self._ask):
            logger.warning("worker %d: %s; other workers take over its jobs", self.number(name), text)
            self._lost(name, self._actors[name], text, is_of_node=True)
        self._room.look(not self._actors or any(actor.is_ready for actor in self._actors.values()), self._ray)

    def _answered(self, name: int, call: Call, future: Future[Any]) -> None:
        actor = self._actors.get(name)
        if actor is None:  # it has been ended or has died
            return
        self._health.answered(actor)
        error = future.exception()
        exceptions = self._ray.exceptions
        if isinstance(error, exceptions.RayTaskError):  # not a job's, which its Answer holds; perhaps a full store
            error = error.cause or error
        elif isinstance(error, exceptions.RayError):
            self._lost(name, actor, _detail(str(error)), is_of_node="its node" in str(error))
            return
        if call == "stack" or call == "node":  # not `in`, for the type checker
            setattr(actor, call, "" if error else future.result())
            return
        told = Told(error, []) if error else future.result()
        for logged in told.logged:
            self._inlet.put(logged)
        if call == "load":
            self._loaded(name, actor, told.value)
        else:
            actor.since_ns = time.monotonic_ns()
            actor.bundles.popleft()
            answers = [error] * len(call) if error else told.value
            times_ns = [answer.job_ns if isinstance(answer, Answer) else 0 for answer in answers]
            self.figures.finished(actor.number, [ns for ns in times_ns if ns])
            self.figures.used(told.cores, sum(times_ns))
            # As the clocks of machines differ, the jobs are taken to have run one after the other until now.
            start_ns = actor.since_ns - sum(times_ns)
            for sending, answer, job_ns in zip(call, answers, times_ns, strict=True):
                actor.sent_ns.pop(sending, None)
                self._events += _events(name, actor.number, sending, answer, start_ns)
                start_ns += job_ns

    def _loaded(self, name: int, actor: ActorHandle, failure: RemoteFailure | BaseException | None) -> None:
        if failure is not None:
            if isinstance(failure, RemoteFailure):
                failure = unpack(failure, "a worker, while it loaded the Sequence")
            self._events.append(Fatal(failure))
            return
        self._failed_starts = 0
        self._events += [WorkerReady(name)] if actor.is_ready else [Started(name), WorkerReady(name)]
        actor.is_ready, actor.since_ns = True, time.monotonic_ns()
        self.figures.ready(actor.number)

    def _lost(self, name: int, actor: ActorHandle, text: str, is_of_node: bool) -> None:
        """Report that an actor died, or its node if ``is_of_node``, and start another actor. ``text`` says how."""
        how = "lost with its node" if is_of_node else "lost"
        # Exit code None, as for a lost server, blames no single job: the node was lost, or one of several jobs ran.
        is_certain = not is_of_node and (not actor.bundles or len(actor.bundles[0]) == 1)
        stack = text if actor.stuck is None else actor.stuck.stack
        death = Death(None, 1 if is_certain else None, actor.stuck, stack=stack, how=how)
        del self._actors[name]
        self._end(actor)
        self.figures.ended(actor.number, explanations.how(death))
        logger.debug("worker %d: %s", name, text)
        if actor.is_ready:
            self._events.append(Died(name, next(iter(actor.sent_ns), 0), death))
        elif not is_of_node:
            self._failed_starts += 1
            if self._failed_starts >= _MAX_FAILED_STARTS * self._nb_workers:
                self._events.append(Fatal(explanations.not_started(self._failed_starts, f"was lost ({text})", "")))
                return
        if self._ray.is_initialized():
            self._start(actor.number)

    # -- the end

    def end_idle(self) -> bool:
        if not any(actor.is_ready for actor in self._actors.values()):
            return False  # the actors wait for room in the cluster
        self._end_all()
        return True

    def _end_all(self) -> None:
        for actor in self._actors.values():
            self.figures.ended(actor.number)
            self._end(actor)
        self._actors.clear()

    def close(self) -> None:
        self._health.close()
        if self._ray.is_initialized():
            self._end_all()
        self._actors.clear()
        self._inlet.close()
        self._store.keep([])
        self.parcel = None


def _events(name: int, number: int, sending: int, answer: Answer | BaseException | None, start_ns: int) -> list[Event]:
    """Return the engine's events for an answered job: Done, Failed, or Cancelled if ``answer`` is None.
    Before Failed comes Yielded, if the job had made items before its error."""
    if answer is None:
        return [Cancelled(name, sending)]
    if isinstance(answer, BaseException):
        return [Failed(name, sending, answer, 0)]
    detail, before = Detail(number, start_ns, answer.stages), answer.before
    if not isinstance(answer.value, RemoteFailure):
        return [Done(name, sending, answer, answer.job_ns, answer.nbytes, detail)]
    failed = Failed(name, sending, answer.value, answer.job_ns, detail)
    if before is None:
        return [failed]
    return [Yielded(name, sending, answer._replace(value=before), before.nbytes), failed]


def _detail(text: str) -> str:
    """Return how an actor died, taken from the ``text`` of Ray's error, without Ray's advice."""
    found = re.search(r"Worker exit type: (\w+) Worker exit detail: ([^.]*\.[^.]*\.)", text)
    return f"Ray says: {found[1]}, {found[2]}" if found else f"Ray says: {text.splitlines()[0]}"
