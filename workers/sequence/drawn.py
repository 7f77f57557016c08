"""Delivers samples in the order of a sampler: a torch sampler, any iterable of indices, or a function of the epoch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_function, short

from .chosen import Given, SequenceChosen
from .derived import source_length
from .groups import Groups, SequenceGroups


def _most_indices(length: int) -> int:
    """Return how many indices a sampler may yield for ``length`` samples before it counts as endless."""
    return 1000 * (length + 1000)


class SequenceReordered(SequenceChosen):
    """The samples of another sequence in the order of ``sampler``: see :meth:`Sequence.reorder`."""

    _is_drawn = _changes_order = True

    def __init__(self, source_split: Any, sampler: Any) -> None:
        self.sampler = check_sampler("sampler", sampler)
        super().__init__(source_split, "put into another order")

    def _choice(self) -> Given:
        return self._drawn(self._draw, self.sampler)  # type: ignore[no-any-return]

    def _draw(self) -> Given:
        length = source_length(self)
        return Given(_indices("sampler", drawn_from(self.sampler, self.epoch), length, self._item_names[1]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sampler": None}  # not needed in workers: the user's process draws the orders


class SequenceOfLists(SequenceGroups):
    """Batches of the samples that ``batch_sampler`` lists: see :meth:`Sequence.batch_by`."""

    _is_drawn = _changes_order = True

    def __init__(
        self, source_split: Any, batch_sampler: Any, collate_fn: Callable[[list[Any]], Any] | None = None
    ) -> None:
        self.batch_sampler = check_sampler("batch_sampler", batch_sampler)
        super().__init__(source_split, "put into batches", check_function("collate_fn", collate_fn))

    def _choice(self) -> Groups:
        return self._drawn(self._draw, self.batch_sampler)  # type: ignore[no-any-return]

    def _draw(self) -> Groups:
        length, sizes, places = source_length(self), [], []
        for number, each in enumerate(drawn_from(self.batch_sampler, self.epoch)):
            if np.ndim(each) != 1:
                raise TypeError(
                    f"batch_sampler must yield lists of indices, but number {number} is {short(each)} "
                    f"({type(each).__name__}): give single indices as sampler=..., with batch_size=..."
                )
            found = _indices(f"list {number} of batch_sampler", each, length, self._item_names[1])
            if not len(found):
                raise ValueError(f"list {number} of batch_sampler is empty: a batch has at least one sample")
            sizes.append(len(found))
            places.append(found)
            if number > _most_indices(length):
                raise ValueError(_endless("batch_sampler", number, "lists", length))
        return Groups(np.concatenate([np.zeros(0, np.int64), *places]), np.array(sizes, np.int64))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "batch_sampler": None}  # not needed in workers: the user's process draws the batches


def check_sampler(name: str, sampler: Any) -> Any:
    """Return ``sampler`` if it can give an order for every epoch, else raise TypeError that names argument ``name``."""
    if isinstance(sampler, type):
        raise TypeError(f"{name} is the class {sampler.__name__}: give an instance of it, {sampler.__name__}(...)")
    is_iterable = hasattr(sampler, "__iter__") and not isinstance(sampler, (str, bytes))
    if not (is_iterable or callable(sampler)):
        raise TypeError(
            f"{name} must be an iterable, such as a sampler of torch or an array, or a function of the epoch, not "
            f"{short(sampler)} ({type(sampler).__name__})"
        )
    if hasattr(sampler, "__next__"):
        raise TypeError(
            f"{name} is an iterator ({type(sampler).__name__}), which is used up after one epoch: give a list, or a "
            "function of the epoch that returns one"
        )
    return sampler


def drawn_from(sampler: Any, epoch: int) -> Iterable[Any]:
    """Return the order of ``epoch``: ``sampler`` itself, after ``set_epoch``; or, for a function, its result."""
    if hasattr(sampler, "__iter__"):
        if callable(getattr(sampler, "set_epoch", None)):
            sampler.set_epoch(epoch)
        return sampler  # type: ignore[no-any-return]
    found = sampler(epoch)
    if not hasattr(found, "__iter__") or isinstance(found, (str, bytes)):
        raise TypeError(f"the sampler's function must return an iterable for epoch {epoch}, not {short(found)}")
    return found  # type: ignore[no-any-return]


def _indices(name: str, found: Iterable[Any], length: int, items: str) -> NDArray[np.int64]:
    """Return ``found`` as a checked array of indices, 0 to ``length`` - 1. Negative indices count from the end."""
    if not hasattr(found, "dtype"):
        most = _most_indices(length)
        found = list(itertools.islice(found, most + 1))
        if len(found) > most:
            raise ValueError(_endless(name, most, "indices", length))
    places = np.asarray(found)
    if places.ndim != 1 or not (places.dtype.kind in "iu" or not places.size):
        raise TypeError(
            f"{name} must give integers, the indices of {items}, not {short(found)}: for lists of indices write "
            "batch_sampler=..."
        )
    wrong = np.flatnonzero((places < -length) | (places >= length))
    if len(wrong):
        raise IndexError(f"{name} gives index {places[wrong[0]]} at place {wrong[0]}, but there are {length} {items}")
    places = places.astype(np.int64)
    return np.where(places < 0, places + length, places)


def _endless(name: str, number: int, given: str, length: int) -> str:
    return (
        f"{name} has given {number:,} {given} for {length:,} items and goes on: an epoch must end, so stop it, such as "
        "by itertools.islice, in a function of the epoch"
    )
