"""Batches of any sizes as batches of one size: those that are too large are cut, those that are too small joined."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import Any, NamedTuple

from workers.checks import check_int
from workers.errors import StateError
from workers.job.task import Loose

from .batched import stack
from .chain import makes
from .derived import job_of, jobs_of
from .of_size import SequenceOfSize, check_discard
from .passes import Ready
from .pieces import Pieces, cut, join, num_samples
from .position import Position


@makes("rebatch")
class SequenceRebatch(SequenceOfSize):
    """The samples of another sequence's batches, in batches of ``batch_size``. Made by :meth:`Sequence.rebatch`.

    Its jobs are the source's; the batches are put together where they are read.
    """

    _is_put_together = True

    def __len__(self) -> int:
        raise TypeError("how many batches rebatch() makes is known only when all of the source's have been read")

    def __getitem__(self, index: int) -> Any:
        raise TypeError("which samples are in a batch of rebatch() is known only in a loop: use for batch in ...")

    def _identity(self) -> list[Any]:
        identity = super()._identity()
        if self._stride > 1:  # of a rank: within the batch of one, no other can go on
            identity += [self._stride, *(self.source_split._places(Position(stride=self._stride)) or ())[:1]]
        return identity

    def _groups(self) -> Cut:
        return Cut(self.batch_size, self.discard_batch_not_full, self.collate_fn or join)

    # -- places and jobs are the source's; of a place, samples are counted

    def _jobs(self) -> Any:
        return jobs_of(self.source_split)

    def _job_of(self, index: int, epoch: int) -> int:
        return job_of(self.source_split, index, epoch)

    @property
    def _stride(self) -> int:  # type: ignore[override]
        return self.source_split._stride  # type: ignore[no-any-return]

    def _places(self, position: Position) -> OrderOf[int] | None:
        batch, partial, _ = position.delivered
        left = Position(batch, sorted(position.apart), None, position.stride)
        places: OrderOf[int] | None = self.source_split._places(left)
        return places if partial is None or places is None else [partial[0], *places]

    def _length_of_epoch(self) -> int | None:
        return self.source_split._length_of_epoch()  # type: ignore[no-any-return]

    def _is_at_end(self, batch: int) -> bool:
        return self.source_split._is_at_end(batch)  # type: ignore[no-any-return]


class Cut(NamedTuple):
    """Batches of ``batch_size`` samples from jobs whose batches are of any size: their arrays are cut and joined."""

    batch_size: int
    discard_batch_not_full: bool
    collate_fn: Callable[[list[Any]], Any]

    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """(the parts that are left over, the batches that are whole, the last one first), now that the job at
        ``place`` has ``items``. A mark counts the samples of a place.

        Raises:
            TypeError, ValueError: an item is no batch. StateError: there are less than ``passed_by`` samples.
        """
        if items and isinstance(items[0], Loose):  # of a .batch() before
            items = [stack(items[1:])] if len(items) > 1 else []
        sizes = [num_samples(item) for item in items]
        total, start = sum(sizes), 0  # start: of an item, in the samples of the job
        if items and passed_by > total:
            raise StateError(f"the state was taken behind sample {passed_by} of batch {place}, which has {total}")
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
        if passed_by >= total and carry:  # nothing came of it: it is delivered with what is before it
            part, marks = carry[-1]
            carry[-1] = part, [*marks, (place, None)]
        return carry, ready[::-1]

    def rest(self, carry: list[Ready]) -> list[Ready]:
        """The last batch, of what is left over."""
        return [self._batch(carry)] if carry and not self.discard_batch_not_full else []

    def _batch(self, carry: list[Ready]) -> Ready:
        marks = dict(mark for _, marks in carry for mark in marks)  # of each place, the last one
        return Pieces([part for part, _ in carry], self.collate_fn), list(marks.items())


@makes("split")
class Split:
    """A function that cuts a batch into a list of batches of at most ``batch_size`` samples."""

    def __init__(self, batch_size: int, discard_batch_not_full: bool) -> None:
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.discard_batch_not_full = check_discard(discard_batch_not_full)

    def __call__(self, batch: Any) -> list[Any]:
        size = num_samples(batch)
        if size <= self.batch_size:
            return [batch]
        stop = size // self.batch_size * self.batch_size if self.discard_batch_not_full else size
        return [cut(batch, at, min(at + self.batch_size, size)) for at in range(0, stop, self.batch_size)]
