"""What a chain computes, as a value: the jobs of an epoch, their order, and what happens to their items.

A :class:`Plan` describes any epoch; an :class:`EpochPlan` describes one epoch, with its length. Each method of a chain
corresponds to a method of Plan, which returns another Plan.
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
    """Place number ``rank`` of each ``world`` consecutive places. ``remainder``: "drop" or "pad"."""

    rank: int
    world: int
    remainder: str

    def num_steps(self, num_places: int) -> int:
        """Return how many of ``num_places`` batches each rank has."""
        return num_places // self.world if self.remainder == "drop" else -(-num_places // self.world)

    def place(self, index: int, length: int) -> int:
        """Return the place of this rank's batch ``index`` in an epoch of ``length``."""
        return (index * self.world + self.rank) % length

    def places(self, batch: int, length: int) -> OrderOf[int]:
        """Return this rank's remaining places when all places before ``batch`` were delivered."""
        mine = range(batch + self.rank, batch + self.num_steps(length - batch) * self.world, self.world)
        return [place % length for place in mine] if mine and mine[-1] >= length else mine


class Plan(NamedTuple):
    """What a chain computes in any epoch. Picklable if the user's objects in it are.

    Attributes:
        source: the object that has the items of each job, by the job's number.
        origin: the user's object at the start of the chain.
        counted: its ``len()`` is the number of places in an epoch, before they are arranged. None: unknown.
        links: (name, arguments) of each link that matters to a state, from the origin to the end.
        functions: the functions that the items of a job go through.
        as_items: for each function, True if a list that it returns is a list of items.
        arrangements: the orders of the jobs, from the end of the chain to its source.
        shard: the part of the places that it has. None: all.
        assembly: puts batches together from the items of several jobs, in the consumer's process.
        finished_by: the front-end whose ``collate_fn`` finishes the batches in the consumer's process.
        on_error: what to do with an item that raises, when batches are made of items: "raise", "skip" or "ask".
        seeds: the seeds given along the chain, its end first.
        num_shuffles: the number of shuffles in the chain.
        is_mapped: True if a front-end is part of it, so that its items are made one by one.
        is_last: True if nothing more can be made from it, except loops over it.
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
        """Return the plan of ``source``, whose indices are its jobs. ``seeds``: the seed that it was given, if any."""
        return cls(source, source, source, seeds=seeds)

    # -- its properties

    @property
    def identity(self) -> list[Any]:
        """What identifies the chain in a state: the identity of the origin, nested in the identities of the links."""
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
        """True if its batches are put together from batches in the consumer's process, so no worker can map them."""
        return self.assembly is not None and self.assembly.is_of_batches

    @property
    def is_stream(self) -> bool:
        """True if the origin is read in order in the consumer's process, although its batches have indices."""
        return bool(getattr(self.origin, "is_stream", False))

    @property
    def is_read_here(self) -> bool:
        """True if the origin has only ``__iter__``: its items are read in the consumer's process, as they come."""
        return not (is_indexed(self.origin) or self.is_stream)

    @property
    def has_lists(self) -> bool:
        """True if a job may have any number of items; otherwise it has one."""
        if any(self.as_items) or self.on_error != "raise":
            return True
        return knows_items(self.source) and bool(self.source._has_lists)

    @property
    def world(self) -> int:
        """The number of places that each delivered batch stands for."""
        return 1 if self.shard is None else self.shard.world

    def has_places_of(self, other: Plan) -> bool:
        """Return True if a state of one plan is the same position in the ``other``."""
        return self.origin is other.origin and self.links == other.links

    def num_places(self) -> int | None:
        """Return the number of places in an epoch. None: unknown. Calls the user's ``__len__``: see ``with_clock``."""
        number = self.count()
        return None if number is None else self.num_places_of(number)

    def count(self) -> int | None:  # type: ignore[override]  # hides tuple.count, which is not needed
        """Return the number of places before they are arranged. None: unknown. Calls the user's ``__len__``."""
        return len(self.counted) if hasattr(self.counted, "__len__") else None

    def num_places_of(self, number: int) -> int:
        """Return how many of ``number`` places there are after they are arranged."""
        for arrangement in reversed(self.arrangements):
            number = arrangement.num_places(number)
        return number

    @property
    def needs_seed(self) -> bool:
        """True if its order depends on the seed of the chain's end."""
        return any(arrangement.needs_seed for arrangement in self.arrangements)

    def task(self, seed: int) -> Task:
        """Return the task of a worker."""
        return Task(self.source, self.functions, seed, self.as_items)

    # -- the methods of the chain

    def seen_from_behind(self) -> Plan:
        """Return the plan that a next link sees: after a ``collate_fn``, jobs take the items of the front-end."""
        if self.finished_by is None:
            return self
        made = {"source": self.finished_by, "functions": (), "as_items": (), "arrangements": (), "finished_by": None}
        return self._replace(**made)

    def mapped(self, function: Any, as_items: bool, finished_by: Any, on_error: str, seed: int | None) -> Plan:
        """Return the plan of a front-end that applies ``function``, or None."""
        self._check_is_not_last()
        made = self._with(on_error=on_error, finished_by=finished_by, seeds=self._seeds(seed), is_mapped=True)
        if function is None:
            return made
        self._check_can_follow()
        functions, as_items_of = (*self.functions, function), (*self.as_items, as_items)
        return made._replace(functions=functions, as_items=as_items_of, assembly=None)

    def shuffled(self, seed: int | None) -> Plan:
        """Return the plan with a new order in each epoch."""
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
        """Return the plan of one rank's part. All ranks have the same position, so they share a state."""
        self._check_can_follow()
        if self.shard is not None:
            raise TypeError("only a Sequence that is not sharded yet can be sharded: write .shard(rank, world) once")
        return self._with(shard=Shard(rank, world, remainder))

    def batched(self, batches: Any, size: int, discard: bool, assembly: Assembly | None) -> Plan:
        """Return the plan of groups of ``size`` places, each of which is a job of ``batches``."""
        self._check_can_follow()
        if self.shard is not None:
            raise TypeError("shard batches, not samples: sequence.batch(...).shard(rank, world)")
        made = self._with("SequenceBatch", size, discard, source=batches, counted=batches, assembly=assembly)
        return made._replace(functions=(), as_items=(), arrangements=(), is_mapped=False)

    def batched_as_read(self, chunks: Any, function: Any, size: int, discard: bool, assembly: Assembly | None) -> Plan:
        """Return the same for an origin that is read here: ``function`` makes a batch from each of ``chunks``."""
        self._check_can_follow()
        made = self._with("SequenceChunks", size, discard, source=chunks, counted=None, assembly=assembly)
        return made._replace(functions=(function,), as_items=(True,))

    def rebatched(self, assembly: Assembly, size: int, discard: bool) -> Plan:
        """Return the plan of batches that the consumer puts together anew, from batches."""
        self._check_can_follow()
        return self._with("SequenceRebatch", size, discard, assembly=assembly)

    def limited(self) -> Plan:
        """Return the plan of passes of a number of samples, which only a loop can count."""
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
                "the batches of rebatch() are put together in the consumer's process, so only .prefetch() and "
                ".max_samples() can follow it: apply functions of batches before it, or in the loop"
            )

    def _check_is_not_last(self) -> None:
        if self.is_last:
            raise TypeError(
                "max_samples() must be the last of a chain, except for its own .prefetch(): apply functions of batches "
                "before it, or in the loop"
            )


