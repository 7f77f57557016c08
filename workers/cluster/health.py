"""Detects when nodes of a Ray cluster, or its head (main node), stop answering, and when workers find no room in it.

Ray takes a minute to give up a node that has stopped, such as a frozen machine. This module is faster. If an actor does
not answer its calls for some time, it is sent a request, which its control thread can answer during a job. A job that
holds the interpreter's lock stops this thread, too. So an empty task is started on the actor's node next. If the task
does not return either, the node is lost.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from . import connection
from .actor import ActorHandle

_HEAD_S = 25.0  # without an answer from the head, after which it counts as lost; Ray ends the program after 60 s
_ASK, _PROBE = 0.2, 0.4  # shares of the bound after which the actor is asked, and the task is started


def _answer() -> None:
    """Do nothing. This is the empty task that a node runs to show that it still answers."""


logger = logging.getLogger("workers")

LOOK_S = 5.0  # between two requests to the head
_ROOM_S = 30.0  # without any worker, after which a warning is logged


class Health:
    """The record of which nodes of a Ray cluster answer. A node is lost after ``bound_s`` seconds of silence."""

    def __init__(self, ray: Any, bound_s: float) -> None:
        self._bound_s = bound_s
        self._now_s = 0.0  # see has_waited()
        self._looked_s = time.monotonic()
        self._head = Head(lambda: self._now_s)
        self._heard_s: dict[str, float] = {}  # {node: when a task last returned from it}
        self._probes: dict[str, Any] = {}  # {node: reference to the unfinished task on it}
        self._task = ray.remote(num_cpus=0, max_retries=0)(_answer)

    # -- time, without the periods in which this program could receive no answers, because it was stopped or one of its
    # -- threads blocked all others

    def look_s(self, actors: Mapping[int, ActorHandle]) -> float:
        """Return how many seconds the executor may wait before it checks the cluster again."""
        return min(LOOK_S, self._bound_s / 10) if any(actor.num_calls for actor in actors.values()) else LOOK_S

    def has_waited(self, seconds: float) -> None:
        """Advance this object's clock after a wait of at most ``seconds``. Longer pauses of the program don't count."""
        looked_s = time.monotonic()
        self._now_s += min(looked_s - self._looked_s, seconds + 1.0)
        self._looked_s = looked_s

    def called(self, actor: ActorHandle) -> None:
        """Record a call to ``actor`` that it has to answer."""
        if actor.num_calls == 0:
            actor.heard_s = self._now_s
        actor.num_calls += 1

    def answered(self, actor: ActorHandle) -> None:
        """Record that ``actor`` has answered a call."""
        actor.num_calls -= 1
        actor.is_asked, actor.heard_s = False, self._now_s

    # -- silence

    def of_head(self) -> str | None:
        """Return an error text if the head of the cluster has not answered for too long (25 s); else None."""
        if self._head.silent_s <= _HEAD_S:
            return None
        return f"the head of the Ray cluster has not answered for {self._head.silent_s:.0f} s"

    def of_nodes(
        self, actors: Mapping[int, ActorHandle], ask: Callable[[int, ActorHandle], None]
    ) -> list[tuple[int, str]]:
        """Return the actors that are lost with their nodes, as [(name, why)].

        Test actors that were silent for a shorter time: first by a request, ``ask(name, actor)``, then by a task on
        their nodes.
        """
        lost = []
        for name, actor in actors.items():
            if not (actor.num_calls and actor.node):
                continue
            silent_s = self._now_s - max(actor.heard_s, self._heard_s.get(actor.node, 0.0))
            if silent_s > self._bound_s:
                lost.append((name, f"node {actor.node[:8]} has not answered for {self._bound_s:g} s"))
            elif silent_s > self._bound_s * _PROBE:
                self._probe(actor.node)
            elif silent_s > self._bound_s * _ASK and not actor.is_asked:
                actor.is_asked = True
                ask(name, actor)
        return lost

    def _probe(self, node: str) -> None:
        if node in self._probes:
            return
        strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
        where = strategies.NodeAffinitySchedulingStrategy(node, soft=False)
        self._probes[node] = reference = self._task.options(scheduling_strategy=where).remote()

        def came_back(future: Future[Any]) -> None:
            self._probes.pop(node, None)
            if future.exception() is None:
                self._heard_s[node] = self._now_s

        reference.future().add_done_callback(came_back)

    def close(self) -> None:
        self._head.close()


class Head:
    """A thread that only checks whether the head of a Ray cluster answers, because such a request may never return."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._answered_s = now_s()
        self._is_over = threading.Event()
        threading.Thread(target=self._ask, name="prefetch-ray-head", daemon=True).start()

    @property
    def silent_s(self) -> float:
        """The number of seconds since the head of the cluster last answered."""
        return self._now_s() - self._answered_s

    def _ask(self) -> None:
        while not self._is_over.wait(LOOK_S):
            try:
                connection.ask()
            except Exception as error:  # Ray may raise anything
                logger.debug("the head of the Ray cluster: %s", error)
            else:
                self._answered_s = self._now_s()

    def close(self) -> None:
        self._is_over.set()


class Room:
    """The warning that a Ray cluster has no room for workers. It shows ``needs``, the resources of one worker."""

    def __init__(self, needs: dict[str, Any]) -> None:
        self._needs = needs
        self._since_s = time.monotonic()  # when there last was a worker, or the last warning

    def look(self, has_workers: bool, ray: Any) -> None:
        """Warn after half a minute without a worker. ``has_workers`` is True if a worker runs, or none is wanted."""
        if has_workers:
            self._since_s = time.monotonic()
        elif time.monotonic() - self._since_s > _ROOM_S:
            self._since_s = time.monotonic()
            logger.warning(
                "no worker could be started for %.0f s: the Ray cluster has %s left, and one worker needs %s. "
                "Workers are started when there is room",
                _ROOM_S,
                ray.available_resources(),
                self._needs,
            )
