"""``SequenceSlice``: some of the batches of a sequence, by their places in its order, as a list slices its items."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from workers.checks import check_int, short
from workers.frameworks.keras import Endless

from .base import plan_of
from .derived import SequenceDerived, check_indexed
from .display import DisplayedFact, named
from .plan import Plan


class SequenceSlice(SequenceDerived):
    """Batches ``start`` to ``stop`` - 1 of another sequence, by steps of ``step``: see :meth:`Sequence.take`.

    Args:
        source_split: anything with ``__len__`` and ``__getitem__``.
        start, stop, step: as in ``list[start:stop:step]``; None and negative numbers mean the same as there.
    """

    def __init__(self, source_split: Any, start: int | None, stop: int | None, step: int | None = None) -> None:
        self._slice = tuple(_checked(name, each) for name, each in zip(_NAMES, (start, stop, step), strict=True))
        if self._slice[2] == 0:
            raise ValueError("the step of a slice must not be 0")
        plan, name = plan_of(source_split), type(source_split).__name__
        check_indexed(name, plan.origin, "sliced", "take items where they are read, with itertools.islice in __iter__")
        if isinstance(source_split, Endless):
            raise TypeError(
                f"{source_split.dataset_name} has no end (its num_batches is None), so it cannot be sliced: stop the "
                "loop, or give fit() steps_per_epoch"
            )
        super().__init__(source_split)
        if plan.is_stream:
            raise TypeError(
                f"{name} is read in an order of its own, as it comes: stop the loop after the batches you want"
            )
        if self._is_length_at_hand() and not len(self):
            number = plan_of(source_split).num_places()
            raise ValueError(
                f"{self._told()} of the {number} batches of {name} is empty: a loop over it would do nothing"
            )

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("slice", self._told().rpartition(" ")[2])

    def _told(self) -> str:
        start, stop, step = ("" if each is None else str(each) for each in self._slice)
        return f"the slice [{start}:{stop}{f':{step}' if step else ''}]"

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
    """Return ``sequence[where]``."""
    return SequenceSlice(sequence, where.start, where.stop, where.step)


def taken(sequence: Any, number: int) -> SequenceSlice:
    """Return the first ``number`` batches of ``sequence``."""
    return SequenceSlice(sequence, None, check_int("number", number, 1))


def skipped(sequence: Any, number: int) -> SequenceSlice:
    """Return all batches of ``sequence`` but the first ``number``."""
    return SequenceSlice(sequence, check_int("number", number, 0), None)
