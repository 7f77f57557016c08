"""``SequenceGroups``, the base class of sequences that list the samples of each batch, such as SequenceBuckets."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.batch.private import private
from workers.batch.stacking import stack_of_job
from workers.batch.tree import makes_fresh_batches
from workers.job.task import Loose

from .chosen import SequenceChosen, digest
from .fetching import another, batch_at, getter
from .of_epoch import of_epoch
from .plan import Plan
from .sample_errors import SampleErrors


class Groups:
    """The places of the samples in each batch of an epoch, stored in two arrays.

    Args:
        places: the places, in the source, of the first batch's samples, then of the second batch's, and so on.
        sizes: the number of samples in each batch.
    """

    def __init__(self, places: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        self.places, self.ends = places, np.cumsum(sizes)

    def __len__(self) -> int:
        return len(self.ends)

    def of(self, batch: int) -> list[int]:
        """Return the places of the samples in batch number ``batch``."""
        start = int(self.ends[batch - 1]) if batch else 0
        found: list[int] = self.places[start : int(self.ends[batch])].tolist()
        return found

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the places and sizes, by which a loaded state checks that they are the same."""
        return digest(self.places) + digest(self.ends)


class SequenceGroups(SequenceChosen[Any]):
    """The base class of sequences that make batches of another sequence's samples, from lists of the samples' places.

    Args:
        source_split: the sequence of samples.
        done: what cannot be done to an unsuitable source, such as "put into batches", for error texts.
        collate_fn: a function from the list of a batch's samples to the batch; None to stack them.
    """

    _item_names = "batch", "batches"

    #: What to do with samples that raise: see ``Plan.on_error``; None to do the same as the source. If samples are
    #: skipped, their batch is smaller.
    on_error_of_samples: str | None = None

    #: True if the size of a batch is limited, so that each place may have at most one sample.
    _has_bounds = False

    def __init__(self, source_split: Any, done: str, collate_fn: Callable[[list[Any]], Any] | None) -> None:
        self.collate_fn = collate_fn
        super().__init__(source_split, done)

    def _choice(self) -> Groups:
        raise NotImplementedError

    def _plan(self) -> Plan:
        return super()._plan()._replace(assembly=None)

    def _items_of_job(self, index: int) -> list[Any]:
        """Return [the batch of job ``index``]; [] if all of its samples were skipped."""
        source, samples = self.source_split, self._source().plan
        stack_samples = stack_of_job()
        places = of_epoch(self, "groups", self._choice).of(index)
        on_error = self.on_error_of_samples or samples.plan.on_error
        if self.collate_fn is None:
            batch = batch_at(samples, places, on_error)
            if batch is not None:
                return [batch]
        part = SampleErrors(on_error, samples.job_at, functools.partial(another, samples, source, places, index))
        items_at = getter(samples, source, places, on_error)
        of_each = [part.items(place, functools.partial(items_at, place)) for place in places]
        if self._has_bounds and any(len(items) > 1 for items in of_each):
            raise TypeError(
                "a function before .bucket() returns lists of several samples, whose lengths nobody knows: give it "
                "as_items=False, or write .bucket() before it"
            )
        found = [item for items in of_each for item in items]
        if any(isinstance(item, Loose) for item in found):
            raise TypeError(
                "a function before returns lists, or samples were skipped, so batches are put together in the "
                "consumer's process, and cannot be the samples of other batches"
            )
        if not getattr(self.collate_fn, "only_reads", self.collate_fn is None):
            found = private(found)
        return part.end([(self.collate_fn or stack_samples)(found)] if found else [])

    def _source_places(self, jobs: Any) -> None:
        """Return None: a job here reads several places of the source, while callers need exactly one for each job."""

    def _samples_at(self, places: Any) -> Any:
        return None

    @property
    def _has_lists(self) -> bool:
        return False

    @property
    def _makes_fresh_batches(self) -> bool:  # type: ignore[override]
        return self.collate_fn is None and makes_fresh_batches(self.source_split)
