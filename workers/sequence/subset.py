"""``SequenceSubset``: chosen samples of a sequence, the same ones in each epoch, such as a part of a split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch.strings import shared

from .chosen import Given, SequenceChosen
from .derived import source_length
from .display import DisplayedFact, named


class SequenceSubset(SequenceChosen):
    """Some samples of another sequence, the same ones in each epoch.

    Args:
        places: the places of these samples in the other sequence.
        length: the number of samples in the other sequence, which must still be the same when the subset is read.
        done: how the samples were chosen, such as "split", for error texts.
    """

    def __init__(self, source_split: Any, places: NDArray[np.int64], length: int, done: str) -> None:
        self._places, self._length, self._done = Given(places), length, done
        super().__init__(source_split, done)

    def _choice(self) -> Given:
        length, name = source_length(self), type(self.source_split).__name__
        if length != self._length:
            raise ValueError(
                f"{name} had {self._length} {self._item_names[1]} when it was {self._done}, and has {length} now: "
                "make the subset anew"
            )
        return self._places

    def _arguments(self) -> tuple[Any, ...]:
        return self._places.digest, self._length

    def _share(self) -> None:
        self._places.places = shared(self._places.places)

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("of", f"{self._length:,}")
