"""What a chain computes, as a value: which jobs an epoch has, in which order, and what becomes of their items.

A :class:`Plan` says it for any epoch; :class:`EpochPlan` for one, of which the length is known. Each word of the chain
is one function of a Plan, which returns another one.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import Any, NamedTuple

import numpy as np

from workers import frameworks
from workers.errors import StateError
from workers.frameworks.keras import Counted
from workers.job.task import Task, knows_items

from .grouping import Assembly
from .order import Arrangement, Ordering, Shuffle, ordered, through
from .position import Position


class Shard(NamedTuple):
    """Of each ``world`` consecutive places, that of number ``rank``; ``remainder``: "drop" or "pad"."""

    rank: int
    world: int
    remainder: str

    def num_steps(self, num_places: int) -> int:
        """How many batches each rank has of so many."""
        return num_places // self.world if self.remainder == "drop" else -(-num_places // self.world)

    def place(self, index: int, length: int) -> int:
        """Where batch ``index`` of this rank stands in an epoch of ``length``."""
        return (index * self.world + self.rank) % length

    def places(self, batch: int, length: int) -> OrderOf[int]:
        """The places that are left to this rank when all before ``batch`` were delivered."""
        mine = range(batch + self.rank, batch + self.num_steps(length - batch) * self.world, self.world)
        return [place % length for place in mine] if mine and mine[-1] >= length else mine


class Plan(NamedTuple):
    """What a chain computes in any epoch. Picklable as far as the user's objects in it are.

    Attributes:
        source: what a job is asked of, by its number.
        origin: the user's object at the beginning of the chain.
        counted: an epoch has as many places as ``len()`` of it, before they are arranged; None: that is not known.
        links: (name, arguments) of each link that tells a state from others, from the origin to the end.
        functions: what the items of a job go through. as_items: which of them return lists of items.
        arrangements: how the jobs are ordered, from the end of the chain to its source.
        shard: which part of the places it has; None: all.
        assembly: puts batches together of the items of several jobs, where they are read.
        finished_by: the front-end whose ``collate_fn`` finishes the batches where they are read.
        on_error: what becomes of an item that raises, where batches are made of items: "raise", "skip" or "ask".
        seeds: those that were given along the chain, its end first.
        num_shuffles: in all of the chain.
        is_mapped: a front-end is part of it, so items are asked for one by one.
        is_last: nothing can be made of it but loops.
    """

    source: Any
    origin: Any
    counted: Any
    links: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    functions: tuple[Callable[[Any], Any], ...] = ()
    as_items: tuple[bool, ...] = ()
    arrangements: tuple[Arrangement, ...] = ()
    shard: Shard | None = None
    assembly: Assembly | None = None
    finished_by: Any = None
    on_error: str = "raise"
    seeds: tuple[int, ...] = ()
    num_shuffles: int = 0
    is_mapped: bool = False
    is_last: bool = False

    @classmethod
    def of(cls, source: Any, seeds: tuple[int, ...] = ()) -> Plan:
        """That of a source, each of whose indices is a job. ``seeds``: that which it was given."""
        return cls(source, source, source, seeds=seeds)

    # -- what is asked

    @property
    def identity(self) -> list[Any]:
        """What tells a state from others: the origin's, within that of each link."""
        origin = self.origin
        if hasattr(type(origin), "_make_live"):
            identity: list[Any] = origin._identity()
        else:
            identity = [origin.name if isinstance(origin, Counted) else type(origin).__qualname__]
        for name, arguments in self.links:
            identity = [name, identity, *arguments]
        return identity

    @property
    def is_rebatched(self) -> bool:
        """Whether its batches are put together of batches, where they are read: no function of a worker has them."""
        return self.assembly is not None and self.assembly.is_of_batches

    @property
    def is_stream(self) -> bool:
        """Whether the origin is read in order in the consumer's process, though its batches have indices."""
        return bool(getattr(self.origin, "is_stream", False))

    @property
    def is_read_here(self) -> bool:
        """Whether the origin has only ``__iter__``: its items are read in the consumer's process, as they come."""
        return not (is_indexed(self.origin) or self.is_stream)

    @property
    def has_lists(self) -> bool:
        """Whether a job may have any number of items. Else it has one."""
        if any(self.as_items) or self.on_error != "raise":
            return True
        return knows_items(self.source) and bool(self.source._has_lists)

    @property
    def world(self) -> int:
        """How many places of the epoch each batch stands for that it delivers."""
        return 1 if self.shard is None else self.shard.world

    def has_places_of(self, other: Plan) -> bool:
        """Whether a state of the one is at the same place in the other."""
        return self.origin is other.origin and self.links == other.links

    def num_places(self) -> int | None:
        """How many places an epoch has; None: that is not known. Asks the user's ``__len__``, on behalf of a clock."""
        number = self.count()
        return None if number is None else self.num_places_of(number)

    def count(self) -> int | None:  # type: ignore[override]  # hides tuple.count, which nobody needs here
        """The same before they are arranged."""
        return len(self.counted) if hasattr(self.counted, "__len__") else None

    def num_places_of(self, number: int) -> int:
        """How many places there are of so many, when they are arranged."""
        for arrangement in reversed(self.arrangements):
            number = arrangement.num_places(number)
        return number

    @property
    def needs_seed(self) -> bool:
        """Whether an epoch of it depends on the seed of the chain's end."""
        return any(arrangement.needs_seed for arrangement in self.arrangements)

    def task(self, seed: int) -> Task:
        """What a worker does."""
        return Task(self.source, self.functions, seed, self.as_items)

    # -- the words of the chain

    def seen_from_behind(self) -> Plan:
        """What a link is made of. Where ``collate_fn`` finishes the batches, a job asks the front-end for its items."""
        if self.finished_by is None:
            return self
        made = {"source": self.finished_by, "functions": (), "as_items": (), "arrangements": (), "finished_by": None}
        return self._replace(**made)

    def mapped(self, function: Any, as_items: bool, finished_by: Any, on_error: str, seed: int | None) -> Plan:
        """Through a function, or None; the end of this chain is a front-end."""
        self._check_is_not_last()
        made = self._with(on_error=on_error, finished_by=finished_by, seeds=self._seeds(seed), is_mapped=True)
        if function is None:
            return made
        self._check_can_follow()
        functions, as_items_of = (*self.functions, function), (*self.as_items, as_items)
        return made._replace(functions=functions, as_items=as_items_of, assembly=None)

    def shuffled(self, seed: int | None) -> Plan:
        """In another order in each epoch."""
        self._check_can_follow()
        if self.shard is not None:
            raise TypeError("shuffle before sharding, so that all ranks agree: sequence.shuffle().shard(rank, world)")
        given = self._seeds(seed)
        return self._with(
            "SequenceShuffle",
            arrangements=(Shuffle(next(iter(given), None), self.num_shuffles), *self.arrangements),
            seeds=given,
            num_shuffles=self.num_shuffles + 1,
        )

    def sharded(self, rank: int, world: int, remainder: str) -> Plan:
        """The part of one rank. All ranks are at the same place, so a state does not tell them apart."""
        self._check_can_follow()
        if self.shard is not None:
            raise TypeError("only a Sequence that is not sharded yet can be: give .shard(rank, world) once")
        return self._with(shard=Shard(rank, world, remainder))

    def batched(self, batches: Any, size: int, discard: bool, assembly: Assembly | None) -> Plan:
        """In groups of ``size`` places, each of which is a job of ``batches``."""
        self._check_can_follow()
        if self.shard is not None:
            raise TypeError("shard batches, not samples: sequence.batch(...).shard(rank, world)")
        made = self._with("SequenceBatch", size, discard, source=batches, counted=batches, assembly=assembly)
        return made._replace(functions=(), as_items=(), arrangements=(), is_mapped=False)

    def batched_as_read(self, chunks: Any, function: Any, size: int, discard: bool, assembly: Assembly | None) -> Plan:
        """The same of an origin that is read here: ``function`` makes the batch of each of ``chunks``."""
        self._check_can_follow()
        made = self._with("SequenceChunks", size, discard, source=chunks, counted=None, assembly=assembly)
        return made._replace(functions=(function,), as_items=(True,))

    def rebatched(self, assembly: Assembly, size: int, discard: bool) -> Plan:
        """Put together anew where they are read."""
        self._check_can_follow()
        return self._with("SequenceRebatch", size, discard, assembly=assembly)

    def limited(self) -> Plan:
        """In passes of so many samples, which only a loop can tell."""
        self._check_is_not_last()
        return self._with(is_last=True)

    def _seeds(self, seed: int | None) -> tuple[int, ...]:
        return self.seeds if seed is None else (seed, *self.seeds)

    def _with(self, name: str = "", *arguments: Any, **changes: Any) -> Plan:
        if name:
            changes["links"] = (*self.links, (name, arguments))
        return self._replace(**changes)

    def _check_can_follow(self) -> None:
        self._check_is_not_last()
        if self.is_rebatched:
            raise TypeError(
                "the batches of rebatch() are put together where they are read, so only .prefetch() and .max_samples() "
                "can follow it: put what is to work on batches before it, or work on them in the loop"
            )

    def _check_is_not_last(self) -> None:
        if self.is_last:
            raise TypeError(
                "max_samples() is the last of a chain, but for its own .prefetch(): put what is to work on the batches "
                "before it, or work on them in the loop"
            )


