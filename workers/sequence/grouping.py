"""Makes batches in the consumer's process out of the items of several jobs, if one job does not make a whole batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

from workers.batch.stacking import cut, num_samples, stack, unstack
from workers.errors import StateError
from workers.job.task import Loose

from .position import Mark

#: (a batch, or a part or a sample of one; its marks: see ``Mark``), e.g. (batch, [(7, None)]).
Ready = tuple[Any, list[Mark]]


class Assembly(ABC):
    """The base class of assemblies. An assembly makes batches out of the items of several jobs.

    Args:
        batch_size: the number of samples in a batch.
        discard_batch_not_full: True to drop the last batch if it is short.
    """

    #: True if jobs make batches, which are cut and joined; False if jobs make samples, which are stacked.
    is_of_batches = False

    def __init__(self, batch_size: int, discard_batch_not_full: bool) -> None:
        self.batch_size = batch_size
        self.discard_batch_not_full = discard_batch_not_full

    @abstractmethod
    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Combine the ``items`` of a job with the leftovers of earlier jobs, and return all batches that are full.

        Args:
            carry: the samples or parts of batches that are left over from earlier jobs.
            place: the job's number in the epoch's order of delivery.
            passed_by: how many samples to leave out at the start of this job: a loaded state says they were delivered.

        Returns:
            (the new leftovers, the full batches), each as [(part, marks)]; the last batch comes first. A mark is
            (place, number of the items of the job at this place that are delivered up to this part; None for all).
        """

    def remaining(self, carry: list[Ready]) -> list[Ready]:
        """Return [the last batch], made from ``carry``; [] if ``carry`` is empty or short batches are dropped."""
        return [self._batch(carry)] if carry and not self.discard_batch_not_full else []

    def _batch(self, carry: list[Ready]) -> Ready:
        marks = dict(mark for _, marks in carry for mark in marks)  # the last mark of each place
        return self._made_of([each for each, _ in carry]), list(marks.items())

    @abstractmethod
    def _made_of(self, parts: list[Any]) -> Any:
        """Return one batch made from ``parts``, a list of samples or of parts of batches."""


class OfSamples(Assembly):
    """The assembly that stacks samples into batches, for jobs that each make any number of samples."""

    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Combine a job's samples with those left over from earlier jobs, and return all batches that are full.

        ``items`` holds one whole batch, or a ``Loose`` marker and any number of samples. See :meth:`Assembly.add` for
        the other arguments and the result.
        """
        is_loose = bool(items) and isinstance(items[0], Loose)
        if items and not (is_loose or carry or passed_by):
            return carry, [(items[0], [(place, None)])]  # a whole batch, as a worker has made it
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
    """The assembly that cuts and joins batches of any size into batches of one size. Its marks count samples."""

    is_of_batches = True

    def __init__(self, batch_size: int, discard_batch_not_full: bool, collate_fn: Callable[[list[Any]], Any]) -> None:
        super().__init__(batch_size, discard_batch_not_full)
        self.collate_fn = collate_fn

    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Combine a job's batches with the parts left over from earlier jobs, and return all batches that are full.

        ``items`` holds any number of batches, or a ``Loose`` marker and the samples of one batch. See
        :meth:`Assembly.add` for the other arguments and the result.

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
        if passed_by >= total and carry:  # no samples of the job are left: it is delivered with the previous part
            part, marks = carry[-1]
            carry[-1] = part, [*marks, (place, None)]
        return carry, ready[::-1]

    def _made_of(self, parts: list[Any]) -> Any:
        return Pieces(parts, self.collate_fn)


class Pieces(NamedTuple):
    """The parts of a batch, to be joined when it is delivered, so that an error of ``collate_fn`` takes its place."""

    parts: list[Any]
    collate_fn: Callable[[list[Any]], Any]

    def whole(self) -> Any:
        return self.collate_fn(self.parts)
