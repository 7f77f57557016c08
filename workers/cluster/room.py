"""Whether the cluster has room for workers."""

from __future__ import annotations

import logging
import time
from typing import Any

logger = logging.getLogger("workers")

_ROOM_S = 30.0  # without any worker, until it is told


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
