"""``SequenceChosen``: the base class of sequences that deliver chosen batches of another sequence in a chosen order."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.batch.tree import makes_fresh_batches
from workers.errors import integrity_error
from workers.frameworks.keras import is_endless
from workers.job import seeding
from workers.job.context import current_epoch, in_round
from workers.job.generators import Generators
from workers.job.task import chain_of, one_of

from .base import Sequence, plan_of
from .derived import SequenceDerived, check_indexed, plan_of_source, source_length
from .epoch_plan import EpochPlan
from .epochs import seed_of_orders
from .fetching import getter
from .of_epoch import SourceOfEpoch, of_epoch
from .order import last_epochs
from .plan import Plan
from .selection import Batch_co

_BLOCK = 1024  # places computed at a time


class ChosenPlaces(Protocol):
    """A choice for one epoch: which place of the source (number in the source's order) each job reads."""

    def __len__(self) -> int:
        """Return the number of chosen places, i.e. of jobs in the epoch."""

    def take(self, jobs: Any) -> Any:
        """Return the places of the source that the jobs with the numbers ``jobs`` read; both are int64 arrays."""


class Given:
    """A choice that is stored as an array of all chosen places."""

    def __init__(self, places: NDArray[Any]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def take(self, jobs: Any) -> Any:
        """Return the places that ``jobs`` read, as an int64 array."""
        return self.places[jobs].astype(np.int64, copy=False)

    @functools.cached_property
    def digest(self) -> str:
        """A hash of the places, for saved states."""
        return digest(self.places)


class Blocks:
    """The places in ``choice``, computed in blocks, because a thousand places cost little more than one."""

    def __init__(self, choice: ChosenPlaces) -> None:
        self._choice, self._length = choice, len(choice)
        self._block: tuple[int, list[int]] = (-1, [])  # (its number, its places), replaced as a whole
        self._asked = 0  # the block in which the last place was that was computed alone

    def of(self, jobs: list[int]) -> list[int]:
        """Return the places that ``jobs`` read."""
        if not jobs:
            return []
        (number, block), first, last = self._block, min(jobs), max(jobs)
        wanted = first // _BLOCK
        start = wanted * _BLOCK
        if number != wanted or last >= start + _BLOCK:
            if last >= start + _BLOCK or wanted not in (number + 1, self._asked):  # the jobs are in another order
                self._asked = wanted
                found: list[int] = self._choice.take(np.array(jobs, np.int64)).tolist()
                return found
            block = self._choice.take(np.arange(start, min(start + _BLOCK, self._length))).tolist()
            self._block = wanted, block
        return [block[job - start] for job in jobs]

    def at(self, job: int) -> int:
        """Return the place that ``job`` reads."""
        number, block = self._block
        wanted, at = divmod(job, _BLOCK)
        return block[at] if number == wanted else self.of([job])[0]


class SequenceChosen(SequenceDerived[Batch_co]):
    """The base class of sequences that choose, for each of their batches, a place of ``source_split`` to take it from.

    A place (number in the source's order) may be chosen several times. The random draws of batch ``i`` depend on (seed,
    epoch, i), so a sample that is chosen twice is augmented in two ways.

    Args:
        source_split: anything with ``__len__`` and ``__getitem__``.
    """

    #: True if the choice refers to places of the source, which must then have the same samples in each epoch.
    _names_places = True

    #: True if the user's process draws the choice at the beginning of each epoch, and sends it to the workers.
    _is_drawn = False

    def __init__(self, source_split: Any, done: str) -> None:
        """Check the source. If it is unsuitable, an error says that its items cannot be ``done``, e.g. "weighted"."""
        self._kept: dict[tuple[int, int, int], Any] = {}  # {(epoch, seed, length of the source): what was drawn}
        plan, name = plan_of(source_split), type(source_split).__name__
        check_indexed(name, plan.origin, done, "choose items where they are read, in __iter__")
        super().__init__(source_split)
        if plan.is_stream:
            raise TypeError(f"{name} is read in an order of its own, so its items cannot be {done}: leave that out")
        if self._names_places:
            check_order_is_fixed(source_split, done)
            if SequenceDerived._is_length_at_hand(self) and is_endless(source_length(self)):
                raise TypeError(f"{name} has no end, so its samples cannot be {done}: do this before .repeat()")
        self.seed  # noqa: B018  # a missing seed is drawn now, so that workers do not each draw their own

    def _choice(self) -> Any:
        """Return the :class:`ChosenPlaces` for the current epoch."""
        raise NotImplementedError

    def _arguments(self) -> tuple[Any, ...]:
        """Return the arguments that identify this sequence in a saved state, as JSON."""
        return ()

    def _plan(self) -> Plan:
        return plan_of(self.source_split).chosen(self, type(self).__name__, self._arguments(), self._is_drawn)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self._choice())

    def __getitem__(self, index: int) -> Any:
        return one_of(self._items_of_job(index))

    # -- its jobs

    def _items_of_job(self, index: int) -> list[Any]:
        """Return the items (batches or samples) of job ``index``, in the epoch of the running job."""
        blocks, source = of_epoch(self, "jobs", self._made_jobs)
        return source.items(blocks.at(index))

    def _made_jobs(self) -> tuple[Blocks, SourceOfEpoch]:
        return Blocks(self._choice()), self._source()

    def _places_of(self, jobs: list[int]) -> list[int]:
        """Return the places of the source that ``jobs`` read, in the epoch of the running job."""
        return of_epoch(self, "jobs", self._made_jobs)[0].of(jobs)

    def _source(self) -> SourceOfEpoch:
        """Return the items of the source in the epoch of the running job."""
        return of_epoch(self, "source", self._made_source)

    def _made_source(self) -> SourceOfEpoch:
        return SourceOfEpoch(self.source_split, plan_of_source(self, self.source_split), self.seed)

    def _source_places(self, jobs: NDArray[np.int64]) -> tuple[EpochPlan, list[int]] | None:
        """Return (the source's plan for the epoch of the running job, the places of the source that ``jobs`` read).

        A subclass returns None if it cannot name one place for each job, e.g. if each job reads several places.
        """
        return self._source().plan, self._places_of(jobs.tolist())

    def _reader(self, jobs: list[int], on_error: str) -> Callable[[], list[Any]] | None:
        """Return a function that returns the items of the next of ``jobs``: see :func:`getter`."""
        chosen = self._source_places(np.array(jobs, np.int64))
        if chosen is None:
            return None
        plan, places = chosen
        items_at = in_round(plan.epoch, getter, plan, self.source_split, places, on_error)
        if plan.epoch != current_epoch():  # a round of a repeated sequence
            items_at = functools.partial(in_round, plan.epoch, items_at)
        return functools.partial(next, map(items_at, places))

    @property
    def _has_lists(self) -> bool:
        return plan_of(self.source_split).has_lists

    def put_together(self, samples: list[Any]) -> Any:
        """Return the batch that the source makes of the ``samples`` that remain after others were skipped."""
        return plan_of(self.source_split).source.put_together(samples)

    @property
    def _makes_fresh_batches(self) -> bool:  # type: ignore[override]
        plan = plan_of(self.source_split)
        return not plan.functions and makes_fresh_batches(plan.source)

    def _samples_at(self, places: Any) -> Any:
        plan = self._source().plan.plan
        if plan.is_mapped or not isinstance(plan.source, Sequence):
            return None
        chosen = self._source_places(np.asarray(places, np.int64))
        if chosen is None:
            return None
        of_source, at = chosen
        return in_round(of_source.epoch, plan.source._samples_at, of_source.take(at))

    # -- the choice drawn for an epoch

    def _drawn(self, draw: Callable[[], Any], held: Any) -> Any:
        """Return the result of ``draw()`` for the current epoch. Workers receive it from the user's process.

        There, ``draw`` is called once an epoch. The global random generators, and those that ``held`` (e.g. a sampler)
        contains, are seeded by (seed, epoch) for the call.
        """
        place = self.epoch, seed_of_orders(self, self._plan()), source_length(self)
        if place not in self._kept:
            if seeding.is_in_worker_process():
                raise integrity_error(f"a worker has no order for {place}, but for {list(self._kept)}")
            job = seeding.Job(place[0], seeding.EPOCH_START)
            stream = seeding.Stream(place[1], Generators(lambda: [("sampler", held)]), (self,))
            drawn = seeding.run_job(stream, job, draw)
            self._kept = {**last_epochs(self._kept, place[0]), place: drawn}
        return self._kept[place]

    def _digest_of_drawn(self) -> str:
        """Return a hash of the choice drawn for the current epoch, for saved states."""
        found: str = self._choice().digest
        return found

    def _is_length_at_hand(self) -> bool:
        is_drawn = not self._is_drawn or any(epoch == self.epoch for epoch, _, _ in self._kept)
        return is_drawn and super()._is_length_at_hand()

    def subsample(self, nb_samples: int) -> Any:
        raise TypeError(f"the samples of a {type(self).__name__} cannot be chosen from: write .subsample() before it")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Any:
        raise TypeError(f"the samples of a {type(self).__name__} cannot be chosen from: write .subsample_uids() before")


def check_order_is_fixed(source: Any, done: str) -> None:
    """Raise TypeError if the order of ``source`` changes in each epoch, so that it cannot be ``done``, e.g. "split"."""
    for each in chain_of(source):
        if isinstance(each, Sequence) and each._changes_order:
            raise TypeError(
                f"the order of {type(each).__name__} changes from epoch to epoch, so a place in it is another sample "
                f"each time, and its samples cannot be {done}: do this before the order changes"
            )


def check_nothing_is_drawn(source: Any, done: str, instead: str) -> None:
    """Raise TypeError if ``source`` draws one order per epoch of the loop: a repeat or mix needs several."""
    drawn = plan_of(source).drawn
    if drawn:
        raise TypeError(
            f"the order of {type(drawn[0]).__name__} is drawn once for each epoch of the loop, so it cannot be {done}, "
            f"which takes several epochs of it for one: {instead}"
        )


def digest(values: NDArray[Any]) -> str:
    """Return a hexadecimal hash of an array's dtype, shape and content, for saved states."""
    found = hashlib.blake2b(f"{values.dtype.str}{values.shape}".encode(), digest_size=8)
    found.update(np.ascontiguousarray(values).data)
    return found.hexdigest()
