"""Registers functions of later modules that earlier ones call: what ``.map()`` and others make, how Keras reads."""

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
from .sequence.slice import skipped, sliced, taken

makers.update(
    map=SequenceMap,
    prefetch=prefetch,
    batch=batches,
    rebatch=SequenceRebatch,
    max_samples=SequenceMaxSamples,
    shuffle=SequenceShuffle,
    shard=SequenceShard,
    slice=sliced,
    take=taken,
    skip=skipped,
    fit=adapter.install,
)
