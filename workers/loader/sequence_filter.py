"""``SequenceFilter``, which keeps the batches for which a function returns true; workers find them in each epoch."""

from __future__ import annotations

from typing import Any

from workers.sequence.filtering import Kept

from .sequence_map import SequenceMap


class SequenceFilter(SequenceMap[Any]):
    """The batches of another sequence for which ``function`` returns true: see :meth:`Sequence.filter`.

    It has no length, and neither do sequences made from it.
    """

    _is_filter = True

    def __init__(self, source_split: Any, function: Any) -> None:
        super().__init__(source_split, 0, Kept(function))
