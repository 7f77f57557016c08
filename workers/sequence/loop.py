"""The plain for loop over a Sequence: each batch is computed when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workers.errors import presentable

from .state import Place

if TYPE_CHECKING:
    from typing_extensions import Self

    from .base import Sequence


class Loop:
    """One pass over the batches of an epoch. What one of them raises is raised in its place; the next ``next()`` goes
    on behind it."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._place = Place()
        self._left: list[int] = []
        self._number = 0  # how many of these were delivered

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        sequence, place = self._sequence, self._place
        progress = sequence._progress
        sequence._check_open()
        if place.loads != progress.loads:  # the first one, or a state was loaded in between
            place, left = sequence._begin_loop()
            self._place, self._left, self._number = place, left, 0
        if self._number == len(self._left):
            if progress.is_of_now(place):
                sequence._end_epoch()
            raise StopIteration
        index = self._left[self._number]
        batch = error = None
        try:
            batch = sequence._computed(place.epoch, index)
        except Exception as raised:
            error = presentable(raised)
        where, _ = place.behind(index)
        is_begun = progress.is_begun or progress.is_of_now(place)
        # Without a call in between: what a Ctrl-C has kept back is still to come.
        place.where, progress.is_begun = where, is_begun
        self._number += 1
        if error is None:
            return batch
        try:
            raise error
        finally:
            del error  # no cycle with this frame
