"""Reads sources in the process of the loop, one item at a time; the items are then sent to the workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Order
from typing import Any, NamedTuple, Protocol

from workers.batch.tree import as_numpy, own
from workers.engine.handover import Outcome, ready
from workers.engine.protocols import OpenReading
from workers.engine.results import Failure, Portion
from workers.errors import PrefetchError, safe_to_raise
from workers.job import seeding
from workers.report.loop import LoopFigures
from workers.sequence.clock import Clock
from workers.sequence.grouping import Assembly
from workers.sequence.jobs import run_job
from workers.sequence.passes import Pass
from workers.sequence.position import Position

from .iterators import Iterators, source_of
from .tensor_items import packed

_TELL_NS = 5_000_000  # how long items are read before the workers are told of them
_NEVER_AGAIN = 2**62  # as a number of runs, it rules out a retry: a stream cannot be read again


class Item(NamedTuple):
    """The item read from a source for batch ``index``: its value, or the error that was raised while it was read."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    value: Any
    error: BaseException | None = None


class Source(Protocol):
    """The interface of readers, which read the items of a source one at a time."""

    item: Item | None

    def read(self) -> bool:
        """Read the next item of the source into the attribute ``item``. Return False if there are no more."""

    def run(self, function: Callable[[], Any]) -> Any:
        """Call ``function``, which reads items, with random generators seeded for reading, and return its result."""


class StreamSource:
    """A reader of the remaining batches of a stream: a source that has indices, but is read in order in this process.

    If reading a batch raises an error, the error is kept, and raised when the loop asks for this batch.
    """

    item: Item | None = None

    def __init__(self, source: Any, seed: int, epoch: int, left: Order[int], is_sent: bool) -> None:
        """Prepare to read the batches of ``source`` at the indices ``left``.

        ``is_sent`` is True if each batch is sent to another process, and so copied, before the next one is read.
        """
        self._source, self._seed, self._epoch, self._left = source, seed, epoch, left
        self._is_sent = is_sent
        self._number = 0  # how many of ``left`` were read

    def run(self, function: Callable[[], Any]) -> Any:
        return function()  # nothing to seed here: read() runs each batch as a job

    def read(self) -> bool:
        if self._number == len(self._left):
            return False
        index, source = self._left[self._number], self._source
        try:
            batch = run_job(source, index, lambda: source[index], self._epoch, self._seed, self._is_sent)
            item = Item(index, as_numpy(batch))
        except Exception as error:
            item = Item(index, None, safe_to_raise(error))
        self.item = item
        self._number += 1
        return True


class IteratorSource:
    """A reader of a source that has only ``__iter__``. It skips items of the epoch that were already delivered."""

    item: Item | None = None

    def __init__(
        self,
        source: Any,
        iterators: Iterators,
        position: Position,
        epoch: int,
        seed: int,
        keeps_tensors: bool,
        copies: bool = False,
    ) -> None:
        self._reading = seeding.SourceReading(seed, epoch, source_of(source))
        self._batch, self._partial, _ = position.delivered
        self._apart = position.apart
        first = self._batch if self._partial is None else min(self._batch, self._partial[0])
        self._iterator, self._index = self.run(lambda: iterators.begin(source, epoch, seed, first))  # of the next item
        self._iterators, self._epoch = iterators, epoch
        pack: Callable[[Any], Any] = packed if keeps_tensors else as_numpy
        self._packed: Callable[[Any], Any] = (lambda item: own(pack(item))) if copies else pack
        self._read: deque[Any] = deque()  # the next item, if it was already read

    def run(self, function: Callable[[], Any]) -> Any:
        return self._reading.run(function)

    def read(self) -> bool:
        while True:
            if not self._read:
                try:
                    self._read.extend(map(next, [self._iterator]))  # in one step: a Ctrl-C loses nothing
                except Exception:
                    self._iterators.failed()
                    raise
                except BaseException:
                    if not self._read:
                        self._end = "reading the source was interrupted, and it yields no more: begin a new loop"
                    raise
                if not self._read:
                    if self._end:
                        raise PrefetchError(self._end)
                    self._iterators.end(self._index)
                    return False
                self._end = ""
                self._iterators.read(self._index + 1, self._epoch)
            index = self._index
            is_left = index >= self._batch and index not in self._apart
            if is_left or (self._partial and self._partial[0] == index):
                item = Item(index, self._packed(self._read[0]))
                self.item, self._index = item, index + 1
                del self._read[0]
                return True
            self._index = index + 1
            del self._read[0]

    _end = ""


