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


class JobItems(NamedTuple):
    """Items of a job: all of them, or a portion, if others have come before or ``is_end`` is False.

    ``before`` counts what has come before, as the assembly counts: see :meth:`Assembly.count`.
    """

    place: int  # the job's number in the epoch's order of delivery
    items: list[Any]
    before: int = 0
    is_end: bool = True

    def mark(self, at: int) -> Mark:
        """Return the mark of item ``at``: (place, number of the job's items delivered up to this one; None for all)."""
        return self.place, None if self.is_end and at + 1 == len(self.items) else self.before + at + 1

    def num_passed_by(self, num_delivered: int) -> int:
        """Return how many of these items are among the first ``num_delivered`` of the job."""
        return max(0, num_delivered - self.before)


class Assembly(ABC):
    """The base class of assemblies. An assembly makes batches out of the items of several jobs.

    Args:
        batch_size: the number of samples in a batch.
        discard_batch_not_full: True to drop the last batch if it is short.
    """

    #: True if this makes all batches; False if the workers make those for which no other job's samples are needed.
    makes_all = False

    def __init__(self, batch_size: int, discard_batch_not_full: bool) -> None:
        self.batch_size = batch_size
        self.discard_batch_not_full = discard_batch_not_full

    def count(self, items: list[Any]) -> int:
        """Return the number of the items, or of their samples if marks count samples."""
        return len(items)

    def num_usable(self, items: list[Any]) -> int:
        """Return how many of ``items`` come before the first that this cannot make batches of."""
        return len(items)

    @abstractmethod
    def add(self, carry: list[Ready], items: JobItems, passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Combine the ``items`` of a job with the leftovers of earlier jobs, and return all batches that are full.

        Args:
            carry: the samples or parts of batches that are left over from earlier jobs.
            passed_by: how many samples to leave out at the start of this job: a loaded state says they were delivered.

        Returns:
            (the new leftovers, the full batches), each as [(part, marks)]; the last batch comes first. For a mark, see
            :meth:`JobItems.mark`.
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

    def add(self, carry: list[Ready], items: JobItems, passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Combine a job's samples with those left over from earlier jobs, and return all batches that are full.

        ``items`` holds one whole batch, or a ``Loose`` marker and any number of samples. See :meth:`Assembly.add` for
        the other arguments and the result.
        """
        place, made, _, _ = items
        is_loose = bool(made) and isinstance(made[0], Loose)
        if made and not (is_loose or carry or passed_by):
            return carry, [(made[0], [(place, None)])]  # a whole batch, as a worker has made it
        samples = made[1:] if is_loose else unstack(made[0]) if made else []
        return self._add(carry, items._replace(items=samples), passed_by)

    def _add(self, carry: list[Ready], samples: JobItems, passed_by: int) -> tuple[list[Ready], list[Ready]]:
        each, start = samples.items, samples.num_passed_by(passed_by)
        carry = carry + [(each[at], [samples.mark(at)]) for at in range(start, len(each))]
        if samples.is_end and start >= len(each) and carry:
            carry[-1][1].append((samples.place, None))
        stop = len(carry) // self.batch_size * self.batch_size
        ready = [self._batch(carry[at : at + self.batch_size]) for at in range(0, stop, self.batch_size)]
        return carry[stop:], ready[::-1]

    def _made_of(self, parts: list[Any]) -> Any:
        return stack(parts)


class OfItems(OfSamples):
    """The assembly that makes batches of samples, each of which is an item of a job, as a generator function yields it.

    ``collate_fn`` makes a batch of a list of samples. It is called in the consumer's process.
    """

    makes_all = True

    def __init__(self, batch_size: int, discard_batch_not_full: bool, collate_fn: Callable[[list[Any]], Any]) -> None:
        super().__init__(batch_size, discard_batch_not_full)
        self.collate_fn = collate_fn

    def add(self, carry: list[Ready], items: JobItems, passed_by: int) -> tuple[list[Ready], list[Ready]]:
        return self._add(carry, items, passed_by)

    def _made_of(self, parts: list[Any]) -> Any:
        return Pieces(parts, self.collate_fn)


class OfBatches(Assembly):
    """The assembly that cuts and joins batches of any size into batches of one size. Its marks count samples."""

    makes_all = True

    def __init__(self, batch_size: int, discard_batch_not_full: bool, collate_fn: Callable[[list[Any]], Any]) -> None:
        super().__init__(batch_size, discard_batch_not_full)
        self.collate_fn = collate_fn

    def count(self, items: list[Any]) -> int:
        return sum(map(num_samples, items))

    def num_usable(self, items: list[Any]) -> int:
        for number, item in enumerate(items):
            try:
                num_samples(item)
            except Exception:
                return number
        return len(items)

    def add(self, carry: list[Ready], items: JobItems, passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """Combine a job's batches with the parts left over from earlier jobs, and return all batches that are full.

        ``items`` holds any number of batches, or a ``Loose`` marker and the samples of one batch. See
        :meth:`Assembly.add` for the other arguments and the result.

        Raises:
            TypeError, ValueError: an item is not a batch. StateError: the job has fewer than ``passed_by`` samples.
        """
        place, batches, before, is_end = items
        if batches and isinstance(batches[0], Loose):  # samples from a .batch() earlier in the chain
            batches = [stack(batches[1:])] if len(batches) > 1 else []
        sizes = [num_samples(item) for item in batches]
        total, start = before + sum(sizes), before  # start: how many samples of the job come before the item
        if batches and is_end and passed_by > total:
            raise StateError(
                f"the state was taken after sample {passed_by} of batch {place}, which has only {total} samples"
            )
        carry, ready = list(carry), []
        missing = self.batch_size - sum(num_samples(part) for part, _ in carry)
        for item, size in zip(batches, sizes, strict=True):
            at = max(0, passed_by - start)
            while at < size:
                stop = min(size, at + missing)
                end = start + stop
                carry.append((cut(item, at, stop), [(place, None if is_end and end == total else end)]))
                missing -= stop - at
                at = stop
                if not missing:
                    ready.append(self._batch(carry))
                    carry, missing = [], self.batch_size
            start += size
        if (
            is_end and passed_by >= total and carry
        ):  # no samples of the job are left: it is delivered with the previous part
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


def raising(error: Exception) -> Ready:
    """Return what raises ``error`` when it is due, in place of a batch."""

    def fail(parts: list[Any]) -> Any:
        raise error

    return Pieces([], fail), []