class EpochPlan(NamedTuple):
    """What a chain computes in one epoch.

    ``number``: the number of places before they are arranged. None: unknown. ``seed``: that of the chain's end, if
    ``plan.needs_seed``.
    """

    plan: Plan
    epoch: int
    number: int | None
    seed: int = 0

    @property
    def length(self) -> int | None:
        """The number of places. None: unknown."""
        return None if self.number is None else self.plan.num_places_of(self.number)

    def following(self) -> EpochPlan:
        """Return the plan of the next epoch, assuming that it is as long."""
        return self._replace(epoch=self.epoch + 1)

    @property
    def num_steps(self) -> int:
        """The number of batches, if each job makes one."""
        length = self._known_length()
        return length if self.plan.shard is None else self.plan.shard.num_steps(length)

    def place(self, index: int) -> int:
        """Return the place of batch ``index`` among those of this rank."""
        shard = self.plan.shard
        return index if shard is None else shard.place(index, self._known_length())

    def places(self, position: Position) -> OrderOf[int] | None:
        """Return the remaining places at ``position``. None: they are unknown.

        Raises:
            StateError: a pass cannot start at this position.
        """
        length = self.length
        if length is None:
            return None
        plan, (batch, partial, _) = self.plan, position.delivered
        is_within = partial is not None and not plan.is_rebatched  # after rebatch, all ranks are within the same batch
        if plan.shard is not None and (position.apart or is_within):
            raise StateError("the state was taken with in_order=False, or within a list: ranks cannot resume there")
        if is_within and not plan.is_mapped:
            raise StateError(
                "the state was taken within a list that a function returned: only a map with that function can resume"
            )
        if plan.shard is None:
            return position.left(length)
        places = plan.shard.places(batch, length)
        return places if partial is None else [partial[0], *places]

    def is_at_end(self, batch: int) -> bool:
        """Return True if the epoch is delivered when all places before ``batch`` are."""
        length, shard = self.length, self.plan.shard
        if length is None or shard is None:
            return length is not None and batch >= length
        return shard.num_steps(length - min(batch, length)) == 0

    def order(self, places: OrderOf[int]) -> OrderOf[int]:
        """Return the jobs at ``places``, computed on demand."""
        return ordered(places, self._orderings() if self.plan.arrangements else ())

    def jobs(self, places: OrderOf[int]) -> list[int]:
        """Return the jobs at ``places`` as a list."""
        return self.take(places).tolist() if self.plan.arrangements else list(places)

    def take(self, places: Any) -> Any:
        """Return the jobs at ``places`` as an int64 array."""
        return through(self._orderings() if self.plan.arrangements else (), np.array(places, np.int64))

    def job(self, index: int) -> int:
        """Return the job that makes batch ``index``, whose random draws are those of that job."""
        job: int = self.order([self.place(index)])[0]
        return job

    def identity_of_rank(self) -> list[int]:
        """Return what else identifies a state after a sharded rebatch, which only the same rank can resume."""
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
    """Return True if the items of ``source``, which is the origin of a chain, have indices."""
    has_both = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return has_both and not any(frameworks.asked("is_iterable_dataset", source))
