"""The order in which a reservoir draws from its items, and loads them: functions of (seed, epoch)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.job.stream import hashed

from .chosen import SequenceChosen
from .derived import source_length

_OF_RESERVOIR = 5  # part of the key of the random order: other methods, such as shuffle, have other numbers


class Draws(NamedTuple):
    """The draws of one epoch from a reservoir.

    Attributes:
        loads: for each draw, the load (number in the order of loading) whose item it gets.
        until: for each draw, how many loads must be done before it.
        last: for each load, the last draw that gets its item; -1 if there is none.
    """

    loads: NDArray[np.int64]
    until: NDArray[np.int64]
    last: NDArray[np.int64]


def draws_of(number: int, size: int, draws_per_item: int, seed: int, epoch: int) -> Draws:
    """Return the draws of ``epoch`` from a reservoir of ``size`` items, which holds ``number`` items one after another.

    Each item is drawn ``draws_per_item`` times, at random times during its stay. Its stay is ``size * draws_per_item``
    draws long, and one item is replaced every ``draws_per_item`` draws. The first ``size`` loads are the last items of
    the epoch, with those of their draws that come too late for its end; so the reservoir is full from the start.
    """
    total, stay = number * draws_per_item, size * draws_per_item
    key = hashed(seed, repr((epoch, _OF_RESERVOIR)).encode())
    delays = np.random.Generator(np.random.Philox(key=key)).random(total) * stay
    copies = np.arange(total)
    times = copies + delays
    is_early = times >= total
    times[is_early] -= total
    order = np.argsort(times, kind="stable")
    loads = (copies // draws_per_item + np.where(is_early, size - number, size))[order]
    last = np.full(number + size, -1)
    last[loads] = np.arange(total)  # of equal loads, the last one counts
    return Draws(loads, np.maximum.accumulate(loads) + 1, last)


class Loads(NamedTuple):
    """The items in the order of loading: the last ``size`` of them, and then all."""

    number: int
    size: int

    def __len__(self) -> int:
        return self.number + self.size if self.number else 0

    def take(self, jobs: Any) -> Any:
        """Return the places of the source whose items are loaded as numbers ``jobs`` in the order."""
        return (np.asarray(jobs, np.int64) - self.size) % self.number


class SequenceLoads(SequenceChosen[Any]):
    """The items of another sequence in the order in which a reservoir of ``size`` items loads them."""

    _names_places = False

    def __init__(self, source_split: Any, size: int) -> None:
        self.size = size
        super().__init__(source_split, "kept in a reservoir")

    def _choice(self) -> Loads:
        number = source_length(self)
        return Loads(number, min(self.size, number))

    def _arguments(self) -> tuple[Any, ...]:
        return (self.size,)
