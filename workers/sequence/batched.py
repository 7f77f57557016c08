"""Groups the samples of a sequence into batches of a fixed size, for ``sequence.batch(size)``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from workers.batch.private import private
from workers.batch.stacking import stack, stack_of_job
from workers.batch.tree import makes_fresh_batches
from workers.checks import check_bool, check_function, check_int
from workers.frameworks.keras import is_endless
from workers.job.task import Loose, one_of

from .base import Sequence, plan_of
from .derived import SequenceDerived, plan_of_source, source_length
from .fetching import another, batch_at, getter
from .grouping import OfItems, OfSamples
from .of_epoch import of_epoch
from .plan import MAY_LACK, Plan
from .sample_errors import SampleErrors


class SequenceOfSize(SequenceDerived[Any]):
    """The base class of sequences that group the samples of another sequence into batches of ``batch_size``.

    Args:
        source_split: the other sequence.
        batch_size: the number of samples in a batch.
        discard_batch_not_full: drop the last batch if it is short.
        collate_fn: makes a batch from the list of its samples (in a rebatch, of its parts); None to stack (join) them.
    """

    #: What to do with samples that raise: see ``Plan.on_error``; None to do what the source does. If samples are
    #: skipped, the next ones fill the batch; but with ``collate_fn``, which runs in the workers, the batch is shorter.
    on_error_of_samples: str | None = None

    def __init__(
        self,
        source_split: Any,
        batch_size: int,
        discard_batch_not_full: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.discard_batch_not_full = check_bool("discard_batch_not_full", discard_batch_not_full)
        self.collate_fn = check_function("collate_fn", collate_fn)
        super().__init__(source_split)

    def _check_length(self) -> None:
        if plan_of(self.source_split).yields:
            raise TypeError("batches of what a generator function yields have no length: only a loop counts them")

    def _on_error(self, samples: Plan) -> str:
        return self.on_error_of_samples or samples.on_error

    def _num_batches(self) -> int:
        """Return the number of batches if each index has one sample; if the source is endless, its length."""
        samples = source_length(self)
        if is_endless(samples):
            return samples
        return samples // self.batch_size if self.discard_batch_not_full else -(-samples // self.batch_size)


class SequenceBatch(SequenceOfSize):
    """Batches of consecutive samples of a source with indices: see :meth:`Sequence.batch`.

    The source is any object with ``__len__`` and ``__getitem__``. For a source that has only ``__iter__``, see
    ``batched_iterable``.
    """

    _item_names = "batch", "batches"

    def _plan(self) -> Plan:
        size, discard = self.batch_size, self.discard_batch_not_full
        samples = plan_of(self.source_split)
        if samples.yields:
            return samples.batched_as_yielded(size, discard, OfItems(size, discard, self.collate_fn or stack))
        return samples.batched(self, size, discard, OfSamples(size, discard) if self._has_lists else None)

    def __len__(self) -> int:
        self._check_length()
        number = self._num_batches()
        # If a function returns lists, their items may fill a batch, even if there are too few indices for one.
        return max(1, number) if self._has_lists and source_length(self) else number

    @property
    def _has_lists(self) -> bool:
        """True if the consumer puts batches together, because an index of the source may yield no sample or several."""
        if self.collate_fn is not None:
            return False
        samples = plan_of(self.source_split)
        return samples.has_lists or self._on_error(samples) in MAY_LACK

    def __getitem__(self, index: int) -> Any:
        if plan_of(self.source_split).yields:
            return super().__getitem__(index)  # raises
        return one_of(self._items_of_job(index))

    def _items_of_job(self, index: int) -> list[Any]:
        """Return [the batch of job ``index``] or, if the consumer must make the batch, its samples.

        The consumer must make it if an index of the source yields no sample or several. The result then is [a ``Loose``
        marker, *the samples]. With ``collate_fn``, the result is [] if all samples were skipped.
        """
        source, start = self.source_split, index * self.batch_size
        stack_samples = stack_of_job()
        samples = of_epoch(self, "samples", functools.partial(plan_of_source, self, source))
        plan, end = samples.plan, samples.length
        assert end is not None
        stop = min(start + self.batch_size, end)
        on_error = self._on_error(plan)
        # The last job also reads the samples after its batch, because no other job does.
        behind = range(stop, end) if self._drops_short and end - stop < self.batch_size else range(0)
        is_whole = stop - start == self.batch_size or not self._drops_short
        if self.collate_fn is None and is_whole:
            batch = batch_at(samples, range(start, stop), on_error)
            if batch is not None:
                return [batch]
        part = SampleErrors(on_error, samples.job_at, functools.partial(another, samples, source, None, index))
        items_at = getter(samples, source, range(start, stop), on_error)
        found = [part.items(at, functools.partial(items_at, at)) for at in range(start, stop)]
        found = [[] if len(items) == 1 and items[0] is Loose.FEWER else items for items in found]
        if not is_whole and all(len(items) <= 1 for items in found):
            return part.end([Loose.FEWER])  # no list of several samples could fill the only batch
        is_whole &= all(len(items) == 1 for items in found)
        if not is_whole:
            items_at = getter(samples, source, behind, on_error)
            found += [part.items(at, functools.partial(items_at, at)) for at in behind]
        if not getattr(self.collate_fn, "only_reads", self.collate_fn is None):
            found = list(map(private, found))
        make = self.collate_fn or stack_samples
        return part.end(self._made_of(found, is_whole, on_error in MAY_LACK, make))

    def _made_of(
        self, found: list[list[Any]], is_whole: bool, may_lack: bool, make: Callable[[list[Any]], Any]
    ) -> list[Any]:
        samples = [item for items in found for item in items]
        if any(isinstance(item, Loose) for item in samples):
            why = (
                "samples were skipped"
                if any(item is Loose.FEWER for item in samples)
                else "a function before .batch() returns lists"
            )
            raise TypeError(
                f"{why}, so batches are put together in the consumer's process, and another .batch() cannot follow: "
                "use .rebatch(...) for batches of another size"
            )
        if is_whole:
            return [make(samples)]
        if self.collate_fn is not None:
            if may_lack and all(len(items) <= 1 for items in found):
                return [self.collate_fn(samples)] if samples else []
            raise TypeError(
                "collate_fn wants one sample for each index, but a function before it returned a list of several or "
                "no samples: leave collate_fn out, and collate the stacked batches in the loop"
            )
        is_fewer = may_lack and all(len(items) <= 1 for items in found)
        return [Loose.FEWER if is_fewer else Loose.SAMPLES, *samples]

    def put_together(self, samples: list[Any]) -> Any:
        """Return the batch of the ``samples`` that remain after others were skipped."""
        return (self.collate_fn or stack)(samples)

    @property
    def _drops_short(self) -> bool:
        """True if the last job also reads the samples after its batch, because no other job does.

        If an index of the source yields no sample or several, these samples may fill a batch that would otherwise be
        dropped as short.
        """
        return self.discard_batch_not_full and self._has_lists

    @property
    def _makes_fresh_batches(self) -> bool:  # type: ignore[override]
        return self.collate_fn is None and makes_fresh_batches(self.source_split)

    def subsample(self, nb_samples: int) -> Sequence:
        return self._of(self.source_split.subsample(nb_samples))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence:
        return self._of(self.source_split.subsample_uids(uids, uids_name, new_sampler))

    def _of(self, source: Any) -> Sequence:
        made = SequenceBatch(source, self.batch_size, self.discard_batch_not_full, self.collate_fn)
        made.on_error_of_samples = self.on_error_of_samples
        return made
