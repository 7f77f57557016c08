"""What the server has been asked and has not answered yet, so that nobody waits for a server that is stopped.

A worker's death is told by its server, which reaps it. The end of file on the worker's own socket says so as well: if
the server does not tell within a bound, it is the server that something is wrong with.
"""

from __future__ import annotations

import time
from collections.abc import Callable

STOPPED_S = 5.0  # for a server that somebody has stopped (SIGSTOP)
SILENT_S = 30.0  # for one that runs and has done its imports, since its last message: a fork may take long


class Unanswered:
    """Runs in: the engine's thread."""

    def __init__(self) -> None:
        self._since_s: dict[tuple[str, int], float] = {}  # {(what, worker): when}, e.g. {("fork", 3): 81.2}
        self._heard_s = 0.0  # when the server last told something

    def __bool__(self) -> bool:
        return bool(self._since_s)

    def ask(self, what: str, worker: int) -> None:
        """The server owes an answer: that ``worker`` runs ("fork"), or has ended ("end")."""
        self._since_s.setdefault((what, worker), time.monotonic())

    def answer(self, *what: str, worker: int) -> None:
        """It has come, or is of no use any more."""
        for each in what:
            self._since_s.pop((each, worker), None)

    def heard(self) -> None:
        """The server has told something."""
        self._heard_s = time.monotonic()

    def forget(self) -> None:
        """Another server has taken its place."""
        self._since_s.clear()

    def left_s(self, timeout_s: float | None) -> float | None:
        """How long to wait at most, where it would be ``timeout_s`` otherwise."""
        if not self._since_s:
            return timeout_s
        return STOPPED_S if timeout_s is None else min(STOPPED_S, timeout_s)

    def overdue_s(self, is_stopped: Callable[[], bool], is_preloaded: bool) -> float | None:
        """For how long the server has owed an answer, if that is too long; None: it is not."""
        if not self._since_s:
            return None
        seconds = time.monotonic() - max(self._heard_s, min(self._since_s.values()))
        if seconds < STOPPED_S:
            return None
        is_overdue = (is_preloaded and seconds > SILENT_S) or is_stopped()
        return seconds if is_overdue else None