class EpochPlan(NamedTuple):
    """What a chain computes in one epoch.

    ``number``: how many places it has before they are arranged; None: that is not known. ``seed``: that of the chain's
    end, where it is needed.
    """

    plan: Plan
    epoch: int
    number: int | None
    seed: int = 0

    @property
    def length(self) -> int | None:
        """How many places it has; None: that is not known."""
        return None if self.number is None else self.plan.num_places_of(self.number)

    def following(self) -> EpochPlan:
        """That of the next epoch, if it is as long."""
        return self._replace(epoch=self.epoch + 1)

    @property
    def num_steps(self) -> int:
        """How many batches it has, where each job makes one."""
        length = self._known_length()
        return length if self.plan.shard is None else self.plan.shard.num_steps(length)

    def place(self, index: int) -> int:
        """Where the batch stands that ``index`` names, of those that this rank has."""
        shard = self.plan.shard
        return index if shard is None else shard.place(index, self._known_length())

    def places(self, position: Position) -> OrderOf[int] | None:
        """The places that are left at ``position``; None: they are not known.

        Raises:
            StateError: it cannot go on there.
        """
        length = self.length
        if length is None:
            return None
        plan, (batch, partial, _) = self.plan, position.delivered
        is_within = partial is not None and not plan.is_rebatched  # else all ranks stand within the same batch
        if plan.shard is not None and (position.apart or is_within):
            raise StateError("the state was taken with in_order=False, or within a list: ranks cannot go on there")
        if is_within and not plan.is_mapped:
            raise StateError(
                "the state was taken within the list of a function; only a map with that function can go on"
            )
        if plan.shard is None:
            return position.left(length)
        places = plan.shard.places(batch, length)
        return places if partial is None else [partial[0], *places]

    def is_at_end(self, batch: int) -> bool:
        """Whether all is delivered when all places before ``batch`` are."""
        length, shard = self.length, self.plan.shard
        if length is None or shard is None:
            return length is not None and batch >= length
        return shard.num_steps(length - min(batch, length)) == 0

    def order(self, places: OrderOf[int]) -> OrderOf[int]:
        """The jobs at ``places``."""
        return ordered(places, self._orderings() if self.plan.arrangements else ())

    def jobs(self, places: OrderOf[int]) -> list[int]:
        """The same, now."""
        return self.take(places).tolist() if self.plan.arrangements else list(places)

    def take(self, places: Any) -> Any:
        """The same of many ``places`` at once: an int64 array."""
        return through(self._orderings() if self.plan.arrangements else (), np.array(places, np.int64))

    def job(self, index: int) -> int:
        """The job that makes the batch that ``index`` names: its draws are those of that job."""
        job: int = self.order([self.place(index)])[0]
        return job

    def identity_of_rank(self) -> list[int]:
        """What else tells a state from others where ranks stand within one batch: no other can go on there."""
        shard = self.plan.shard
        if shard is None or not self.plan.is_rebatched:
            return []
        return [shard.world, *shard.places(0, self._known_length())[:1]]

    def _orderings(self) -> tuple[Ordering, ...]:
        self._known_length()
        number: int = self.number  # type: ignore[assignment]
        found: list[Ordering] = []
        for arrangement in reversed(self.plan.arrangements):
            found.append(arrangement.in_epoch(number, self.epoch, self.seed))
            number = arrangement.num_places(number)
        return tuple(reversed(found))

    def _known_length(self) -> int:
        length = self.length
        if length is None:
            raise TypeError(f"{type(self.plan.origin).__name__} has no length")
        return length


def is_indexed(source: Any) -> bool:
    """Whether the items of ``source``, which is made of no other, can be asked for by index."""
    has_both = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return has_both and not any(frameworks.asked("is_iterable_dataset", source))
