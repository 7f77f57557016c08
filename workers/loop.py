"""The plain for loop over a Sequence: each batch is computed when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .resume import Place

if TYPE_CHECKING:
    from typing_extensions import Self

    from .sequence import Sequence


class Loop:
    """One pass over the batches of an epoch. What one of them raises is raised in its place; the next ``next()`` goes
    on behind it."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._place = Place()
        self._left: list[int] = []  # the last one first

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        sequence, place = self._sequence, self._place
        progress = sequence._progress
        sequence._check_open()
        if place.loads != progress.loads:  # the first one, or a state was loaded in between
            self._place, left = sequence._begin_loop()
            place, self._left = self._place, left[::-1]
        if not self._left:
            if progress.is_of_now(place):
                sequence._end_epoch()
            raise StopIteration
        index = self._left[-1]
        try:
            batch = sequence._computed(place.epoch, index)
        except Exception:
            self._pass(index)
            raise
        self._pass(index)  # behind a Ctrl-C, it is still there
        return batch

    def _pass(self, index: int) -> None:
        self._left.pop()
        self._sequence._progress.passed(self._place, index)
