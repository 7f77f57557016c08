"""``SequenceDerived``: the base class of sequences made from another sequence, with functions to read their sources."""

from __future__ import annotations

import functools
from typing import Any

from workers.batch.private import private
from workers.errors import StateError
from workers.job.task import Task, made_from, one_of

from .base import Sequence, plan_of
from .clock import Clock, asking, seed_of_chain, with_clock
from .epoch_plan import EpochPlan
from .epochs import plan_of_epoch, seed_of_orders
from .of_epoch import of_epoch
from .plan import Plan, is_indexed
from .selection import Batch_co
from .source import check_source


class SequenceDerived(Sequence[Batch_co]):
    """The base class of sequences made from another sequence, ``source_split``, with the source's seed and hooks.

    Such a sequence starts in the source's current epoch, at the position of a state loaded into the source, if any. It
    then counts its own epochs. Its :class:`Plan`, i.e. what it computes, is made from the plan of the source.
    """

    _own_seed: int | None = None

    #: The names of the attributes that hold further sequences it was made from, besides ``source_split``.
    _names_beside: tuple[str, ...] = ()

    def __init__(self, source_split: Any) -> None:
        check_source("source_split", source_split)
        super().__init__()
        self.source_split = source_split
        plan = self._plan()  # raises if it cannot be made from that source
        if isinstance(source_split, Sequence):
            source_split._check_open()
            clock = Clock(source_split._clock)
            if not (clock.start.is_at_start or plan.has_places_of(plan_of(source_split))):
                raise StateError(
                    f"the state that was loaded into the {type(source_split).__name__} is within an epoch, and counts "
                    f"other batches than a {type(self).__name__} made from it: load it into the sequence that it was "
                    "taken from"
                )
            self.__dict__["_live"] = self._make_live(clock)

    def _plan(self) -> Plan:
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return plan_of_epoch(self).num_steps

    def __getitem__(self, index: int) -> Any:
        """Return batch ``index`` of the current epoch; or, if a function made no item or several, their list."""
        return one_of(items_of(self, plan_of_epoch(self).job(index)))

    # -- seeds

    @property
    def seed(self) -> int:
        """The seed of all random draws: the last one given to this sequence or a sequence that it was made from.

        If none was given, jobs and hooks use the seed of a sequence made from this one, if given; else one is drawn.
        """
        given = self._plan().seeds
        of_chain = None if given else seed_of_chain(self)
        if given or of_chain is not None:
            return given[0] if of_chain is None else of_chain
        source = self.source_split
        return source.seed if isinstance(source, Sequence) else super().seed

    @seed.setter
    def seed(self, seed: int) -> None:
        first = self.source_split
        while isinstance(first, SequenceDerived):
            first = first.source_split
        instead = f"set that of the {type(first).__name__}" if isinstance(first, Sequence) else "give seed=... there"
        raise AttributeError(f"the seed of a {type(self).__name__} is that of what it was made from: {instead}")

    # -- inherited from the source

    @property
    def weights(self) -> Any:
        """The weights of the last :meth:`weighted` in the chain. New weights take effect when the next epoch begins."""
        return self._weighted().weights

    @weights.setter
    def weights(self, weights: Any) -> None:
        self._weighted().weights = weights

    def _weighted(self) -> SequenceDerived[Any]:
        source = self.source_split
        if self._names_beside:
            raise AttributeError(f"a {type(self).__name__} has no weights of samples: set those of its sources")
        if not isinstance(source, SequenceDerived):
            raise AttributeError(f"a {type(self).__name__} has no weights of samples: write .weighted(weights) first")
        return source

    @property
    def is_stream(self) -> bool:  # type: ignore[override]
        """True if the consumer's process reads the source in order, although the source has indices."""
        return plan_of(self.source_split).is_stream

    def on_epoch_begin(self) -> None:
        """Call ``on_epoch_begin`` of the source, if it has one."""
        if hasattr(self.source_split, "on_epoch_begin"):
            self.source_split.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Call ``on_epoch_end`` of the source, if it has one."""
        if hasattr(self.source_split, "on_epoch_end"):
            self.source_split.on_epoch_end()

    def _is_length_at_hand(self) -> bool:
        origin = plan_of(self.source_split).origin
        return not isinstance(origin, Sequence) or origin._is_length_at_hand()

    def _check_open(self) -> None:
        super()._check_open()
        if isinstance(self.source_split, Sequence):
            self.source_split._check_open()

    @property
    def _item_names(self) -> tuple[str, str]:  # type: ignore[override]
        source = self.source_split
        return source._item_names if isinstance(source, Sequence) else Sequence._item_names


def parts_of(sequence: Any) -> list[Any]:
    """Return a list of ``sequence`` and all objects that it was made from, directly or through other sequences.

    Sequences that a user's object holds are not in the list.
    """
    found = [sequence]
    for each in found:
        if isinstance(each, SequenceDerived):
            found += made_from(each)
    return found


def items_of(sequence: SequenceDerived[Any], job: int, source: Any = None) -> list[Any]:
    """Return the items that job number ``job`` of ``sequence`` makes from ``source`` (default: its own source).

    Call it within a job.
    """
    task = of_epoch(sequence, "task", functools.partial(_task_of, sequence))
    return task.run(job, None, source)


def _task_of(sequence: SequenceDerived[Any]) -> Task:
    plan = sequence._plan()
    if plan.is_read_here:
        name = type(sequence.source_split).__name__
        raise TypeError(f"{name} has no __getitem__: its batches can only be read by a loop")
    if plan.is_rebatched:
        raise TypeError(
            "the samples of a batch of .rebatch(), or of .batch() behind a generator function, are known only in a "
            "loop over all batches: use `for batch in ...` instead of an index"
        )
    task = plan.task(sequence.seed)
    task.private = private
    return task


def source_length(sequence: SequenceDerived[Any]) -> int:
    """Return the number of indices that the source of ``sequence`` has in the current epoch."""
    source = sequence.source_split
    # A SequenceMap has ``_count``, because it may deliver fewer batches than it has indices.
    count = getattr(type(source), "_count", len)
    length: int = with_clock(asking() or sequence._clock, count, source)
    return length


def plan_of_source(sequence: Sequence[Any], source: Any) -> EpochPlan:
    """Return the plan of ``source`` for the current epoch of ``sequence``, which is made from ``source``."""
    plan = plan_of(source)
    number = with_clock(asking() or sequence._clock, plan.count)
    return EpochPlan(plan, sequence.epoch, number, seed_of_orders(sequence, plan) if plan.needs_seed else 0)


def check_one_each(name: str, number: int, length: int, items: str, source: Any) -> None:
    """Raise ValueError unless argument ``name``, with ``number`` values, has one for each of ``length`` ``items``."""
    if number != length:
        raise ValueError(
            f"{name} has {number} values for the {length} {items} of {type(source).__name__}: give one for each"
        )


def check_indexed(name: str, origin: Any, done: str, instead: str) -> None:
    """Raise a TypeError if ``origin``, the start of a chain, has no indices.

    Args:
        name: the class of the object at the end of the chain.
        done: what the error says cannot be done to the items, such as "shuffled".
        instead: what the error tells the user to write instead.
    """
    if is_indexed(origin):
        return
    first = type(origin).__name__
    made_of = "" if first == name else f" of a {first}"
    raise TypeError(
        f"{name}{made_of} has no indices, so its items cannot be {done}: {instead}; or give something with __len__ and "
        "__getitem__, such as a list"
    )
