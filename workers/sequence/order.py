"""Computes, on demand, the order in which the batches of an epoch are delivered: shuffled, sliced or sharded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from workers.job.permutation import permutation

_OF_SHUFFLE = 1  # part of the key of the random orders: other methods, such as bucket, have other numbers
_BLOCK = 1024  # places computed at a time: one place of a permutation costs 30 us, and a thousand cost 60 us


class Ordering(Protocol):
    """The order that one method in a chain, such as ``shuffle``, gives to one epoch. It pickles to a few bytes."""

    def take(self, places: Any) -> Any:
        """Return the places of the source that come at ``places`` of this order, as an int64 array."""


class Permuted(NamedTuple):
    """The shuffled order of one epoch, e.g. Permuted(length=1000, seed=7, epoch=0) for an epoch of 1000 batches.

    The first shuffle in a chain has ``level`` 0, the second one 1, and so on, so that each gives a different order.
    """

    length: int
    seed: int
    epoch: int
    level: int = 0

    def take(self, places: Any) -> Any:
        """Return the places of the source that come at ``places`` of this order, as an int64 array."""
        if not self.length:  # an epoch without batches has no places
            return np.zeros(0, np.int64)
        key: tuple[int, ...] = self.seed, self.epoch, _OF_SHUFFLE
        if self.level:
            key = *key, self.level
        return permutation(self.length)(np.array(places, np.uint64), key).astype(np.int64, copy=False)


def through(orderings: Sequence[Ordering], places: Any) -> Any:
    """Return the numbers of the jobs at ``places`` of an epoch, by applying ``orderings`` one after the other."""
    for ordering in orderings:
        places = ordering.take(places)
    return places


class Order(Sequence[int]):
    """The numbers of the jobs at ``places`` of an epoch, as a sequence that is computed on demand in O(1) memory."""

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
        """Return the numbers of the jobs at ``at`` (an index, or an array of indices), as an int64 array."""
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
        """Return the index of job number ``job``, from ``start`` to ``stop`` - 1; raise ValueError if there is none."""
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
    """The orders that one method in a chain, such as ``shuffle``, gives to all epochs, one order to each epoch."""

    @property
    def needs_seed(self) -> bool:
        """True if the orders depend on the seed of the last sequence in the chain."""

    def num_places(self, of: int) -> int:
        """Return how many of the source's ``of`` places an epoch has in this order; a slice leaves some out."""

    def in_epoch(self, of: int, epoch: int, seed: int) -> Ordering:
        """Return the order of the source's ``of`` places in ``epoch``, drawn by ``seed`` if ``needs_seed``."""


class Shuffle(NamedTuple):
    """The random orders of a ``shuffle``, one for each epoch, drawn by (seed, epoch).

    ``level`` is the number of earlier shuffles in the chain. ``seed`` is the seed given to the shuffle or to a sequence
    before it; None for the seed of the last sequence in the chain.
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


class Strided(NamedTuple):
    """The order of a slice in one epoch: its place ``i`` is place ``start + i * step`` of the source."""

    start: int
    step: int

    def take(self, places: Any) -> Any:
        """Return the places of the source that come at ``places`` of this order, as an int64 array."""
        return self.start + self.step * np.asarray(places, np.int64)


class Slice(NamedTuple):
    """The order of a slice, the same in each epoch. ``start``, ``stop`` and ``step`` mean the same as for a list."""

    start: int | None
    stop: int | None
    step: int | None

    @property
    def needs_seed(self) -> bool:
        return False

    def num_places(self, of: int) -> int:
        return len(self._places(of))

    def in_epoch(self, of: int, epoch: int, seed: int) -> Strided:
        places = self._places(of)
        return Strided(places.start, places.step)

    def _places(self, of: int) -> range:
        return range(of)[self.start : self.stop : self.step]


class InOrder(NamedTuple):
    """The places of a SequenceMap that does its own slicing, in order. ``slices`` only tell how many there are."""

    slices: tuple[Any, ...]  # the last slice of the chain first

    @property
    def needs_seed(self) -> bool:
        return False

    def num_places(self, of: int) -> int:
        for each in reversed(self.slices):
            of = each.num_places(of)
        return of

    def in_epoch(self, of: int, epoch: int, seed: int) -> Strided:
        return Strided(0, 1)


class Shard(NamedTuple):
    """One rank's part of each epoch: every ``world``-th batch. ``remainder`` is "drop" or "pad", as in ``shard()``."""

    rank: int
    world: int
    remainder: str

    def num_steps(self, num_places: int) -> int:
        """Return the number of batches that each rank has in an epoch of ``num_places`` batches."""
        return num_places // self.world if self.remainder == "drop" else -(-num_places // self.world)

    def place(self, index: int, length: int) -> int:
        """Return the place of this rank's batch ``index`` in an epoch of ``length`` batches."""
        return (index * self.world + self.rank) % length

    def places(self, batch: int, length: int) -> Sequence[int]:
        """Return this rank's places, from place ``batch`` on, in an epoch of ``length`` batches."""
        mine = range(batch + self.rank, batch + self.num_steps(length - batch) * self.world, self.world)
        return [place % length for place in mine] if mine and mine[-1] >= length else mine


def ordered(places: Sequence[int], orderings: tuple[Ordering, ...]) -> Sequence[int]:
    """Return the numbers of the jobs at ``places`` of an epoch. ``orderings``, if any, are applied on demand."""
    return Order(places, orderings) if orderings else places


def last_epochs(kept: dict[Any, Any], epoch: int) -> dict[Any, Any]:
    """Return ``kept``, {(epoch, ...): value}, with only ``epoch`` and one other, which another loop may use."""
    others = [each[0] for each in kept if each[0] != epoch][-1:]
    return {each: value for each, value in kept.items() if each[0] == epoch or each[0] in others}
