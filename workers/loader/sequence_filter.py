"""Defines ``SequenceFilter``: the batches for which a function, called by workers in each epoch, returns true."""

from __future__ import annotations

from typing import Any

from workers.sequence.base import plan_of
from workers.sequence.filtering import Kept
from workers.sequence.shard import UNEQUAL_RANKS

from .sequence_map import SequenceMap


class SequenceFilter(SequenceMap[Any]):
    """The batches of another sequence for which ``function`` returns true: see :meth:`Sequence.filter`.

    How many batches are left is known only after a loop. So it has no length, and neither do sequences made from it.
    """

    _is_filter = True

    def __init__(self, source_split: Any, function: Any) -> None:
        if plan_of(source_split).shard is not None:
            raise TypeError(UNEQUAL_RANKS)
        super().__init__(source_split, 0, Kept(function))
