"""Samples as a sequence of batches."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from workers.batch.nodes import is_list, node_of
from workers.batch.private import private
from workers.batch.tree import makes_fresh_batches
from workers.checks import short
from workers.job.task import JobSource, Loose, one_of

from .base import Sequence
from .chain import makes
from .combined import ALIKE, stacked
from .fetching import getter
from .of_size import SequenceOfSize
from .passes import Ready
from .skipping import Samples

_TEXTS = frozenset({type(None), str, bytes})
_NUMBERS = bool, int, float, complex


class SequenceBatch(SequenceOfSize, JobSource):
    """Batches of consecutive samples of another sequence. Made by :meth:`Sequence.batch`.

    Its source is anything with ``__len__`` and ``__getitem__``.
    """

    _item_names = "batch", "batches"

    def _check_source(self) -> None:
        if isinstance(self.source_split, Sequence) and self.source_split._stride > 1:
            raise TypeError("shard batches, not samples: sequence.batch(...).shard(rank, world)")

    def __len__(self) -> int:
        number = self._num_batches()
        # A function's lists may fill a batch where the samples that it was given do not.
        return max(1, number) if self.has_lists and self._source_length() else number

    @property
    def has_lists(self) -> bool:
        """Whether there may be any number of samples for each index of the source."""
        source = self.source_split
        has_lists = (isinstance(source, JobSource) and source.has_lists) or self._on_error() != "raise"
        return has_lists and self.collate_fn is None

    def __getitem__(self, index: int) -> Any:
        return one_of(self.items_of_job(index))

    def items_of_job(self, index: int) -> list[Any]:
        """The batch; or, where the source has not one item for each index, the samples that there are."""
        source, start, end = self.source_split, index * self.batch_size, self._source_length()
        stop = min(start + self.batch_size, end)
        on_error = self._on_error()
        # Of the last job: the samples behind its batch, which no other job has.
        behind = range(stop, end) if self._drops_short and end - stop < self.batch_size else range(0)
        is_whole = stop - start == self.batch_size or not self._drops_short
        if self.collate_fn is None and isinstance(source, Sequence) and is_whole:
            batch = self._batch_at(source, start, stop, on_error)
            if batch is not None:
                return [batch]
        part, items_at = Samples(on_error), getter(source, range(start, stop), self.epoch, on_error)
        found = [part.items(at, functools.partial(items_at, at)) for at in range(start, stop)]
        found = [[] if len(items) == 1 and items[0] is Loose.FEWER else items for items in found]
        if not is_whole and all(len(items) <= 1 for items in found):
            return part.end([Loose.FEWER])  # no lists fill the only batch, which has too few samples
        is_whole &= all(len(items) == 1 for items in found)
        if not is_whole:
            items_at = getter(source, behind, self.epoch, on_error)
            found += [part.items(at, functools.partial(items_at, at)) for at in behind]
        if self.collate_fn is not None:
            found = list(map(private, found))
        return part.end(self._made_of(found, is_whole, on_error != "raise"))

    def _batch_at(self, source: Sequence, start: int, stop: int, on_error: str) -> Any:
        """The batch in one piece; None: it has to be made of single samples."""
        try:
            return source._samples_at(np.arange(start, stop))
        except Exception:
            if on_error == "raise":
                raise
            return None

    def _made_of(self, found: list[list[Any]], is_whole: bool, may_lack: bool) -> list[Any]:
        samples = [item for items in found for item in items]
        if any(isinstance(item, Loose) for item in samples):
            why = (
                "samples were skipped"
                if any(item is Loose.FEWER for item in samples)
                else "a function before .batch() returns lists"
            )
            raise TypeError(
                f"{why}, so batches are put together where they are read, and another .batch() cannot follow: use "
                ".rebatch(...) for batches of another size"
            )
        if is_whole:
            return [(self.collate_fn or stack)(samples)]
        if self.collate_fn is not None:
            if may_lack and all(len(items) <= 1 for items in found):
                return [self.collate_fn(samples)] if samples else []
            raise TypeError(
                "collate_fn wants one sample for each index, but a function before it returned a list of several, or "
                "none: collate in a function behind .batch()"
            )
        is_fewer = may_lack and all(len(items) <= 1 for items in found)
        return [Loose.FEWER if is_fewer else Loose.SAMPLES, *samples]

    def put_together(self, samples: list[Any]) -> Any:
        """The batch of samples of which some were skipped."""
        return (self.collate_fn or stack)(samples)

    @property
    def _drops_short(self) -> bool:
        """Whether the last job may be given less samples than a batch has, or those behind the last whole batch."""
        return self.discard_batch_not_full and self.has_lists

    @property
    def _makes_fresh_batches(self) -> bool:  # type: ignore[override]
        return self.collate_fn is None and makes_fresh_batches(self.source_split)

    def _permutations(self, epoch: int) -> tuple[Any, ...]:
        return ()  # the source's are of its samples

    def _groups(self) -> Regrouped | None:
        return Regrouped(self.batch_size, self.discard_batch_not_full) if self.has_lists else None

    def subsample(self, nb_samples: int) -> Sequence:
        return self._of(self.source_split.subsample(nb_samples))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence:
        return self._of(self.source_split.subsample_uids(uids, uids_name, new_sampler))

    def _of(self, source: Any) -> Sequence:
        made = SequenceBatch(source, self.batch_size, self.discard_batch_not_full, self.collate_fn)
        made.on_error_of_samples = self.on_error_of_samples
        return made


def stack(samples: list[Any], place: str = "") -> Any:
    """One batch of many samples: arrays and numbers stacked along a new first axis, the rest as lists.

    Containers keep the type of the first sample. ``place``: theirs within a sample, for messages.

    Raises:
        TypeError: no dtype holds all values of a number exactly, or samples are of different kinds. ValueError: samples
            have other keys or shapes.
    """
    first = samples[0]
    node = node_of(first)
    if node is not None:
        try:
            columns = node.columns(samples, f"samples{place}")
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error}; {ALIKE}") from None
        steps = node.steps()
        return node.like([stack(column, place + step) for column, step in zip(columns, steps, strict=True)])
    if first is None or isinstance(first, (str, bytes)):
        return samples if _TEXTS.issuperset(map(type, samples)) else _of_kinds(samples, place)
    return stacked(samples, place)


def _of_kinds(samples: list[Any], place: str) -> Any:
    """A batch of ``samples`` of which the first is None or a string, and others are neither."""
    others = [sample for sample in samples if not (sample is None or isinstance(sample, (str, bytes)))]
    numbers = [other for other in others if isinstance(other, _NUMBERS) or hasattr(other, "__array__")]
    if others and len(numbers) == len(others) and not any(isinstance(sample, (str, bytes)) for sample in samples):
        return stacked(samples, place)  # as where a number is the first
    wrong = next((other for other in others if node_of(other) is not None), numbers[0] if numbers else None)
    if wrong is not None:
        raise TypeError(f"samples{place} must be of one kind, not {short(samples[0])} and {short(wrong)}; {ALIKE}")
    return samples


@makes("stack")
def stack_list(batch: Any) -> Any:
    """A list of samples stacked; anything else as it is."""
    return stack(batch) if isinstance(batch, list) and batch else batch


def unstack(batch: Any) -> list[Any]:
    """The samples that :func:`stack` has made ``batch`` of."""
    is_of_samples = is_list(batch) and (not batch or batch[0] is None or isinstance(batch[0], (str, bytes)))
    node = None if is_of_samples else node_of(batch)
    if node is not None:
        return [node.like(list(row)) for row in zip(*map(unstack, node.parts), strict=True)]
    if isinstance(batch, np.ma.MaskedArray):  # its items would be numbers, without their dtype where they are masked
        return [batch[at : at + 1].reshape(batch.shape[1:]) for at in range(len(batch))]
    return list(batch)


class Regrouped(NamedTuple):
    """Batches of ``batch_size`` samples from jobs that have any number of them each."""

    batch_size: int
    discard_batch_not_full: bool

    def add(self, carry: list[Ready], place: int, items: list[Any], passed_by: int) -> tuple[list[Ready], list[Ready]]:
        """(the samples that are left over, the batches that are whole, the last one first), now that the job at
        ``place`` has ``items``.

        ``carry``: the samples that were left over before, each with what is delivered along with it.
        """
        is_loose = bool(items) and isinstance(items[0], Loose)
        if items and not (is_loose or carry or passed_by):
            return carry, [(items[0], [(place, None)])]  # whole, as a worker has made it
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

    def rest(self, carry: list[Ready]) -> list[Ready]:
        """The last batch, of the samples that are left over."""
        return [self._batch(carry)] if carry and not self.discard_batch_not_full else []

    @staticmethod
    def _batch(samples: list[Ready]) -> Ready:
        marks = dict(mark for _, marks in samples for mark in marks)  # of each place, the last one
        return stack([sample for sample, _ in samples]), list(marks.items())
