"""Some of the samples of a sequence that makes its samples itself."""

from __future__ import annotations

from typing import Any

from .answers import defines_hooks
from .derived import SequenceDerived, identity_of
from .gather import gather


class SequencePart(SequenceDerived[Any]):
    """The samples of another sequence that an order names. Made by ``subsample`` of a subclass of SequenceArray.

    Args:
        source_split: the order: a SequenceArray of {"place": a place in ``samples``}.
        samples: a SequenceArray whose order is that of its arrays, and whose hooks are called.
    """

    _has_places_of_source = False
    _names_beside = ("samples",)

    def __init__(self, source_split: Any, samples: Any) -> None:
        super().__init__(source_split)
        self.samples = samples

    def __len__(self) -> int:
        return self._source_length()

    def __getitem__(self, index: int) -> Any:
        return self.samples[int(self.source_split[index]["place"])]

    def on_epoch_begin(self) -> None:
        """That of the samples."""
        self.samples.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """That of the samples."""
        self.samples.on_epoch_end()

    def _has_hooks(self, *names: str) -> bool:
        return defines_hooks(self.samples, *names)

    def _identity(self) -> list[Any]:
        return [*super()._identity(), identity_of(self.samples)]

    def _count_changes(self) -> int:
        return super()._count_changes() + int(self.samples._count_changes())

    def _share(self) -> None:
        self.samples._share()

    def subsample(self, nb_samples: int) -> SequencePart:
        """See :meth:`SequenceArray.subsample`."""
        return SequencePart(self.source_split.subsample(nb_samples), self.samples)

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> SequencePart:
        """See :meth:`SequenceArray.subsample_uids`."""
        order = self.source_split
        places = order.arrays["place"]
        order = order._made_of({"place": places, "uid": gather(self.samples._uids(uids_name), places)}, None)
        return SequencePart(order.subsample_uids(uids, "uid", new_sampler), self.samples)
