"""One pass of a SequenceMap: what its engine was asked for, and what came of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from workers.batch.tree import as_numpy
from workers.engine.delivery import Failure
from workers.engine.engine import Engine
from workers.engine.handover import Outcome
from workers.engine.serial import SerialEngine
from workers.errors import PrefetchError, StateError, presentable
from workers.sequence.state import Place, Progress

_NEVER_AGAIN = 2**62  # runs: what was read from a stream cannot be repeated by a worker


class PassOver(Exception):
    """There are no more batches in this pass."""


class Item(NamedTuple):
    """What was read for batch ``index`` of a source that is read here."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    value: Any
    error: BaseException | None = None


class Items(Protocol):
    """Reads a source, an item at a time."""

    item: Item | None

    def read(self) -> bool:
        """Set ``item`` to the next one. False: there are no more."""


class StreamItems:
    """The batches of a stream that are left to a loop. What one of them raises is raised in its place."""

    item: Item | None = None

    def __init__(self, source: Any, epoch: int, left: list[int]) -> None:
        self._source, self._epoch, self._left = source, epoch, left
        self._number = 0  # how many of these were read

    def read(self) -> bool:
        if self._number == len(self._left):
            return False
        index = self._left[self._number]
        try:
            item = Item(index, as_numpy(self._source._computed(self._epoch, index)))
        except Exception as error:
            item = Item(index, None, presentable(error))
        self.item = item
        self._number += 1
        return True


class IteratorItems:
    """The items of a source that has only ``__iter__``, but for those that were delivered before."""

    item: Item | None = None

    def __init__(self, iterator: Iterator[Any], place: Place) -> None:
        self._iterator = iterator
        self._batch, self._apart, self._partial = place.batch, place.apart, place.partial
        self._index = 0  # of the next one
        self._read: deque[Any] = deque()  # that one, if it was read

    def read(self) -> bool:
        while True:
            if not self._read:
                try:
                    self._read.extend(map(next, [self._iterator]))  # in one step: a Ctrl-C loses nothing
                except Exception:
                    raise
                except BaseException:
                    if not self._read:
                        self._end = "reading the source was interrupted, and it does not go on: begin a new loop"
                    raise
                if not self._read:
                    if self._end:
                        raise PrefetchError(self._end)
                    return False
                self._end = ""
            index = self._index
            is_left = index >= self._batch and index not in self._apart
            if is_left or (self._partial and self._partial[0] == index):
                item = Item(index, as_numpy(self._read[0]))
                self.item, self._index = item, index + 1
                del self._read[0]
                return True
            self._index = index + 1
            del self._read[0]

    _end = ""


class Reading:
    """The consumer's end of a pass.

    Args:
        num_jobs: the jobs that the engine knows of.
        items: what more jobs are for.
    """

    def __init__(
        self, engine: Engine | SerialEngine, progress: Progress, place: Place, num_jobs: int, items: Items | None
    ) -> None:
        self.engine = engine
        self.progress = progress
        self.place = place  # what was delivered
        self.items: list[Any] = []  # of the outcome being delivered, the last one first
        self.is_collating = False  # the last of them was delivered, as far as a state goes
        self.is_deciding = False  # on_error is asked
        self._delivering = (-1, 0)  # (index, number of items) of that outcome
        self._number = 0  # outcomes delivered
        self._num_jobs = num_jobs
        self._num_dropped = 0  # outcomes of these that were delivered
        self._source = items
        self._unread: dict[int, Item] = {}  # {number: what could not be read}, which is no job
        self._error: Exception | None = None  # what ended the source

    @property
    def partial(self) -> tuple[int, int] | None:
        """(a batch, how many of its items were delivered), if not all of them were."""
        left = len(self.items) - self.is_collating
        if left <= 0:
            return self.place.partial
        if self.place.partial:
            raise StateError("two lists of a function are delivered in part: take the state behind the last item")
        index, number = self._delivering
        return index, number - left

    def next(self, timeout_s: float | None = None) -> Outcome:
        """The next outcome; the same again, until it is delivered.

        Raises:
            PassOver: there are no more. queue.Empty: ``timeout_s`` is over. What reading the source raised.
        """
        if self._source is not None:
            self.fill_queue()
        item = self._unread.get(self._number)
        if item is not None and item.error is not None:
            return Outcome(item.index, Failure(item.error, _NEVER_AGAIN), 0, 0)
        if self._num_dropped < self._num_jobs:
            return self.engine.peek(self._num_dropped, timeout_s)
        error, self._error = self._error, None
        if error is None:
            raise PassOver
        try:
            raise error
        finally:
            del error  # no cycle with this frame

    def fill_queue(self) -> None:
        """Read as many items as may be in work."""
        while (source := self._source) is not None and self._num_jobs - self._num_dropped < self.engine.bound():
            try:
                if source.item is None and not source.read():
                    self._source = None
                    return
                item = source.item
                assert item is not None
                if item.error is None:
                    self.engine.add(self._num_jobs, item.index, item.value)
            except Exception as error:  # raised in its place, behind the items that were read before it
                self._source, self._error = None, error
                return
            if item.error is not None:
                self._unread[self._number + self._num_jobs - self._num_dropped + len(self._unread)] = item
                source.item = None
                return
            self._num_jobs += 1
            source.item = None

    def deliver(self, outcome: Outcome, items: list[Any]) -> None:
        """Count ``outcome``, whose ``items`` the loop gets now."""
        place, progress, number = self.place, self.progress, self._number
        index = outcome[0]
        where, passed_by = place.behind(index)
        error = None
        if items and passed_by >= len(items):
            text = f"the state was taken behind item {passed_by} of batch {index}, which has {len(items)}"
            error, items = StateError(text), []
        is_begun = progress.is_begun or progress.is_of_now(place)
        left, delivering = items[passed_by:][::-1], (index, len(items))
        is_job = number not in self._unread
        dropped = self._num_dropped
        # Without a call in between: what a Ctrl-C has kept back is still to come.
        place.where, progress.is_begun = where, is_begun
        self.items, self._delivering = left, delivering
        self._number, self._num_dropped = number + 1, dropped + is_job
        if is_job:
            self.engine.drop(dropped)
        else:
            del self._unread[number]
        if error is not None:
            raise error
