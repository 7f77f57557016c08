"""Decides when to try again to start workers that could not be started for lack of processes, memory or descriptors.

Meanwhile the pool goes on with the workers it has. Retries are rare, and start one worker at a time. If a retry
succeeds, the next missing worker is retried immediately.
"""

from __future__ import annotations

import time

_MAX_WAIT_S = 60.0
_FIRST_WAIT_S = 1.0
_WAIT_ALONE_S = 0.25  # while there is no worker at all
_MAX_TRIES_ALONE = 3


class ForkShortage:
    """The workers that a pool is missing because they could not be started, and the time of the next attempt.

    Runs in: the engine's thread.
    """

    def __init__(self) -> None:
        self._missing: list[int] = []  # numbers of the missing workers, e.g. [5, 6, 7]
        self._due_s: float | None = None  # when to retry; None until all attempts are answered
        self._wait_s = _FIRST_WAIT_S
        self._tries_alone = 0  # failed attempts in a row while there was no worker at all
        self._is_told = False

    @property
    def is_hopeless(self) -> bool:
        """True if three attempts in a row have failed while the pool had no worker at all."""
        return self._tries_alone >= _MAX_TRIES_ALONE

    def tell(self) -> bool:
        """Return True only on the first call since the pool was last complete, to report each shortage only once."""
        is_told, self._is_told = self._is_told, True
        return not is_told

    def lost(self, number: int) -> None:
        """Record that worker ``number`` is missing because it could not be started."""
        self._missing.append(number)
        self._due_s = None

    def answered(self, num_workers: int) -> None:
        """Schedule the next attempt, now that the server has answered all orders to fork.

        If the pool has no worker at all (``num_workers`` is 0), the next attempt follows after only 0.25 s.
        """
        if num_workers:
            self._tries_alone = 0
            self._due_s = time.monotonic() + self._wait_s
            self._wait_s = min(2 * self._wait_s, _MAX_WAIT_S)
        else:
            self._tries_alone += 1
            self._due_s = time.monotonic() + _WAIT_ALONE_S

    def forked(self) -> None:
        """Record that a worker was forked, so the next missing one can be retried immediately."""
        self._tries_alone = 0
        if self._missing:
            self._due_s = time.monotonic()
        elif self._is_told:
            self._is_told, self._wait_s = False, _FIRST_WAIT_S

    def forget(self) -> None:
        """Forget all missing workers, as the pool has ended all its workers or is about to start the missing ones."""
        self._missing.clear()
        self._due_s = None

    def keep_below(self, nb_workers: int) -> None:
        """Forget missing workers whose numbers are ``nb_workers`` or higher, as the pool has become smaller."""
        self._missing = [number for number in self._missing if number < nb_workers]

    def left_s(self, timeout_s: float | None) -> float | None:
        """Return how many seconds to wait: ``timeout_s``, or less if a retry is due sooner; None for no limit."""
        if self._due_s is None:
            return timeout_s
        left_s = max(0.0, self._due_s - time.monotonic())
        return left_s if timeout_s is None else min(left_s, timeout_s)

    def take(self) -> int | None:
        """Remove and return the number of the missing worker to retry now; None if no retry is due."""
        if not self._missing or self._due_s is None or time.monotonic() < self._due_s:
            return None
        self._due_s = None
        return self._missing.pop(0)
