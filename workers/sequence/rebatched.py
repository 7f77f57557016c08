"""``SequenceRebatch``: regroups batches of any size into batches of one size, by cutting and joining them."""

from __future__ import annotations

from workers.batch.stacking import join

from .base import plan_of
from .batched import SequenceOfSize
from .grouping import OfBatches
from .plan import Plan


class SequenceRebatch(SequenceOfSize):
    """The samples of another sequence's batches, in batches of ``batch_size``: see :meth:`Sequence.rebatch`.

    The jobs are those of the source, at the same places in the epoch's order. The consumer's process cuts and joins
    their batches. A state counts how many samples of a job were delivered, since a batch may end in the middle of one.
    """

    def _plan(self) -> Plan:
        size, discard = self.batch_size, self.discard_batch_not_full
        assembly = OfBatches(size, discard, self.collate_fn or join)
        return plan_of(self.source_split).rebatched(assembly, size, discard)

    def __len__(self) -> int:
        raise TypeError("rebatch() has no length: it is known only when all batches of the source were read")
