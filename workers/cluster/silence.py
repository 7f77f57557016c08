"""Actors that do not answer: whether their node is stopped, or a job keeps them from it.

Ray takes a minute to give up a node that is stopped: a machine that is frozen, a cable that is out. Here each actor of
which something is wanted is asked now and then, in a thread beside that of its jobs. A job that holds the interpreter's
lock keeps that thread from answering too. So a task that needs nothing is started on the node of an actor that is
silent. If that does not come back either, the node is lost.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from .head import Awake
from .member import Member

_ASK, _PROBE = 0.2, 0.4  # after these parts of the bound: the actor is asked, the task is started


def _answer() -> None:
    """What a node has to do to be heard."""


class Silence:
    """``bound_s``: after so long a node is lost."""

    def __init__(self, ray: Any, bound_s: float, awake: Awake) -> None:
        self.bound_s = bound_s
        self._awake = awake
        self._heard_s: dict[str, float] = {}  # {node: when a task came back from there}
        self._probes: dict[str, Any] = {}  # {node: what was started there, and has not come back}
        self._ray = ray
        self._task = ray.remote(num_cpus=0, max_retries=0)(_answer)

    @property
    def look_s(self) -> float:
        """How often to look."""
        return self.bound_s / 10

    def look(self, members: Mapping[int, Member], ask: Callable[[int, Member], None]) -> list[int]:
        """The actors that are lost with their nodes. ``ask(name, member)`` asks an actor whether it is there."""
        lost = []
        for name, member in members.items():
            if not (member.num_calls and member.node):
                continue
            silent_s = self._awake.now_s - max(member.heard_s, self._heard_s.get(member.node, 0.0))
            if silent_s > self.bound_s:
                lost.append(name)
            elif silent_s > self.bound_s * _PROBE:
                self._probe(member.node)
            elif silent_s > self.bound_s * _ASK and not member.is_asked:
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
                self._heard_s[node] = self._awake.now_s

        reference.future().add_done_callback(came_back)
