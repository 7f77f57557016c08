"""``Plan`` describes what a chain of sequences computes: an epoch's jobs, their order, and the functions of items.

A :class:`Plan` holds for any epoch; the plan of one epoch, with its length, is in ``epoch_plan``. Each method of a
chain, such as ``shuffle``, corresponds to a method of Plan, which returns a new Plan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from workers import frameworks
from workers.frameworks.keras import Counted
from workers.job.task import Task, is_generator_function, knows_items

from .grouping import Assembly
from .order import Arrangement, InOrder, Shard, Shuffle, Slice

#: The values of ``on_error`` for which a batch may have fewer samples, because some were left out.
MAY_LACK = "skip", "ask"


class Plan(NamedTuple):
    """A description of what a chain of sequences computes in any epoch. Picklable if the user's objects in it are.

    A place is a number in the epoch's order of delivery. The job (computation of a batch) at a place has a number
    of its own, because a shuffle or a slice may come in between.

    Attributes:
        source: the object that is asked for the items of each job, by the job's number.
        origin: the user's object at the start of the chain.
        counted: the object whose ``len()``, if it has one, is the number of places before they are arranged.
        links: (name, arguments) of each method of the chain that a state must match, from the origin to the end.
        functions: the functions that are applied to the items of a job, in order.
        as_items: for each function, True if a list that it returns is a list of items.
        arrangements: the methods that order the jobs, such as a shuffle, from the end of the chain to its source.
        shard: the part of the places that belongs to this rank; None for all places.
        assembly: makes batches out of the items of several jobs, in the consumer's process; None if not needed.
        finished_by: the SequenceMap whose ``collate_fn`` finishes the batches in the consumer's process, or None.
        on_error: "raise", "skip", "redraw" or "ask": what to do with a sample of a batch that raises.
        seeds: the seeds given along the chain, from its end to its source.
        num_shuffles: the number of shuffles in the chain.
        is_mapped: True if a SequenceMap makes the items, so that they are made one by one.
        is_last: True if no other method can follow in the chain.
        drawn: the sequences whose orders are drawn in the user's process when an epoch begins, not in workers.
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
    drawn: tuple[Any, ...] = ()

    @classmethod
    def of(cls, source: Any, seeds: tuple[int, ...] = ()) -> Plan:
        """Return the plan of ``source`` alone: job ``i`` makes ``source[i]``. ``seeds``: its seed, if one was given."""
        return cls(source, source, source, seeds=seeds)

    # -- its properties

    @property
    def identity(self) -> list[Any]:
        """What identifies the chain in a state, last link outermost, e.g. ["SequenceBatch", ["Images"], 8, False]."""
        origin = self.origin
        if hasattr(type(origin), "_identity"):
            identity: list[Any] = origin._identity()
        else:
            identity = [origin.name if isinstance(origin, Counted) else type(origin).__qualname__]
        for name, arguments in self.links:
            identity = [name, identity, *arguments]
        return identity

    @property
    def is_rebatched(self) -> bool:
        """True if the consumer's process makes all batches, so workers cannot process them."""
        return self.assembly is not None and self.assembly.makes_all

    @property
    def yields(self) -> bool:
        """True if a generator function makes the items of a job, so that they come in portions, while the job runs."""
        return any(map(is_generator_function, self.functions))

    @property
    def is_stream(self) -> bool:
        """True if the consumer's process reads the source in order, although the source has indices."""
        return bool(getattr(self.origin, "is_stream", False))

    @property
    def is_read_here(self) -> bool:
        """True if the consumer's process reads the source's items in order, because it has only ``__iter__``."""
        return not (is_indexed(self.origin) or self.is_stream)

    @property
    def is_known_in_loop(self) -> bool:
        """True if only a loop over all batches finds out how many there are, and what is in each."""
        return self.is_read_here or self.yields or self.is_rebatched

    @property
    def has_lists(self) -> bool:
        """True if a job may make any number of items; False if each job makes exactly one."""
        if any(self.as_items) or self.on_error in MAY_LACK:
            return True
        return knows_items(self.source) and bool(self.source._has_lists)

    @property
    def world(self) -> int:
        """The number of ranks; 1 without a shard. Each batch that a rank delivers stands for this many places."""
        return 1 if self.shard is None else self.shard.world

    def has_places_of(self, other: Plan) -> bool:
        """Return True if a position counts the same batches in this plan as in ``other``, so that a state fits both."""
        return self.origin is other.origin and self.links == other.links

    def num_places(self) -> int | None:
        """Return the number of batches in an epoch, of all ranks; None if unknown. Calls the user's ``__len__``."""
        number = self.count()
        return None if number is None else self.num_places_of(number)

    def count(self) -> int | None:  # type: ignore[override]  # hides tuple.count, which is not needed
        """Return the length of an epoch before slices, by ``__len__`` of ``counted``; None if it has no ``__len__``."""
        return len(self.counted) if hasattr(self.counted, "__len__") else None

    def num_places_of(self, number: int) -> int:
        """Return the length of an epoch after slices, given its length ``number`` before slices."""
        for arrangement in reversed(self.arrangements):
            number = arrangement.num_places(number)
        return number

    @property
    def needs_seed(self) -> bool:
        """True if the order of an epoch depends on the seed of the last sequence in the chain."""
        return any(arrangement.needs_seed for arrangement in self.arrangements)

    def task(self, seed: int) -> Task:
        """Return the task that a worker runs to make the items of any job. ``seed`` determines all random draws."""
        return Task(self.source, self.functions, seed, self.as_items)

    # -- the methods of the chain

    def seen_from_behind(self) -> Plan:
        """Return the plan that the next sequence builds on. After a map with ``collate_fn``, that map is its source."""
        if self.finished_by is None:
            return self
        slices = tuple(each for each in self.arrangements if isinstance(each, (Slice, InOrder)))
        made = {"source": self.finished_by, "functions": (), "as_items": (), "finished_by": None}
        return self._replace(**made, arrangements=(InOrder(slices),) if slices else ())

    def mapped(self, function: Any, as_items: bool, finished_by: Any, on_error: str, seed: int | None) -> Plan:
        """Return the plan of a SequenceMap that applies ``function``, if not None, to each item of this plan."""
        self._check_is_not_last()
        made = self._with(on_error=on_error, finished_by=finished_by, seeds=self._seeds(seed), is_mapped=True)
        if function is None:
            return made
        self._check_can_follow()
        functions, as_items_of = (*self.functions, function), (*self.as_items, as_items)
        return made._replace(functions=functions, as_items=as_items_of, assembly=None)

    def shuffled(self, seed: int | None) -> Plan:
        """Return this plan with a new random order in each epoch, drawn by ``seed``; None for the chain's seed."""
        self._check_can_follow()
        self._check_not_sharded(
            "shuffle before sharding, so that all ranks agree: sequence.shuffle().shard(rank, world)"
        )
        given = self._seeds(seed)
        arrangements = Shuffle(next(iter(given), None), self.num_shuffles), *self.arrangements
        made = self._with("SequenceShuffle", arrangements=arrangements, seeds=given)
        return made._replace(num_shuffles=self.num_shuffles + 1)

    def windowed(self, source: Any, window: int) -> Plan:
        """Return this plan with ``source``, the same items shuffled within windows of ``window``, as its source."""
        self._check_can_follow()
        return self._with("SequenceWindows", window, source=source)

    def sliced(self, start: int | None, stop: int | None, step: int | None) -> Plan:
        """Return this plan with only the places in the slice ``[start:stop:step]``, as of a list."""
        self._check_can_follow()
        self._check_not_sharded("slice before sharding, so that all ranks agree: sequence[a:b].shard(rank, world)")
        arrangements = Slice(start, stop, step), *self.arrangements
        return self._with("SequenceSlice", start, stop, step, arrangements=arrangements)

    def chosen(self, made: Any, name: str, arguments: tuple[Any, ...], is_drawn: bool) -> Plan:
        """Return the plan of ``made``, a sequence of chosen places of this plan; ``is_drawn`` adds it to ``drawn``."""
        self._check_can_follow()
        self._check_not_sharded("shard last, so that all ranks agree: write .shard(rank, world) after it")
        plan = self._over(made, name, *arguments)
        return plan._replace(drawn=(*self.drawn, made)) if is_drawn else plan

    def sharded(self, rank: int, world: int, remainder: str) -> Plan:
        """Return the plan of one rank's part of this plan. All ranks share one position, so a state fits them all."""
        self._check_can_follow()
        self._check_not_sharded(
            "only a Sequence that is not sharded yet can be sharded: write .shard(rank, world) once"
        )
        return self._with(shard=Shard(rank, world, remainder))

    def batched(self, batches: Any, size: int, discard: bool, assembly: Assembly | None) -> Plan:
        """Return the plan of ``batches``, a sequence whose jobs each make a batch from ``size`` places of this plan."""
        self._check_can_follow()
        self._check_not_sharded("shard batches, not samples: sequence.batch(...).shard(rank, world)")
        return self._over(batches, "SequenceBatch", size, discard)._replace(assembly=assembly)

    def batched_as_yielded(self, size: int, discard: bool, assembly: Assembly) -> Plan:
        """Return this plan with the items that a generator function yields made into batches, by ``assembly``."""
        self._check_can_follow()
        return self._with("SequenceBatch", size, discard, assembly=assembly)

    def batched_as_read(self, chunks: Any, function: Any, size: int, discard: bool, assembly: Assembly | None) -> Plan:
        """Return this plan with ``chunks``, lists of an iterable's items, as source; ``function`` makes the batches."""
        self._check_can_follow()
        made = self._with("SequenceChunks", size, discard, source=chunks, counted=None, assembly=assembly)
        return made._replace(functions=(function,), as_items=(True,))

    def cached(self, cache: Any) -> Plan:
        """Return this plan with ``cache``, which keeps the items of each job, as its source. No state shows it."""
        self._check_can_follow()
        name = "SequenceCache" if self.yields else ""  # whose items then come all at once, not one by one
        return self._with(name, source=cache, functions=(), as_items=())

    def rebatched(self, assembly: Assembly, size: int, discard: bool) -> Plan:
        """Return this plan with its batches regrouped into ``size`` samples each, by ``assembly``, in the consumer."""
        self._check_can_follow()
        return self._with("SequenceRebatch", size, discard, assembly=assembly)

    def limited(self) -> Plan:
        """Return this plan marked as the last in its chain, for ``max_samples()``: only a loop can count samples."""
        self._check_is_not_last()
        return self._with(is_last=True)

    def _seeds(self, seed: int | None) -> tuple[int, ...]:
        return self.seeds if seed is None else (seed, *self.seeds)

    def _with(self, name: str = "", *arguments: Any, **changes: Any) -> Plan:
        if name:
            changes["links"] = (*self.links, (name, arguments))
        return self._replace(**changes)

    def _over(self, made: Any, name: str, *arguments: Any) -> Plan:
        plan = self._with(name, *arguments, source=made, counted=made)
        return plan._replace(functions=(), as_items=(), arrangements=(), is_mapped=False)

    def _check_can_follow(self) -> None:
        self._check_is_not_last()
        if self.is_rebatched:
            raise TypeError(
                "the batches of .rebatch(), and of .batch() behind a generator function, are put together in the "
                "consumer's process, so only .prefetch() and .max_samples() can follow it: apply functions before it, "
                "or in the loop"
            )

    def _check_not_sharded(self, instead: str) -> None:
        if self.shard is not None:
            raise TypeError(instead)

    def _check_is_not_last(self) -> None:
        if self.is_last:
            instead = "apply functions of batches before it, or in the loop"
            raise TypeError(f"max_samples() must be the last of a chain, except for its own .prefetch(): {instead}")


def is_indexed(source: Any) -> bool:
    """Return True if ``source``, the start of a chain, can be read by index, not only by ``__iter__``."""
    has_both = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return has_both and not any(frameworks.asked("is_iterable_dataset", source))
