"""Some of the samples of a sequence that makes its samples itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import asking, on_behalf_of
from .derived import SequenceDerived
from .gather import gather

if TYPE_CHECKING:
    from .array import SequenceArray


class SequencePart(SequenceDerived[Any]):
    """The samples of another sequence that ``order`` names. Made by ``subsample`` of a subclass of SequenceArray.

    Args:
        source_split: a SequenceArray whose order is that of its arrays.
        order: a SequenceArray whose samples are {"place": a place in ``source_split``}.
    """

    _has_places_of_source = False

    def __init__(self, source_split: SequenceArray, order: Any) -> None:
        super().__init__(source_split)
        self.order = order

    def __len__(self) -> int:
        with on_behalf_of(asking() or self._clock):
            return len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.source_split[int(self.order[index]["place"])]

    def _identity(self) -> list[Any]:
        return [*super()._identity(), self.order.nb_samples]

    def _is_length_at_hand(self) -> bool:
        with on_behalf_of(asking() or self._clock):
            return bool(self.order._is_length_at_hand())

    def subsample(self, nb_samples: int) -> SequencePart:
        """See :meth:`SequenceArray.subsample`."""
        return SequencePart(self.source_split, self.order.subsample(nb_samples))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> SequencePart:
        """See :meth:`SequenceArray.subsample_uids`."""
        places = self.order.arrays["place"]
        order = type(self.order)({"place": places, "uid": gather(self.source_split._uids(uids_name), places)})
        order.seed = self.order.seed
        return SequencePart(self.source_split, order.subsample_uids(uids, "uid", new_sampler))
