"""Registers functions and classes of later modules with earlier ones, for methods such as ``.map()`` and for Keras."""

from __future__ import annotations

from .for_keras import adapter
from .loader.prefetch import prefetch
from .loader.reservoir import SequenceReservoir
from .loader.sequence_filter import SequenceFilter
from .loader.sequence_map import SequenceMap
from .sequence.batched_iterable import batches, shuffled
from .sequence.buckets import SequenceBuckets
from .sequence.cached import SequenceCached
from .sequence.drawn import SequenceOfLists, SequenceReordered
from .sequence.filtering import filtered
from .sequence.max_samples import SequenceMaxSamples
from .sequence.rebatched import SequenceRebatch
from .sequence.repeat import SequenceRepeat
from .sequence.selection import makers
from .sequence.shard import SequenceShard
from .sequence.slice import skipped, sliced, taken
from .sequence.split import split
from .sequence.subset import SequenceSubset
from .sequence.weighted import SequenceWeighted

makers.update(
    map=SequenceMap,
    prefetch=prefetch,
    batch=batches,
    rebatch=SequenceRebatch,
    max_samples=SequenceMaxSamples,
    shuffle=shuffled,
    cache=SequenceCached,
    shard=SequenceShard,
    slice=sliced,
    take=taken,
    skip=skipped,
    weighted=SequenceWeighted,
    reorder=SequenceReordered,
    batch_by=SequenceOfLists,
    bucket=SequenceBuckets,
    repeat=SequenceRepeat,
    split=split,
    subset=SequenceSubset,
    filter=SequenceFilter,
    filtered=filtered,
    reservoir=SequenceReservoir,
    fit=adapter.install,
)
