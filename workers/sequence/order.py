"""The order in which the batches of an epoch are delivered, computed where it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from workers.job.permutation import Permutation

_OF_SHUFFLE = 1  # part of the key: samplers draw by (seed, cycle)
_BLOCK = 1024  # places computed at a time: a permutation costs 30 us for one, and 60 us for a thousand


class Permuted(NamedTuple):
    """Permuted(1000, 7, 0): the places of epoch 0, which has 1000 batches, shuffled by seed 7.

    Of what is shuffled already, the level is 1, and so on: no two levels of a chain have the same permutation.
    """

    length: int
    seed: int
    epoch: int
    level: int = 0

    def take(self, places: Any) -> Any:
        """What stands at ``places``, integers from 0: an int64 array."""
        key: tuple[int, ...] = self.seed, self.epoch, _OF_SHUFFLE
        if self.level:
            key = *key, self.level
        return _permutation(self.length)(np.array(places, np.uint64), key).astype(np.int64, copy=False)


class Order(Sequence[int]):
    """The jobs at ``places``, through ``permutations``, in O(1) memory. A pure function of these two."""

    def __init__(self, places: Sequence[int], permutations: tuple[Permuted, ...]) -> None:
        self.places = places
        self.permutations = permutations
        self._block: tuple[int, list[int]] = (-1, [])  # (its number, its jobs): replaced as a whole

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Order(self.places[at], self.permutations)
        at = range(len(self))[at]
        number, within = divmod(at, _BLOCK)
        known, block = self._block
        if known != number:
            block = self._jobs(number)
            self._block = number, block
        return block[within]

    def take(self, at: Any) -> Any:
        """The jobs at ``at``, integers or an array of them: an int64 array."""
        at = np.asarray(at, np.int64)
        places = self.places
        if isinstance(places, range):
            jobs = places.start + places.step * np.where(at < 0, at + len(places), at)
        else:
            jobs = np.asarray(places, np.int64)[at]
        if at.size and not (-len(places) <= at.min() and at.max() < len(places)):
            raise IndexError(f"an order of {len(places)} has no places {at.min()} to {at.max()}")
        for permuted in self.permutations:
            jobs = permuted.take(jobs)
        return jobs

    def _jobs(self, block: int) -> list[int]:
        jobs: Any = self.places[block * _BLOCK : (block + 1) * _BLOCK]
        for permuted in self.permutations:
            jobs = permuted.take(jobs)
        return [int(job) for job in jobs] if isinstance(jobs, (range, list)) else jobs.tolist()

    def __iter__(self) -> Any:
        for block in range(-(-len(self) // _BLOCK)):
            yield from self._jobs(block)

    def index(self, job: int, start: int = 0, stop: int | None = None) -> int:
        """Where ``job`` comes."""
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
        return (self.places, self.permutations) == (other.places, other.permutations)

    __hash__ = None  # type: ignore[assignment]


def ordered(places: Sequence[int], permutations: tuple[Permuted, ...]) -> Sequence[int]:
    """The jobs at ``places``."""
    return Order(places, permutations) if permutations else places


_permutation = lru_cache(16)(Permutation)
