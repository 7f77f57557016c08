"""A cache of values that the jobs of an epoch share: the first job computes them, and a new epoch discards them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from workers.batch.private import private
from workers.job import context
from workers.job.context import current_epoch, in_round, on_new_epoch
from workers.job.task import knows_items, makes_items

from .epoch_plan import EpochPlan

_Made = TypeVar("_Made")

#: {sequence: {key of a value: ((seed, part, epoch) that it was computed for, the value)}}
_kept: weakref.WeakKeyDictionary[Any, dict[Any, tuple[tuple[Any, ...], Any]]] = weakref.WeakKeyDictionary()
on_new_epoch(_kept.clear)


def of_epoch(sequence: Any, what: Any, make: Callable[[], _Made]) -> _Made:
    """Return the result of ``make()``, which is called once for all jobs of an epoch that run in this process.

    Outside of a job, the result is not kept: ``make`` is called each time.

    Args:
        sequence: the sequence that the result is kept for.
        what: the key of the result, by which a sequence can have several.
    """
    now = context.current
    if now.stream is None or now.job is None:
        return make()
    key = now.stream.seed, now.part, now.job.epoch if now.round is None else now.round
    values = _kept.get(sequence)
    if values is None:
        values = _kept.setdefault(sequence, {})
    known = values.get(what)
    if known is None or known[0] != key:
        known = values[what] = key, make()
    found: _Made = known[1]
    return found


class SourceOfEpoch:
    """The items of a source at the places of one epoch. In a mix, for example, this may not be the epoch of the loop.

    Args:
        source: anything with ``__len__`` and ``__getitem__``.
        plan: the source's plan for that epoch.
        seed: the seed of the jobs' random draws.
    """

    def __init__(self, source: Any, plan: EpochPlan, seed: int) -> None:
        self.source, self.plan = source, plan
        # Only the front-end itself can skip items that raise, so it is asked for its items.
        self._is_asked = makes_items(source) and plan.plan.source is not source and plan.plan.on_error == "skip"
        self._is_plain = not (self._is_asked or plan.plan.functions or knows_items(plan.plan.source))
        self._task = plan.plan.task(seed)
        self._task.private = private

    def items(self, place: int) -> list[Any]:
        """Return the items at ``place`` (number in the epoch's order). Call it within a job."""
        if self.plan.epoch == current_epoch():
            return self._items(place)
        found: list[Any] = in_round(self.plan.epoch, self._items, place)
        return found

    def _items(self, place: int) -> list[Any]:
        job = self.plan.jobs([place])[0] if self.plan.plan.arrangements else place
        if self._is_plain:
            return [self.plan.plan.source[job]]
        if self._is_asked:
            found: list[Any] = self.source._items_at(place, job)
            return found
        return self._task.run(job, None)
