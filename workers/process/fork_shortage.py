"""Workers that could not be forked, because no more processes are allowed: which they are, and when to try again.

The pool goes on with those there are. It tries again sparingly, with one worker: if that runs, so may the next.
"""

from __future__ import annotations

import time

_MAX_WAIT_S = 60.0
_FIRST_WAIT_S = 1.0
_WAIT_ALONE_S = 0.25  # while no worker is there at all
_MAX_TRIES_ALONE = 3


class ForkShortage:
    """Runs in: the engine's thread."""

    def __init__(self) -> None:
        self._missing: list[int] = []  # the numbers of the workers that are not there, e.g. [5, 6, 7]
        self._due_s: float | None = None  # when to try again; None: not before one is lost, or an answer has come
        self._wait_s = _FIRST_WAIT_S
        self._tries_alone = 0  # in a row
        self._is_told = False

    @property
    def is_hopeless(self) -> bool:
        """Whether not even one worker could be forked, again and again."""
        return self._tries_alone >= _MAX_TRIES_ALONE

    def tell(self) -> bool:
        """Whether it is to be told now: once, until all workers are there again."""
        is_told, self._is_told = self._is_told, True
        return not is_told

    def lost(self, number: int) -> None:
        """A worker could not be forked."""
        self._missing.append(number)
        self._due_s = None

    def answered(self, num_workers: int) -> None:
        """All attempts so far are answered, and so many workers are there."""
        if num_workers:
            self._tries_alone = 0
            self._due_s = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, _MAX_WAIT_S)
        else:
            self._tries_alone += 1
            self._due_s = time.monotonic() + _WAIT_ALONE_S

    def forked(self) -> None:
        """A worker was forked. So another one may be."""
        self._tries_alone = 0
        if self._missing:
            self._due_s = time.monotonic()
        elif self._is_told:
            self._is_told, self._wait_s = False, _FIRST_WAIT_S

    def forget(self) -> None:
        """All workers were ended. Those that are started later are tried as if for the first time."""
        self._missing.clear()
        self._due_s = None

    def left_s(self, timeout_s: float | None) -> float | None:
        """How long to wait at most, where it would be ``timeout_s`` otherwise."""
        if self._due_s is None:
            return timeout_s
        left_s = max(0.0, self._due_s - time.monotonic())
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def take(self) -> int | None:
        """The number of a worker to try again now."""
        if not self._missing or self._due_s is None or time.monotonic() < self._due_s:
            return None
        self._due_s = None
        return self._missing.pop(0)
