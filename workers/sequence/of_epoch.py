"""What the jobs of an epoch share: values that the first job computes, kept in this process until the epoch changes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from workers.batch.private import private
from workers.job.context import current_epoch, current_part, current_stream, in_round, on_new_epoch
from workers.job.task import makes_items

from .epoch_plan import EpochPlan

_Made = TypeVar("_Made")

#: {a sequence: {what is kept: ((seed, part, epoch), its value)}}
_kept: weakref.WeakKeyDictionary[Any, dict[Any, tuple[tuple[int, int, int | None], Any]]] = weakref.WeakKeyDictionary()
on_new_epoch(_kept.clear)


def of_epoch(sequence: Any, what: Any, make: Callable[[], _Made]) -> _Made:
    """Return ``make()`` for the epoch of the running job. Its other jobs get the same object; outside of a job: anew.

    Args:
        sequence: what the value belongs to.
        what: which of its values it is.
    """
    stream = current_stream()
    if stream is None:
        return make()
    key = stream.seed, current_part(), current_epoch()
    values = _kept.get(sequence)
    if values is None:
        values = _kept.setdefault(sequence, {})
    known = values.get(what)
    if known is None or known[0] != key:
        known = values[what] = key, make()
    found: _Made = known[1]
    return found


class SourceOfEpoch:
    """The items of a source of a sequence by their places in an epoch, which may be one of its own.

    Args:
        source: anything with ``__len__`` and ``__getitem__``.
        plan: its plan for that epoch.
        seed: that of the job.
    """

    def __init__(self, source: Any, plan: EpochPlan, seed: int) -> None:
        self.source, self.plan = source, plan
        # A front-end that skips items does so itself.
        self._is_asked = makes_items(source) and plan.plan.source is not source and plan.plan.on_error == "skip"
        self._task = plan.plan.task(seed)
        self._task.private = private

    def items(self, place: int) -> list[Any]:
        """Return the items at ``place`` (number in the order of the epoch). Call it within a job."""
        if self.plan.epoch == current_epoch():
            return self._items(place)
        found: list[Any] = in_round(self.plan.epoch, self._items, place)
        return found

    def _items(self, place: int) -> list[Any]:
        job = self.plan.jobs([place])[0] if self.plan.plan.arrangements else place
        if self._is_asked:
            found: list[Any] = self.source._items_at(place, job)
            return found
        return self._task.run(job, None)
