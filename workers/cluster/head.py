"""Whether the head of the cluster is there, and how long it has been silent."""

from __future__ import annotations

import logging
import threading
import time

from . import connection

logger = logging.getLogger("workers")

LOOK_S = 5.0  # between two questions to it


class Awake:
    """The time that has passed for this program: neither while it was stopped, nor while one of its threads held all
    others back, and so could not hear anybody."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._looked_s = time.monotonic()

    def has_waited(self, seconds: float) -> None:
        """It was to wait for at most so long."""
        looked_s = time.monotonic()
        self.now_s += min(looked_s - self._looked_s, seconds + 1.0)
        self._looked_s = looked_s


class Head:
    """Asks the head of the cluster, in a thread of its own, whether it is there: who asks may wait for ever."""

    def __init__(self, awake: Awake) -> None:
        self._awake = awake
        self._answered_s = awake.now_s
        self._is_over = threading.Event()
        threading.Thread(target=self._ask, name="prefetch-ray-head", daemon=True).start()

    @property
    def silent_s(self) -> float:
        """For how long it has not answered."""
        return self._awake.now_s - self._answered_s

    def _ask(self) -> None:
        while not self._is_over.wait(LOOK_S):
            try:
                connection.ask()
            except Exception as error:  # Ray raises what it likes
                logger.debug("the head of the Ray cluster: %s", error)
            else:
                self._answered_s = self._awake.now_s

    def close(self) -> None:
        self._is_over.set()
