"""A pass of Keras's over a sequence: one batch for each index that Keras asks for, or those that come."""

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
from workers.loader.options import Options
from workers.sequence.base import Sequence, count_batches
from workers.sequence.chain import NbWorkers
from workers.sequence.jobs import items_of_index, job_of_index, run_job

logger = logging.getLogger("workers")

NB_WORKERS: NbWorkers = "auto"
_MAX_TRIED = 1000  # batches of a sequence without an end, until one is there in the place of the first
_POLL_S = 0.1  # how often a waiting generator looks whether a loop of the user's has taken the workers over


class EndOfSource(Exception):
    """A source that is read in this process has no more batches."""


def is_read_as_it_comes(sequence: Any) -> bool:
    """Whether the batches of ``sequence`` have no indices, and an epoch is what comes."""
    return bool(sequence._plan().is_read_here)


class FitReading:
    """A pass over the batches at ``order`` of the current epoch, as Keras wants them: one for each index.

    Where a loop of the user's, in a callback, takes the workers over, what is left is computed in this process. A state
    does not count it. It holds the sequence weakly.

    Args:
        order: None: of a source that is read here, the batches as they come. They cannot be computed elsewhere.
    """

    def __init__(self, sequence: Any, order: OrderOf[int] | None, is_probe: bool = True) -> None:
        sequence._check_open()
        clock = sequence._clock
        clock.begin_epoch(sequence)
        self._sequence = weakref.ref(sequence)
        self._order = order
        self._num_left = count_batches(sequence) if order is None else len(order)  # None: that is not known
        self._is_probe = is_probe
        self._clock, self._epoch, self._version = clock, clock.epoch, clock.version
        self._num_read = 0
        self._last: list[Any] = []  # the items that were read last
        loop = loop_of(sequence)
        self._loop = None if loop is None else weakref.ref(loop)
        self._pass = None if loop is None else loop.begin_apart(order)

    @property
    def is_whole(self) -> bool:
        """All its batches were read. Of a source that is read here: as many as its length says, or all."""
        return self._num_left is not None and self._num_read >= self._num_left

    def end_epoch(self) -> None:
        """The epoch is over, unless somebody else has ended it."""
        sequence = self._sequence()
        if sequence is not None and (self._clock.epoch, self._clock.version) == (self._epoch, self._version):
            loop = None if self._loop is None else self._loop()
            if loop is not None and self._pass is not None:
                loop.consumer.tell_of_epoch(self._epoch)
            self._clock.end_epoch(sequence)

    def next(self) -> Any:
        """The next batch. In the place of one that is skipped: the one before, or the first that can be had.

        Raises:
            EndOfSource: a source that is read here has no more. What the job has raised.
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
        """The batch that was read last."""
        return self._last[0] if len(self._last) == 1 else self._last

    def _items(self, index: int) -> list[Any]:
        loop = None if self._loop is None else self._loop()
        if loop is not None and self._pass is not None:
            while True:
                try:
                    items: list[Any] = _stacked(loop.next_items(self._pass, _POLL_S))
                    break
                except queue.Empty:
                    continue
                except StopIteration:
                    self._num_left = self._num_read
                    raise EndOfSource from None
                except StalePassError:
                    if self._order is None:
                        raise
                    self._pass = None
                    return self._items(index)
        else:
            sequence: Any = self._sequence()
            job = job_of_index(sequence, index, self._epoch)
            items = run_job(sequence, job, lambda: items_of_index(sequence, index), self._epoch)
            items = _stacked(items)
        if items and (isinstance(items[0], Loose) or (len(items) > 1 and all(map(_is_batch, items)))):
            raise TypeError("function_to_run returns a list of batches, one by one; Keras wants one for each index")
        return items

    def _another(self) -> list[Any]:
        """A batch in the place of the first one, which is skipped: the first that can be had."""
        assert self._order is not None
        first = self._order[0]
        sequence: Any = self._sequence()
        length = count_batches(sequence) or first + _MAX_TRIED
        for step in range(1, length):
            index = (first + step) % length
            items: list[Any] = run_job(
                sequence,
                job_of_index(sequence, index, self._epoch),
                functools.partial(items_of_index, sequence, index),
                self._epoch,
            )
            items = _stacked(items)
            if items:
                return items
        raise PrefetchError("all batches were skipped")


def _stacked(items: list[Any]) -> list[Any]:
    """The items of a job. Keras wants them now: a batch of which samples were skipped is not filled from others."""
    if items and items[0] is Loose.FEWER:
        return [stack_list(items[1:])] if len(items) > 1 else []
    return items


def _is_batch(item: Any) -> bool:
    return node_of(item) is not None and not is_list(item)


def loop_of(sequence: Sequence[Any]) -> Loop | None:
    """The loop whose workers compute the batches of ``sequence``; None: it has to be done in this process."""
    live = sequence._live
    if isinstance(live, Loop):  # of a front-end
        return live
    if sequence.is_stream:  # nothing is left to do for workers
        return None
    if live.fit is None and not live.fits_here:
        made = Loop(sequence, NB_WORKERS, Options(), live.clock)
        made.generators = live.generators
        try:
            made.start()
            live.fit = made
        except (NotPicklableError, PlatformError) as error:
            live.fits_here = True
            logger.warning("model.fit computes the batches in its own process: %s", error)
    loop: Loop | None = live.fit
    return loop
