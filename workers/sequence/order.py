"""The order in which the batches of an epoch are delivered, computed on demand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from workers.job.permutation import Permutation

_OF_SHUFFLE = 1  # part of the key, which tells it from those of samplers: (seed, cycle)
_BLOCK = 1024  # places computed at a time: a permutation costs 30 us for one, and 60 us for a thousand


class Ordering(Protocol):
    """The order that one method of a chain gives an epoch: a picklable value of a few bytes."""

    def take(self, places: Any) -> Any:
        """Return what is at ``places``, integers from 0, as an int64 array."""


class Permuted(NamedTuple):
    """The places of an epoch, shuffled: Permuted(1000, 7, 0) is epoch 0 of 1000 batches, by seed 7.

    The second shuffle of a chain has level 1, and so on, so that no two of them have the same permutation.
    """

    length: int
    seed: int
    epoch: int
    level: int = 0

    def take(self, places: Any) -> Any:
        """Return what is at ``places``, integers from 0, as an int64 array."""
        key: tuple[int, ...] = self.seed, self.epoch, _OF_SHUFFLE
        if self.level:
            key = *key, self.level
        return _permutation(self.length)(np.array(places, np.uint64), key).astype(np.int64, copy=False)


def through(orderings: Sequence[Ordering], places: Any) -> Any:
    """Map ``places`` through the orderings, one after the other, to jobs."""
    for ordering in orderings:
        places = ordering.take(places)
    return places


class Order(Sequence[int]):
    """The jobs at ``places`` through ``orderings``, as a sequence in O(1) memory: a pure function of the two."""

    def __init__(self, places: Sequence[int], orderings: tuple[Ordering, ...]) -> None:
        self.places = places
        self.orderings = orderings
        self._block: tuple[int, list[int]] = (-1, [])  # the last block: (its number, its jobs), replaced as a whole

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Order(self.places[at], self.orderings)
        at = range(len(self))[at]
        number, within = divmod(at, _BLOCK)
        known, block = self._block
        if known != number:
            block = self._jobs(number)
            self._block = number, block
        return block[within]

    def take(self, at: Any) -> Any:
        """Return the jobs at ``at``, an integer or an array of integers, as an int64 array."""
        at = np.asarray(at, np.int64)
        places = self.places
        if isinstance(places, range):
            jobs = places.start + places.step * np.where(at < 0, at + len(places), at)
        else:
            jobs = np.asarray(places, np.int64)[at]
        if at.size and not (-len(places) <= at.min() and at.max() < len(places)):
            raise IndexError(f"an order of {len(places)} has no places {at.min()} to {at.max()}")
        return through(self.orderings, jobs)

    def _jobs(self, block: int) -> list[int]:
        jobs: Any = through(self.orderings, self.places[block * _BLOCK : (block + 1) * _BLOCK])
        return [int(job) for job in jobs] if isinstance(jobs, (range, list)) else jobs.tolist()

    def __iter__(self) -> Any:
        for block in range(-(-len(self) // _BLOCK)):
            yield from self._jobs(block)

    def index(self, job: int, start: int = 0, stop: int | None = None) -> int:
        """Return the position of ``job``."""
        start, stop, _ = slice(start, stop).indices(len(self))
        for block in range(start // _BLOCK, -(-stop // _BLOCK)):
            first = block * _BLOCK
            for at, each in enumerate(self._jobs(block), first):
                if each == job and start <= at < stop:
                    return at
        raise ValueError(f"{job} is not in this order")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Order):
            return NotImplemented
        return (self.places, self.orderings) == (other.places, other.orderings)

    __hash__ = None  # type: ignore[assignment]


class Arrangement(Protocol):
    """The order that one method of a chain gives any epoch: a value."""

    @property
    def needs_seed(self) -> bool:
        """True if it depends on the seed of the chain's end."""

    def num_places(self, of: int) -> int:
        """Return how many places it makes of ``of`` places."""

    def in_epoch(self, of: int, epoch: int, seed: int) -> Ordering:
        """Return its ordering of ``of`` places in one epoch. ``seed``: that of the chain's end."""


class Shuffle(NamedTuple):
    """An order drawn for each epoch by (seed, epoch). ``level``: the number of shuffles before it in the chain.

    ``seed``: the one given to it or to a part before it. None: the seed of the chain's end.
    """

    seed: int | None
    level: int

    @property
    def needs_seed(self) -> bool:
        return self.seed is None

    def num_places(self, of: int) -> int:
        return of

    def in_epoch(self, of: int, epoch: int, seed: int) -> Permuted:
        return Permuted(of, seed if self.seed is None else self.seed, epoch, self.level)


def ordered(places: Sequence[int], orderings: tuple[Ordering, ...]) -> Sequence[int]:
    """Return the jobs at ``places``."""
    return Order(places, orderings) if orderings else places


_permutation = lru_cache(16)(Permutation)
