"""Puts batches together, in the consumer's process, from the items of several jobs, if these are not whole batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from workers.batch.stacking import cut, num_samples, stack, unstack
from workers.errors import StateError
from workers.job.task import Loose

from .position import Mark

#: (a batch, a sample or a part of a batch; marks of what is delivered with it), e.g. (batch, [(7, None)]).
Ready = tuple[Any, list[Mark]]


class Assembly(ABC):
    """The base class of assemblies, which put batches together from the items of several jobs.

    Args:
        batch_size: the number of samples in a batch.
        discard_batch_not_full: drop the last batch if it is short.
    """

    #: True if jobs make batches, which are cut and joined; False if they make samples, which are stacked.
    is_of_batches = False

    def __init__(self, batch_size: int, discard_batch_not_full: bool) -> None:
        self.batch_size = batch_size
        self.discard_batch_not_full = discard_batch_not_full

    @abstractmethod
    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Add the ``items`` of a job to ``carry``, the leftover of earlier jobs, and make all full batches.

        Args:
            carry: the samples or parts of batches that are left over from earlier jobs.
            place: the place of the job (number in the epoch's order of delivery).
            passed_by: how many samples of this job were delivered before a state was loaded; they are left out.

        Returns:
            (the new leftover, the full batches, the last one first), each as [(part, marks)]. A mark is (place, how
            many items of the job there are delivered up to this part; None: all).
        """

    def remaining(self, carry: list[Ready]) -> list[Ready]:
        """Return [the last batch], made from the leftover ``carry``; [] if it is empty or short batches are dropped."""
        return [self._batch(carry)] if carry and not self.discard_batch_not_full else []

    def _batch(self, carry: list[Ready]) -> Ready:
        marks = dict(mark for _, marks in carry for mark in marks)  # the last mark of each place
        return self._made_of([each for each, _ in carry]), list(marks.items())

    @abstractmethod
    def _made_of(self, parts: list[Any]) -> Any:
        """Return one batch made from all ``parts``, which are samples or parts of batches."""


class OfSamples(Assembly):
    """The assembly for jobs that make any number of samples each: it stacks samples into batches."""

    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Add a job's samples to ``carry``, the samples left over from earlier jobs, and make all full batches.

        ``place`` is the job's number in the epoch's order. Its first ``passed_by`` samples, which were delivered before
        a state was loaded, are left out. Return (the new leftover, the full batches, the last one first).
        """
        is_loose = bool(items) and isinstance(items[0], Loose)
        if items and not (is_loose or carry or passed_by):
            return carry, [(items[0], [(place, None)])]  # a full batch, as a worker has made it
        samples = items[1:] if is_loose else unstack(items[0]) if items else []
        last = len(samples)
        carry = carry + [
            (sample, [(place, at if at < last else None)])
            for at, sample in enumerate(samples[passed_by:], passed_by + 1)
        ]
        if passed_by >= last and carry:
            carry[-1][1].append((place, None))
        stop = len(carry) // self.batch_size * self.batch_size
        ready = [self._batch(carry[at : at + self.batch_size]) for at in range(0, stop, self.batch_size)]
        return carry[stop:], ready[::-1]

    def _made_of(self, parts: list[Any]) -> Any:
        return stack(parts)


class OfBatches(Assembly):
    """The assembly for jobs that make batches of any size: it cuts and joins them. Its marks count samples."""

    is_of_batches = True

    def __init__(self, batch_size: int, discard_batch_not_full: bool, collate_fn: Callable[[list[Any]], Any]) -> None:
        super().__init__(batch_size, discard_batch_not_full)
        self.collate_fn = collate_fn

    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Add a job's batches to ``carry``, the parts left over from earlier jobs, and make all full batches.

        ``place`` is the job's number in the epoch's order. Its first ``passed_by`` samples, which were delivered before
        a state was loaded, are left out. Return (the new leftover, the full batches, the last one first).

        Raises:
            TypeError, ValueError: an item is not a batch. StateError: the job has fewer than ``passed_by`` samples.
        """
        if items and isinstance(items[0], Loose):  # samples from a .batch() earlier in the chain
            items = [stack(items[1:])] if len(items) > 1 else []
        sizes = [num_samples(item) for item in items]
        total, start = sum(sizes), 0  # start: how many samples of the job come before the item
        if items and passed_by > total:
            raise StateError(
                f"the state was taken after sample {passed_by} of batch {place}, which has only {total} samples"
            )
        carry, ready = list(carry), []
        missing = self.batch_size - sum(num_samples(part) for part, _ in carry)
        for item, size in zip(items, sizes, strict=True):
            at = max(0, passed_by - start)
            while at < size:
                stop = min(size, at + missing)
                end = start + stop
                carry.append((cut(item, at, stop), [(place, end if end < total else None)]))
                missing -= stop - at
                at = stop
                if not missing:
                    ready.append(self._batch(carry))
                    carry, missing = [], self.batch_size
            start += size
        if passed_by >= total and carry:  # the job has no samples left: it counts as delivered with the part before
            part, marks = carry[-1]
            carry[-1] = part, [*marks, (place, None)]
        return carry, ready[::-1]

    def _made_of(self, parts: list[Any]) -> Any:
        return Pieces(parts, self.collate_fn)


class Pieces(NamedTuple):
    """The parts of a batch, joined on delivery, so that an error of ``collate_fn`` is raised in the batch's place."""

    parts: list[Any]
    collate_fn: Callable[[list[Any]], Any]

    def whole(self) -> Any:
        return self.collate_fn(self.parts)
