"""Batches and shuffles sources that have only ``__iter__``, while the consumer's process reads them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import chain, count, repeat
from typing import Any

import numpy as np

from workers.batch.private import private
from workers.batch.stacking import stack
from workers.checks import check_int
from workers.job.permutation import permutation
from workers.job.task import Loose, Task

from .base import plan_of
from .batched import SequenceBatch, SequenceOfSize
from .derived import SequenceDerived, source_length
from .grouping import OfItems, OfSamples
from .plan import Plan
from .sample_errors import SampleErrors
from .shuffle import SequenceShuffle

_OF_WINDOWS = 4  # part of the key of the random orders: other methods, such as shuffle, have other numbers


class Regrouped:
    """The base class of objects that regroup the items of ``source``, which has only ``__iter__``, as they are read."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def of(self, items: Iterator[Any], epoch: int, seed: int) -> Iterator[Any]:
        """Yield the regrouped items.

        Args:
            items: an iterator over the source.
            epoch, seed: the epoch and the seed of the loop that reads the items.
        """
        raise NotImplementedError

    def first_item(self, first: int) -> int:
        """Return the index of the first item of ``source`` that is needed to yield regrouped item ``first``."""
        return 0


class Chunks(Regrouped):
    """The items of ``source``, read on demand, in lists of ``batch_size`` consecutive items."""

    def __init__(self, source: Any, batch_size: int, discard_batch_not_full: bool) -> None:
        super().__init__(source)
        self.batch_size, self.discard_batch_not_full = batch_size, discard_batch_not_full

    def first_item(self, first: int) -> int:
        return first * self.batch_size

    def of(self, items: Iterator[Any], epoch: int, seed: int) -> Iterator[list[Any]]:
        """Yield the remaining items of the iterator ``items`` in lists of ``batch_size``.

        ``iter(items)`` is not called, because it might start from the beginning. An item that the source still holds
        is copied, because the source may reuse the item's memory for the next item.
        """
        while chunk := list(chain.from_iterable(map(private, zip(map(next, repeat(items, self.batch_size)))))):
            if len(chunk) < self.batch_size and self.discard_batch_not_full:
                return
            yield chunk


class _OfEach:
    """A function that makes [a batch] of a list of items: it applies ``functions`` to each item, then collates them."""

    def __init__(self, functions: Any, as_items: Any, collate_fn: Callable[[list[Any]], Any] | None, on_error: str):
        self.functions, self.as_items, self.collate_fn, self.on_error = functions, as_items, collate_fn, on_error
        self.wants_tensors = getattr(functions[0], "wants_tensors", True) if functions else collate_fn is not None

    def __call__(self, items: list[Any]) -> list[Any]:
        task, part = Task(None, self.functions, 0, self.as_items), SampleErrors(self.on_error, lambda at: None)
        task.private = private
        found = [part.items(at, functools.partial(task.run, 0, (item,))) for at, item in enumerate(items)]
        samples = [sample for each in found for sample in each]
        most, least = max(map(len, found)), min(map(len, found))
        if most > 1 or (least < 1 and self.on_error == "raise"):
            raise TypeError(
                "batch() of a source that has only __iter__ wants one sample for each of its items, but a function "
                f"before it returned lists: {len(samples)} samples of {len(items)} items"
            )
        if len(samples) < len(items) and self.collate_fn is None:
            return part.end([Loose.FEWER, *samples])
        return part.end([self.put_together(samples)] if samples else [])

    def put_together(self, samples: list[Any]) -> Any:
        """Return the batch that ``collate_fn`` makes of ``samples``; without ``collate_fn``, the stacked samples."""
        return (self.collate_fn or stack)(samples)


class SequenceChunks(SequenceOfSize):
    """The sequence that :meth:`Sequence.batch` makes if the start of the chain has only ``__iter__``."""

    def _plan(self) -> Plan:
        samples, size, discard = plan_of(self.source_split), self.batch_size, self.discard_batch_not_full
        if samples.yields:
            return samples.batched_as_yielded(size, discard, OfItems(size, discard, self.collate_fn or stack))
        on_error = self._on_error(samples)
        if on_error == "redraw":
            name = type(samples.origin).__name__
            raise TypeError(f'{name} has no indices, so no other sample can be drawn: give on_error="skip"')
        function = _OfEach(samples.functions, samples.as_items, self.collate_fn, on_error)
        is_loose = on_error != "raise" and self.collate_fn is None
        assembly = OfSamples(size, discard) if is_loose else None
        return samples.batched_as_read(Chunks(samples.source, size, discard), function, size, discard, assembly)

    def __len__(self) -> int:
        self._check_length()
        origin = plan_of(self.source_split).origin
        if not hasattr(origin, "__len__"):
            raise TypeError(f"{type(origin).__name__} has no length, so batches of it have none")
        return self._num_batches()


class Windows(Regrouped):
    """The items of ``source``, shuffled within each window of ``window`` consecutive items."""

    def __init__(self, source: Any, window: int) -> None:
        super().__init__(source)
        self.window = window

    def of(self, items: Iterator[Any], epoch: int, seed: int) -> Iterator[Any]:
        """Yield the remaining items of the iterator ``items``, window by window, each shuffled by (seed, epoch).

        If reading raises an error, the items that were read before the error are yielded first.
        """
        for number in count():
            window: list[Any] = []
            error: Exception | None = None
            try:
                while len(window) < self.window and (read := list(map(next, [items]))):
                    window += private(read)
            except Exception as raised:
                error = raised
            size = len(window)
            if size:
                places = np.arange(size, dtype=np.uint64)
                order = permutation(size)(places, (seed, epoch, _OF_WINDOWS, number)).tolist()
                for place in order:
                    item, window[place] = window[place], None
                    yield item
            if error is not None:
                raise error
            if size < self.window:
                return


class SequenceWindows(SequenceDerived[Any]):
    """The items of a source that has only ``__iter__``, shuffled within windows: see :meth:`Sequence.shuffle`."""

    def __init__(self, source_split: Any, window: int) -> None:
        self.window = check_int("window", window, 1)
        plan, name = plan_of(source_split), type(source_split).__name__
        if plan.is_stream:
            raise TypeError(f"{name} is read in an order of its own, which is shuffled already: leave .shuffle() out")
        if not plan.is_read_here:
            raise TypeError(f"{name} has indices, so all of it can be shuffled: write .shuffle() without a window")
        super().__init__(source_split)

    def _plan(self) -> Plan:
        plan = plan_of(self.source_split)
        return plan.windowed(Windows(plan.source, self.window), self.window)

    def __len__(self) -> int:
        """Return the number of items, which is the length of the source, if it has one."""
        return source_length(self)


def shuffled(source: Any, window: int | None = None) -> SequenceDerived[Any]:
    """Return a shuffled ``source``. If it has only ``__iter__``, it is shuffled within windows of ``window`` items."""
    return SequenceShuffle(source) if window is None else SequenceWindows(source, window)


def batches(source: Any, *arguments: Any) -> SequenceOfSize:
    """Return a sequence of batches of any ``source``. The ``arguments`` are those of :class:`SequenceOfSize`."""
    return (SequenceChunks if plan_of(source).is_read_here else SequenceBatch)(source, *arguments)
