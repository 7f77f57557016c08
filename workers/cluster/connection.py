"""Connects to a Ray cluster, checks the user's options for it, counts its resources, and stores objects in it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import time
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from workers.checks import short
from workers.errors import PlatformError

OPTIONS = ("address", "resources", "placement", "writable", "node_timeout")
NODE_TIMEOUT_S = 10.0


def check_options(options: Any) -> dict[str, Any]:
    """Return a checked copy of ``executor_options``, the user's options for ``executor="ray"``.

    Raises:
        ImportError: Ray is not installed.
        TypeError, ValueError: an option is unknown, has the wrong type or is out of range.
    """
    if importlib.util.find_spec("ray") is None:
        raise ImportError('executor="ray" needs Ray: pip install "prefetch-sequence[ray]"')
    if not isinstance(options, dict):
        raise TypeError(f"executor_options must be a dict, not {short(options)}")
    for name in options:
        if name not in OPTIONS:
            raise ValueError(
                f"executor_options has an unknown key {name!r}; its keys may be {', '.join(map(repr, OPTIONS))}"
            )
    address, resources = options.get("address"), options.get("resources", {})
    if address is not None and not isinstance(address, str):
        raise TypeError(f"executor_options['address'] must be a string, not {short(address)}")
    if not isinstance(resources, dict) or not all(
        isinstance(name, str) and isinstance(amount, (int, float)) and amount >= 0 for name, amount in resources.items()
    ):
        raise TypeError(
            f"executor_options['resources'] must be a dict such as {{'CPU': 1, 'memory': 1e9}}, not {short(resources)}"
        )
    if isinstance(placement := options.get("placement", "spread"), str) and placement not in ("spread", "pack"):
        raise ValueError(
            "executor_options['placement'] must be 'spread', 'pack', a placement group or one of Ray's scheduling "
            f"strategies, not {placement!r}"
        )
    if not isinstance(options.get("writable", False), bool):
        raise TypeError(f"executor_options['writable'] must be True or False, not {short(options['writable'])}")
    bound_s = options.get("node_timeout", NODE_TIMEOUT_S)
    if isinstance(bound_s, bool) or not isinstance(bound_s, (int, float)) or not bound_s > 0:
        raise ValueError(
            "executor_options['node_timeout'] must be a number of seconds above 0, or math.inf to leave it to Ray, not "
            f"{short(bound_s)}"
        )
    return dict(options)


def connect(address: str | None) -> Any:
    """Connect to a cluster, unless the program is already connected to one, and return the module ``ray``.

    Raises:
        PlatformError: no cluster can be reached at ``address``.
    """
    ray: Any = importlib.import_module("ray")
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=True, logging_level=logging.WARNING)
        except Exception as error:  # Ray may raise anything
            where = address or "any known address"
            raise PlatformError(f"no Ray cluster can be reached at {where}: {error}") from error
    return ray


def actor_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with which Ray starts a worker, made from the user's ``executor_options``."""
    resources = {"CPU": 1, **options.get("resources", {})}
    found: dict[str, Any] = {"num_cpus": resources.pop("CPU"), "num_gpus": resources.pop("GPU", 0)}
    if "memory" in resources:
        found["memory"] = resources.pop("memory")
    found["scheduling_strategy"] = _strategy(options.get("placement", "spread"))
    if resources:
        found["resources"] = resources
    return {**found, "max_restarts": 0, "max_task_retries": 0}


def _strategy(placement: Any) -> Any:
    """Return Ray's scheduling strategy for the user's option ``placement``."""
    if isinstance(placement, str):
        return {"spread": "SPREAD", "pack": "DEFAULT"}[placement]
    groups: Any = importlib.import_module("ray.util.placement_group")
    strategies: Any = importlib.import_module("ray.util.scheduling_strategies")
    if isinstance(placement, groups.PlacementGroup):
        return strategies.PlacementGroupSchedulingStrategy(placement)
    return placement


_KEPT_S = 5.0
_seen: list[tuple[float, dict[str, float]]] = []  # [(when, resources)] of the last request; [] before it


def _resources() -> dict[str, float]:
    """Return the total resources of the cluster, such as {"CPU": 64.0}; the answer may be up to 5 s old."""
    if not _seen or time.monotonic() - _seen[0][0] > _KEPT_S:
        _seen[:] = [(time.monotonic(), ask())]
    return _seen[0][1]


def ask() -> dict[str, float]:
    """Ask the head (main node) of the cluster for the cluster's total resources. Blocks: until the head answers."""
    ray: Any = importlib.import_module("ray")
    return dict(ray.cluster_resources())


def cores() -> int:
    """Return the number of CPU cores of the cluster, at least 1."""
    return max(1, int(_resources().get("CPU", 1)))


def room(options: dict[str, Any]) -> int:
    """Return how many workers with these ``executor_options`` fit into the whole cluster, at least 1."""
    there = _resources()
    needed = {"CPU": 1, **options.get("resources", {})}
    limits = [int(there.get(name, 0) / amount) for name, amount in needed.items() if amount]
    return max(1, min(limits, default=cores()))  # workers that need no resources: one per core


class Store:
    """The pieces of a parcel (pickled sequence) in Ray's object store, where the function ``put`` stores each one."""

    def __init__(self, put: Any) -> None:
        self._put = put
        self.replica = 0  # number of the current replica, which every job names
        self._stored: dict[int, tuple[Any, int, Any]] = {}  # {id of a piece: (piece, checksum, reference)}

    def reference(self, piece: Any) -> Any:
        """Return Ray's reference to ``piece``. Store it first if it is new or :meth:`has_changed` found it changed."""
        known = self._stored.get(id(piece))
        if known is None:
            content = np.frombuffer(piece.bytes, np.uint8)
            known = self._stored[id(piece)] = piece, zlib.crc32(piece.bytes), self._put(content)
        return known[2]

    def keep(self, pieces: Iterable[Any]) -> None:
        """Begin a new version of the sequence, made of ``pieces``: increase ``replica``, and release other pieces."""
        self.replica += 1
        kept = set(map(id, pieces))
        self._stored = {key: stored for key, stored in self._stored.items() if key in kept}

    def has_changed(self) -> bool:
        """Return True if pieces have changed in place since they were stored. Takes a second for some GB.

        Changed pieces are forgotten, so that :meth:`reference` stores them again.
        """
        changed = [key for key, (piece, then, _) in self._stored.items() if zlib.crc32(piece.bytes) != then]
        for key in changed:
            del self._stored[key]
        return bool(changed)
