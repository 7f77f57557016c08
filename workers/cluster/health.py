"""Who does not answer any more: the head of the cluster, or actors whose node is stopped; and whether there is room.

Ray takes a minute to give up a node that is stopped: a machine that is frozen, a cable that is out. Here each actor of
which something is wanted is asked now and then, in a thread beside that of its jobs. A job that holds the interpreter's
lock keeps that thread from answering too. So a task that needs nothing is started on the node of an actor that is
silent. If that does not come back either, the node is lost.
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

_HEAD_S = 25.0  # without an answer of the head; Ray itself ends the program after 60 s
_ASK, _PROBE = 0.2, 0.4  # after these parts of the bound: the actor is asked, the task is started


def _answer() -> None:
    """What a node has to do to be heard."""


logger = logging.getLogger("workers")

LOOK_S = 5.0  # between two questions to the head
_ROOM_S = 30.0  # without any worker, until it is told


class Health:
    """``bound_s``: a node that was silent for so long is lost."""

    def __init__(self, ray: Any, bound_s: float) -> None:
        self._bound_s = bound_s
        self._now_s = 0.0  # see has_waited()
        self._looked_s = time.monotonic()
        self._head = Head(lambda: self._now_s)
        self._heard_s: dict[str, float] = {}  # {node: when a task came back from there}
        self._probes: dict[str, Any] = {}  # {node: what was started there, and has not come back}
        self._task = ray.remote(num_cpus=0, max_retries=0)(_answer)

    # -- time: that which has passed for this program. While it was stopped, or one of its threads held all others back,
    # -- it could not hear anybody.

    def look_s(self, actors: Mapping[int, ActorHandle]) -> float:
        """For how long to wait until the next look, at most."""
        return min(LOOK_S, self._bound_s / 10) if any(actor.num_calls for actor in actors.values()) else LOOK_S

    def has_waited(self, seconds: float) -> None:
        """The program was to wait for at most so long."""
        looked_s = time.monotonic()
        self._now_s += min(looked_s - self._looked_s, seconds + 1.0)
        self._looked_s = looked_s

    def called(self, actor: ActorHandle) -> None:
        """It is to answer."""
        if actor.num_calls == 0:
            actor.heard_s = self._now_s
        actor.num_calls += 1

    def answered(self, actor: ActorHandle) -> None:
        """It has."""
        actor.num_calls -= 1
        actor.is_asked, actor.heard_s = False, self._now_s

    # -- who is silent

    def of_head(self) -> str | None:
        """What is wrong with the head."""
        if self._head.silent_s <= _HEAD_S:
            return None
        return f"the head of the Ray cluster has not answered for {self._head.silent_s:.0f} s"

    def of_nodes(
        self, actors: Mapping[int, ActorHandle], ask: Callable[[int, ActorHandle], None]
    ) -> list[tuple[int, str]]:
        """The actors that are lost with their nodes, and why. ``ask(name, actor)`` asks one whether it is there."""
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
    """Asks the head of the cluster, in a thread of its own, whether it is there: who asks may wait for ever."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._answered_s = now_s()
        self._is_over = threading.Event()
        threading.Thread(target=self._ask, name="prefetch-ray-head", daemon=True).start()

    @property
    def silent_s(self) -> float:
        """For how long it has not answered."""
        return self._now_s() - self._answered_s

    def _ask(self) -> None:
        while not self._is_over.wait(LOOK_S):
            try:
                connection.ask()
            except Exception as error:  # Ray raises what it likes
                logger.debug("the head of the Ray cluster: %s", error)
            else:
                self._answered_s = self._now_s()

    def close(self) -> None:
        self._is_over.set()


class Room:
    """``needs``: what Ray is to give an actor."""

    def __init__(self, needs: dict[str, Any]) -> None:
        self._needs = needs
        self._since_s = time.monotonic()  # when there last was a worker, or this was told

    def look(self, has_workers: bool, ray: Any) -> None:
        """Say it if there have been none for long."""
        if has_workers:
            self._since_s = time.monotonic()
        elif time.monotonic() - self._since_s > _ROOM_S:
            self._since_s = time.monotonic()
            logger.warning(
                "no worker could be started for %.0f s: the Ray cluster has %s left, and one worker needs %s. They are "
                "started when there is room",
                _ROOM_S,
                ray.available_resources(),
                self._needs,
            )
