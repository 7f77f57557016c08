"""Reads an epoch of a sequence for Keras: the batch at each index that Keras asks for, or the batches as they come."""

from __future__ import annotations

import functools
import logging
import queue
import weakref
from collections.abc import Sequence as OrderOf
from typing import Any

from workers.batch.nodes import is_list, node_of
from workers.batch.stacking import stack_list
from workers.errors import NotPicklableError, PlatformError, PrefetchError, StalePassError
from workers.job.task import Loose
from workers.loader.loop import Loop
from workers.loader.options import Options, check_nb_workers
from workers.sequence.base import Sequence, count_batches
from workers.sequence.chain import NbWorkers
from workers.sequence.jobs import items_of_index, job_of_index, run_job

logger = logging.getLogger("workers")

NB_WORKERS: NbWorkers = "auto"
_MAX_TRIED = 1000  # batches of an endless sequence that are tried, to replace a skipped first one
_POLL_S = 0.1  # how often a waiting generator checks whether a loop has taken over the workers


class EndOfSource(Exception):
    """Raised at the end of an epoch of a source that has only ``__iter__``, and so is read in this process."""


def is_read_as_it_comes(sequence: Any) -> bool:
    """Return True if an epoch of ``sequence`` consists of whatever batches come: its source has only ``__iter__``, a
    generator function makes them, or the loop does."""
    return bool(sequence._plan().is_known_in_loop)


class FitReading:
    """The reading of one epoch for Keras, or of some of its batches: each batch in ``order`` exactly once.

    It does not move the position that ``state_dict()`` saves. If a loop in a callback takes over the workers, the
    remaining batches are computed in this process. The sequence is held weakly.

    Args:
        order: the indices of the batches; None to read all batches as they come. These cannot be computed one by one,
            so a loop that takes over the workers ends such a reading.
        is_probe: True if Keras reads only to learn shapes, so that the epoch does not count as being read.
    """

    def __init__(self, sequence: Any, order: OrderOf[int] | None, is_probe: bool = True) -> None:
        sequence._check_open()
        clock = sequence._clock
        clock.begin_epoch(sequence)
        self._sequence = weakref.ref(sequence)
        self._order = order
        plan = sequence._plan()
        self._as_they_come = order is None and (plan.yields or plan.is_rebatched)  # else each job makes one batch
        self._num_batches = count_batches(sequence) if order is None else len(order)
        self._is_probe = is_probe
        self._clock, self._epoch, self._version = clock, clock.epoch, clock.version
        self._num_read = 0
        self._last: list[Any] = []  # the items read last
        loop = loop_of(sequence)
        self._loop = None if loop is None else weakref.ref(loop)
        self._pass = None if loop is None else loop.begin_apart(order)

    @property
    def is_whole(self) -> bool:
        """True if all batches were read: those in ``order``, or without one, all that the sequence or source has."""
        return self._num_batches is not None and self._num_read >= self._num_batches

    def end_epoch(self) -> None:
        """End the sequence's epoch that this reading belongs to, unless something else has already ended it."""
        sequence = self._sequence()
        if sequence is not None and (self._clock.epoch, self._clock.version) == (self._epoch, self._version):
            loop = None if self._loop is None else self._loop()
            if loop is not None and self._pass is not None:
                loop.consumer.tell_of_epoch(self._epoch)
            self._clock.end_epoch(sequence)

    def next(self) -> Any:
        """Return the next batch. A skipped one is replaced by the batch before it, or by the first available one.

        Raises:
            EndOfSource: the source has only ``__iter__``, and has no more batches. Errors of the job are raised, too.
        """
        if not self._is_probe:
            self._clock.is_fitted = True
        order = self._order
        items = self._items(0 if order is None else order[self._num_read])
        self._num_read += 1
        while not items:
            items = self._last or (self._another() if order is not None else self._items(0))
        self._last = items
        return self.again()

    def again(self) -> Any:
        """Return once more the batch that was read last."""
        return self._last[0] if len(self._last) == 1 else self._last

    def _items(self, index: int) -> list[Any]:
        loop = None if self._loop is None else self._loop()
        if loop is not None and self._pass is not None:
            while True:
                try:
                    items: list[Any] = _stacked(loop.next_items(self._pass, _POLL_S, self._as_they_come))
                    break
                except queue.Empty:
                    continue
                except StopIteration:
                    self._num_batches = self._num_read
                    raise EndOfSource from None
                except StalePassError:
                    if self._order is None:
                        raise
                    self._pass = None
                    return self._items(index)
        else:
            items = self._computed(index)
        if items and (isinstance(items[0], Loose) or (len(items) > 1 and all(map(_is_batch, items)))):
            raise TypeError("function_to_run returns a list of batches; Keras needs one for each index: return one")
        return items

    def _another(self) -> list[Any]:
        """Return the items of the next batch that can be computed, to replace the first batch, which was skipped."""
        assert self._order is not None
        first = self._order[0]
        sequence: Any = self._sequence()
        length = count_batches(sequence) or first + _MAX_TRIED
        for step in range(1, length):
            index = (first + step) % length
            if items := self._computed(index):
                return items
        raise PrefetchError("all batches were skipped, so model.fit has none: see their errors in the log")

    def _computed(self, index: int) -> list[Any]:
        """Return the items (usually the one batch) at ``index``, computed in this process; [] if it is skipped."""
        sequence: Any = self._sequence()
        job, compute = job_of_index(sequence, index, self._epoch), functools.partial(items_of_index, sequence, index)
        loop = None if self._loop is None else self._loop()
        for num_left in range(0 if loop is None else loop.options.max_retries, -1, -1):
            try:
                items: list[Any] = run_job(sequence, job, compute, self._epoch)
                return _stacked(items)
            except Exception as error:
                what = "raise" if loop is None else loop.consumer.on_error.decide(error, self)
                if what == "skip":
                    logger.error("batch %d of epoch %d is skipped", index, self._epoch, exc_info=error)
                    return []
                if what != "retry" or not num_left:
                    raise
        raise AssertionError("unreachable")


def _stacked(items: list[Any]) -> list[Any]:
    """Return ``items``, the result of a job. If samples of its batch were skipped, make a smaller batch of the others.
    Keras needs a batch for each index, so the batch cannot be filled up with samples of the next one."""
    if items and items[0] is Loose.FEWER:
        return [stack_list(items[1:])] if len(items) > 1 else []
    return items


def _is_batch(item: Any) -> bool:
    return node_of(item) is not None and not is_list(item)


def loop_of(sequence: Sequence[Any]) -> Loop | None:
    """Return the loop whose workers compute the batches of ``sequence``; None if this process computes them."""
    live = sequence._live
    if isinstance(live, Loop):  # of a front-end
        return live
    if sequence.is_stream:  # workers would have nothing to do
        return None
    if live.fit is None and not live.fits_here:
        made = Loop(sequence, check_nb_workers(NB_WORKERS), Options(), live.clock)
        made.generators = live.generators
        try:
            made.start()
            live.fit = made
        except (NotPicklableError, PlatformError) as error:
            live.fits_here = True
            logger.warning("model.fit computes the batches in its own process: %s", error)
    loop: Loop | None = live.fit
    return loop
