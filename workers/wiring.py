"""Registers functions of later rooms that earlier ones call: what each method of the chain makes, how Keras reads."""

from __future__ import annotations

from .for_keras import adapter
from .loader.prefetch import prefetch
from .loader.sequence_map import SequenceMap
from .sequence.batched_stream import batches
from .sequence.chain import makers
from .sequence.max_samples import SequenceMaxSamples
from .sequence.rebatched import SequenceRebatch
from .sequence.shard import SequenceShard
from .sequence.shuffle import SequenceShuffle

makers.update(
    map=SequenceMap,
    prefetch=prefetch,
    batch=batches,
    rebatch=SequenceRebatch,
    max_samples=SequenceMaxSamples,
    shuffle=SequenceShuffle,
    shard=SequenceShard,
    fit=adapter.install,
)