class FedPass(Pass):
    """A pass (one run of the loop over an epoch) whose jobs get their input from a source read in this process.

    Items are read as needed, so their number is not known in advance. The index of a job is its place (number) in the
    epoch's order.
    """

    def __init__(
        self,
        reading: OpenReading,
        clock: Clock,
        position: Position,
        source: Source,
        assembly: Assembly | None = None,
        figures: LoopFigures | None = None,
    ) -> None:
        super().__init__(reading, clock, position, assembly=assembly)
        self._figures = figures or LoopFigures()
        self._fed = reading
        self._source: Source | None = source  # None: it has ended
        self._num_added = 0  # jobs given to the engine
        self._num_unread = 0  # items that could not be read, so that they have no jobs
        self._unread: dict[int, Item] = {}  # {number of an outcome: the unread item}, e.g. {41: Item(41, None, error)}
        self._error: Exception | None = None  # the error that ended the source

    def outcome(self, timeout_s: float | None = None) -> Outcome | None:
        """Return the next outcome, or the next portion of it, the same one until it is taken; None after the last.

        Raises:
            queue.Empty: none came within ``timeout_s``. ClosedError. Any error of the engine, or of reading the source.
        """
        if self._source is not None and self._is_worth_filling():
            self.fill_queue()
        item = self._unread.get(self.num_taken)
        if item is not None and item.error is not None:
            return Outcome(item.index, Failure(item.error, _NEVER_AGAIN), 0, 0)
        if self.num_jobs_taken < self._num_added:
            return self.reading.peek(self.num_jobs_taken, timeout_s, self.num_items_taken)
        error, self._error = self._error, None
        if error is None:
            return None
        try:
            raise error
        finally:
            del error  # no reference cycle with this frame

    def _outcome_that_is_there(self) -> Outcome | None:
        if self.num_taken in self._unread or self.num_jobs_taken >= self._num_added:
            return None
        return ready(self.reading.outcomes, self.num_jobs_taken, self.num_items_taken)

    def is_at_end(self) -> bool:
        """Return True if all items of the source were delivered. To find out, this may read the next job's item."""
        source = self._source
        if self.ready or self.num_jobs_taken < self._num_added or self._unread or self._error is not None:
            return False
        if source is not None and source.item is None:
            try:
                if source.run(source.read):
                    return False
                self._source = None
            except Exception as error:
                self._source, self._error = None, error
        return self._source is None and self._error is None

    def fill_queue(self) -> None:
        """Read items of the source, and give the workers a job for each, until they have the allowed number of jobs."""
        source = self._source
        try:
            if source is not None and self._num_added - self.num_jobs_taken < self.reading.engine.bound():
                start_ns = time.monotonic_ns()
                source.run(self._fill)
                self._figures.reading_ns += time.monotonic_ns() - start_ns
        finally:
            self._fed.added()

    def _is_worth_filling(self) -> bool:
        """Return True if the jobs ahead of the loop are at most 3/4 of the allowed number, or at most one.

        Several items are read at a time, because waking the engine for each item would take longer than reading it.
        """
        num_ahead = self._num_added - self.num_jobs_taken
        return num_ahead <= 1 or 4 * num_ahead <= 3 * self.reading.engine.bound()

    def _fill(self) -> None:
        told_ns = time.monotonic_ns()
        while (
            source := self._source
        ) is not None and self._num_added - self.num_jobs_taken < self.reading.engine.bound():
            try:
                if source.item is None and not source.read():
                    self._source = None
                    return
                item = source.item
                assert item is not None
                if item.error is None:
                    self._fed.add(self._num_added, item.index, item.value)
            except Exception as error:  # raised later, after the outcomes of earlier items
                self._source, self._error = None, error
                return
            if item.error is not None:
                self._unread[self._num_added + self._num_unread] = item
                self._num_unread += 1
                source.item = None
                return
            self._num_added += 1
            source.item = None
            if time.monotonic_ns() - told_ns > _TELL_NS:  # reading is slow: let the workers begin, and the loop go on
                self._fed.added()
                if self._outcome_that_is_there() is not None:
                    return
                told_ns = time.monotonic_ns()

    def take(self, outcome: Outcome, items: list[Any] | None) -> None:
        """Make the ``items`` of ``outcome`` ready for delivery. None stands for an error, which the caller raises."""
        number, job = self.num_taken, self.num_jobs_taken
        is_job = number not in self._unread
        self._commit(outcome, outcome.index, items, is_job)
        if not is_job:
            self._unread.pop(number, None)
        elif type(outcome.value) is not Portion:
            self.reading.drop(job)
