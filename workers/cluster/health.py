"""Who does not answer any more: the head of the cluster, or actors whose node is stopped.

Ray takes a minute to give up a node that is stopped: a machine that is frozen, a cable that is out. Here each actor of
which something is wanted is asked now and then, in a thread beside that of its jobs. A job that holds the interpreter's
lock keeps that thread from answering too. So a task that needs nothing is started on the node of an actor that is
silent. If that does not come back either, the node is lost.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from .head import LOOK_S, Head
from .member import ActorHandle

_HEAD_S = 25.0  # without an answer of the head; Ray itself ends the program after 60 s
_ASK, _PROBE = 0.2, 0.4  # after these parts of the bound: the actor is asked, the task is started


def _answer() -> None:
    """What a node has to do to be heard."""


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

    def look_s(self, members: Mapping[int, ActorHandle]) -> float:
        """For how long to wait until the next look, at most."""
        return min(LOOK_S, self._bound_s / 10) if any(member.num_calls for member in members.values()) else LOOK_S

    def has_waited(self, seconds: float) -> None:
        """The program was to wait for at most so long."""
        looked_s = time.monotonic()
        self._now_s += min(looked_s - self._looked_s, seconds + 1.0)
        self._looked_s = looked_s

    def called(self, member: ActorHandle) -> None:
        """It is to answer."""
        if member.num_calls == 0:
            member.heard_s = self._now_s
        member.num_calls += 1

    def answered(self, member: ActorHandle) -> None:
        """It has."""
        member.num_calls -= 1
        member.is_asked, member.heard_s = False, self._now_s

    # -- who is silent

    def of_head(self) -> str | None:
        """What is wrong with the head."""
        if self._head.silent_s <= _HEAD_S:
            return None
        return f"the head of the Ray cluster has not answered for {self._head.silent_s:.0f} s"

    def of_nodes(
        self, members: Mapping[int, ActorHandle], ask: Callable[[int, ActorHandle], None]
    ) -> list[tuple[int, str]]:
        """The actors that are lost with their nodes, and why. ``ask(name, member)`` asks one whether it is there."""
        lost = []
        for name, member in members.items():
            if not (member.num_calls and member.node):
                continue
            silent_s = self._now_s - max(member.heard_s, self._heard_s.get(member.node, 0.0))
            if silent_s > self._bound_s:
                lost.append((name, f"node {member.node[:8]} has not answered for {self._bound_s:g} s"))
            elif silent_s > self._bound_s * _PROBE:
                self._probe(member.node)
            elif silent_s > self._bound_s * _ASK and not member.is_asked:
                member.is_asked = True
                ask(name, member)
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
