"""``SequencePart``: a subset of the samples of a subclass of SequenceArray that makes its samples itself."""

from __future__ import annotations

from typing import Any

from .base import plan_of
from .clock import defines_hooks
from .derived import SequenceDerived, source_length
from .gather import gather
from .plan import Plan


class SequencePart(SequenceDerived[Any]):
    """Selected samples of a subclass of SequenceArray, as its ``subsample`` and ``subsample_uids`` return them.

    Args:
        source_split: the selected samples, in order, as a SequenceArray of {"place": their indices in ``samples``}.
        samples: the sequence that makes the samples; its order is that of its arrays. Its hooks are called.
    """

    _names_beside = ("samples",)

    def __init__(self, source_split: Any, samples: Any) -> None:
        self.samples = samples
        super().__init__(source_split)

    def _plan(self) -> Plan:
        return Plan.of(self, plan_of(self.source_split).seeds)

    def __len__(self) -> int:
        return source_length(self)

    def __getitem__(self, index: int) -> Any:
        return self.samples[int(self.source_split[index]["place"])]

    def on_epoch_begin(self) -> None:
        """Call ``on_epoch_begin`` of ``samples``, the sequence that samples are selected from."""
        self.samples.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Call ``on_epoch_end`` of ``samples``, the sequence that samples are selected from."""
        self.samples.on_epoch_end()

    def _has_hooks(self, *names: str) -> bool:
        return defines_hooks(self.samples, *names)

    def _is_length_at_hand(self) -> bool:
        return bool(self.source_split._is_length_at_hand())

    def _identity(self) -> list[Any]:
        return [type(self).__qualname__, plan_of(self.source_split).identity, plan_of(self.samples).identity]

    def subsample(self, nb_samples: int) -> SequencePart:
        """Return a sequence of ``nb_samples`` of these samples, chosen once, at random, by this sequence's seed."""
        return SequencePart(self.source_split.subsample(nb_samples), self.samples)

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> SequencePart:
        """Return a sequence of the samples with one of ``uids`` in array ``uids_name``, in the order of ``uids``."""
        order = self.source_split
        places = order.arrays["place"]
        order = order._made_of({"place": places, "uid": gather(self.samples._uids(uids_name), places)}, None)
        return SequencePart(order.subsample_uids(uids, "uid", new_sampler), self.samples)
