"""Whether the head of the cluster is there, and how long it has been silent."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from . import connection

logger = logging.getLogger("workers")

LOOK_S = 5.0  # between two questions to it


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
