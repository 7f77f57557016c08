"""``SequenceSlice``: a slice of a sequence's batches, by their places in each epoch, like a slice of a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workers.checks import check_int, short
from workers.frameworks.keras import is_endless

from .base import plan_of
from .derived import SequenceDerived, check_indexed, source_length
from .display import DisplayedFact, named
from .plan import Plan


class SequenceSlice(SequenceDerived):
    """Batches ``start`` to ``stop`` - 1 of another sequence, in steps of ``step``: see :meth:`Sequence.take`.

    Args:
        source_split: anything with ``__len__`` and ``__getitem__``.
        start, stop, step: as in ``list[start:stop:step]``, where they may be None or negative, too.
    """

    def __init__(self, source_split: Any, start: int | None, stop: int | None, step: int | None = None) -> None:
        self._slice = tuple(_checked(name, each) for name, each in zip(_NAMES, (start, stop, step), strict=True))
        if self._slice[2] == 0:
            raise ValueError("the step of a slice must not be 0")
        if (self._slice[2] or 1) > 0:  # equal slices get equal values, so that their states are equal
            self._slice = self._slice[0] or None, self._slice[1], None if self._slice[2] == 1 else self._slice[2]
        plan, name = plan_of(source_split), type(source_split).__name__
        check_indexed(name, plan.origin, "sliced", "take items where they are read, with itertools.islice in __iter__")
        super().__init__(source_split)
        if plan.is_stream:
            raise TypeError(
                f"{name} is read in an order of its own, as it comes: stop the loop after the batches you want"
            )
        if not self._is_length_at_hand():
            return
        number, (start, stop, step) = source_length(self), self._slice
        if is_endless(number) and (stop is None or stop < 0 or (start or 0) < 0 or (step or 1) < 0):
            raise TypeError(f"{name} has no end: only .take(n) or [start:stop] can slice it")
        if number and not len(self):
            what = self._item_names[1]
            raise ValueError(
                f"{self._told()} of the {number} {what} of {name} is empty: a loop over it would do nothing"
            )

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("slice", self._told().rpartition(" ")[2])

    def _told(self) -> str:
        start, stop, step = ("" if each is None else str(each) for each in self._slice)
        return f"the slice [{start}:{stop}{f':{step}' if step else ''}]"

    def subsample(self, nb_samples: int) -> Any:
        raise TypeError("the samples of a slice cannot be chosen from: write .subsample() before the slice")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Any:
        raise TypeError("the samples of a slice cannot be chosen from: write .subsample_uids() before the slice")

    def _plan(self) -> Plan:
        return plan_of(self.source_split).sliced(*self._slice)


_NAMES = "the start of a slice", "the stop of a slice", "the step of a slice"


def _checked(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} must be an integer or None, not {short(value)} ({type(value).__name__})")
    return int(value.__index__())


def sliced(sequence: Any, where: slice) -> SequenceSlice:
    """Return a sequence of the batches in the slice ``where`` of ``sequence``."""
    return SequenceSlice(sequence, where.start, where.stop, where.step)


def taken(sequence: Any, number: int) -> SequenceSlice:
    """Return a sequence of the first ``number`` batches of ``sequence``."""
    return SequenceSlice(sequence, None, check_int("number", number, 1))


def skipped(sequence: Any, number: int) -> SequenceSlice:
    """Return a sequence of all batches of ``sequence`` except the first ``number``."""
    return SequenceSlice(sequence, check_int("number", number, 0), None)
