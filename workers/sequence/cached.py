"""``SequenceCached``: a sequence whose items are made once and then kept, for ``sequence.cache()``."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable
from typing import Any

from workers.cache.items import ItemCache
from workers.checks import function_name
from workers.job.context import current_stream, take_is_delivered
from workers.job.task import chain_of, makes_items, one_of

from .base import Sequence, plan_of
from .clock import asking, with_clock
from .derived import SequenceDerived, check_indexed, plan_of_source
from .display import DisplayedFact, named
from .epochs import plan_of_epoch
from .fetching import gets_several, getter
from .item_keys import check_keys, keys_of, made_from, num_keys
from .of_epoch import SourceOfEpoch, of_epoch
from .parts import SequenceOfParts
from .plan import Plan
from .selection import Batch_co


class SequenceCached(SequenceDerived[Batch_co]):
    """The items of another sequence, each made once and then read from a cache: see :meth:`Sequence.cache`."""

    def __init__(
        self,
        source_split: Any,
        folder: str | os.PathLike[str] | None = None,
        memory: int | str | None = None,
        name: str | None = None,
    ) -> None:
        plan, kind = plan_of(source_split), type(source_split).__name__
        check_indexed(kind, plan.origin, "cached", "put them into a list")
        if plan.is_stream:
            raise TypeError(f"{kind} is read in an order of its own, so its items cannot be cached: leave .cache() out")
        plan.cached(None)  # raises if nothing can follow
        check_keys(plan)
        super().__init__(source_split)
        self._has_names = any(isinstance(each, SequenceOfParts) and each._names for each in chain_of(source_split))
        self._cache = ItemCache(self._num_keys(), self._made_from(), memory, folder, name)

    def __getitem__(self, index: int) -> Any:
        return one_of(self._items_of_job(plan_of_epoch(self).job(index)))

    def _plan(self) -> Plan:
        return plan_of(self.source_split).cached(self)

    def _caches(self) -> list[ItemCache]:
        return [self._cache]

    def _num_keys(self) -> int:
        number: int = with_clock(asking() or self._clock, num_keys, plan_of(self.source_split))
        return number

    def _made_from(self) -> list[Any]:
        return made_from(plan_of(self.source_split))

    def _begin_epoch(self, epoch: int) -> None:
        """Empty the cache if what its items are made from has changed."""
        sequences = [each for each in chain_of(self) if isinstance(each, Sequence)]
        num_changes = sum(each._clock.num_changes for each in sequences)
        self._cache.begin_epoch(self._num_keys(), self._made_from(), self._has_hooks(), num_changes)

    # -- its jobs

    def _items_of_job(self, index: int) -> list[Any]:
        return self._reader([index], "raise")()

    def _reader(self, jobs: list[int], on_error: str) -> Callable[[], list[Any]]:
        """Return a function that returns the items of the next of ``jobs``: see :func:`getter`."""
        stream, source = current_stream(), of_epoch(self, "source", self._made_source)
        if stream is not None and not stream.is_of(self):  # another object reads this, and nobody tells of epochs
            return functools.partial(next, map(source.items, jobs))
        take_is_delivered()  # what is made now is delivered from the cache
        plan = source.plan.plan
        cache, keys = self._cache, keys_of(plan, jobs)
        kept = [cache.get(key) for key in keys]
        items_of: Callable[[int], list[Any]] = source.items
        missing = [job for job, items in zip(jobs, kept, strict=True) if items is None]
        several = self._source_of_several(plan) if len(missing) > 1 else None
        if several is not None:
            read_all = functools.partial(getter, source.plan, several, missing, on_error)
            items_of = cache.watched(read_all, self._what_makes)
        left = iter(zip(jobs, keys, kept, strict=True))

        def read() -> list[Any]:
            job, key, items = next(left)
            if items is None and several is None:
                items = cache.get(key)  # it may have been made in the meantime, also by this job
            if items is None:
                return cache.computed(key, items_of, self._what_makes, job)
            if self._has_names:
                keys_of(plan, [job], note=True)
            return items

        return read

    def _source_of_several(self, plan: Plan) -> Any:
        """Return the source whose samples ``getter`` reads several at a time; None if they are read one by one."""
        if not gets_several(plan.source):
            return None
        if makes_items(self.source_split):
            return self.source_split
        return None if plan.functions else plan.source

    def _made_source(self) -> SourceOfEpoch:
        """Return the items of the source by the numbers of their jobs, not by their places in the epoch's order."""
        plan = plan_of_source(self, self.source_split)
        by_job = plan.plan._replace(arrangements=(), on_error="raise")
        return SourceOfEpoch(self.source_split, plan._replace(plan=by_job), self.seed)

    def _what_makes(self) -> str:
        """Return the names of the functions that make the items, for the text of an error."""
        plan = plan_of(self.source_split)
        names = list(map(function_name, plan.functions))
        if not names:
            return f"{type(plan.origin).__name__}"
        return names[0] if len(names) == 1 else f"one of the functions {', '.join(names)}"

    @property
    def _has_lists(self) -> bool:
        return plan_of(self.source_split).has_lists

    def put_together(self, samples: list[Any]) -> Any:
        """Return the batch that the source makes of the ``samples`` that remain after others were skipped."""
        return plan_of(self.source_split).source.put_together(samples)

    def _own_facts(self) -> Iterable[DisplayedFact]:
        yield named("cached in", self._cache.folder or "memory")

    def subsample(self, nb_samples: int) -> Any:
        return self._of(self.source_split.subsample(nb_samples))

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Any:
        return self._of(self.source_split.subsample_uids(uids, uids_name, new_sampler))

    def _of(self, source: Any) -> SequenceCached[Any]:
        return SequenceCached(source, self._cache.folder, self._cache.memory, self._cache.name)
