"""Batches of any sizes as batches of one size: those that are too large are cut, those that are too small joined."""

from __future__ import annotations

from typing import Any

from workers.batch.stacking import join

from .base import plan_of
from .batched import SequenceOfSize
from .grouping import OfBatches
from .plan import Plan


class SequenceRebatch(SequenceOfSize):
    """The samples of another sequence's batches, in batches of ``batch_size``. Made by :meth:`Sequence.rebatch`.

    Its jobs and places are the source's, of which samples are counted; the batches are put together where they are
    read.
    """

    def _plan(self) -> Plan:
        size, discard = self.batch_size, self.discard_batch_not_full
        assembly = OfBatches(size, discard, self.collate_fn or join)
        return plan_of(self.source_split).rebatched(assembly, size, discard)

    def __len__(self) -> int:
        raise TypeError("how many batches rebatch() makes is known only when all of the source's have been read")

    def __getitem__(self, index: int) -> Any:
        raise TypeError("which samples are in a batch of rebatch() is known only in a loop: use for batch in ...")
