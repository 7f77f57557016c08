"""One pass of a SequenceMap: what its engine was asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import StateError
from .layout import as_numpy
from .pool import Engine, Outcome, PassOver
from .resume import Place, Progress


class Reading:
    """The consumer's end of a pass.

    Args:
        num_left: the outcomes to come, but for those of ``iterator``.
        iterator: items of a source that is read here, each to be shipped as a job.
    """

    def __init__(
        self, engine: Engine, progress: Progress, place: Place, num_left: int, iterator: Iterator[Any] | None
    ) -> None:
        self.engine = engine
        self.progress = progress
        self.place = place  # what was delivered
        self.outcome: Outcome | None = None  # taken, and not yet delivered: a Ctrl-C came
        self.items: list[Any] = []  # of the outcome being delivered, the last one first
        self._delivering = (-1, 0)  # (index, number of items) of that
        self._num_left = num_left
        self._iterator = iterator
        self._error: Exception | None = None  # what that raised

    @property
    def partial(self) -> tuple[int, int] | None:
        """(a batch, how many of its items were delivered), if not all of them were."""
        index, number = self._delivering
        return (index, number - len(self.items)) if self.items else self.place.partial

    def next(self, timeout_s: float | None = None) -> Outcome:
        """The next outcome.

        Raises:
            PassOver: there are no more. queue.Empty: ``timeout_s`` is over. What reading the source raised.
        """
        if self._iterator is not None:
            self.fill_queue()
        if self._num_left:
            try:
                outcome = self.engine.next(timeout_s)
            except PassOver:
                self._num_left = 0
            else:
                self._num_left -= 1
                return outcome
        error, self._error = self._error, None
        raise PassOver if error is None else error

    def fill_queue(self) -> None:
        """Read as many items as may be in work."""
        while self._iterator is not None and self._num_left < self.engine.bound():
            try:
                self.engine.add(as_numpy(next(self._iterator)))
                self._num_left += 1
            except StopIteration:
                self._iterator = None
            except Exception as error:  # raised in its place, behind the items that were read before it
                self._iterator, self._error = None, error

    def deliver(self, outcome: Outcome, items: list[Any]) -> None:
        """Count ``outcome``, whose ``items`` the loop gets now."""
        index = outcome[0]
        passed_by = self.progress.passed(self.place, index)
        self._delivering = index, len(items)
        if items and passed_by >= len(items):
            self.outcome = None
            raise StateError(f"the state was taken behind item {passed_by} of batch {index}, which has {len(items)}")
        items = items[passed_by:][::-1]
        self.items, self.outcome = items, None


def left_of(source: Any, place: Place, order: list[int]) -> Iterator[Any]:
    """What was not delivered of a source that is read from its beginning; the indices are put into ``order``."""
    batch, apart, partial = place.batch, set(place.apart), place.partial  # as they are now
    for index, item in enumerate(source):
        if (partial and partial[0] == index) or (index >= batch and index not in apart):
            order.append(index)
            yield item
