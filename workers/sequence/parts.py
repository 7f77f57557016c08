"""Sequences made from several others: ``concat``, ``zip``, and the base class of ``mix``."""

from __future__ import annotations

import bisect
import builtins
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as ListOf
from typing import Any

from workers.checks import check_bool, short
from workers.errors import add_note
from workers.frameworks.keras import ENDLESS, is_endless
from workers.job import seeding
from workers.job.context import in_part
from workers.job.notes import note_source
from workers.job.task import Loose, one_of

from .base import Sequence, plan_of
from .clock import asking, defines_hooks, with_clock
from .derived import SequenceDerived, check_indexed, plan_of_source
from .display import DisplayedFact, count, tried
from .fetching import getter
from .of_epoch import SourceOfEpoch, of_epoch
from .plan import Plan
from .source import check_source


class SequenceOfParts(SequenceDerived[Any]):
    """The base class of sequences that are made from several sources: ``concat``, ``zip`` and ``mix``.

    The sequence's own seed, by default that of the first source, determines all random draws. But a source that was
    given a seed is shuffled by that seed. The hooks of all sources are called.

    Args:
        sources: a list or dict of anything with ``__len__`` and ``__getitem__``.
        seed: the seed of all random draws.
    """

    _names_beside = ("_parts",)

    def __init__(self, sources: Any, seed: int | None) -> None:
        self._own_seed = seeding.check_seed(seed)
        self._names: list[str] | None = None
        if isinstance(sources, Mapping):
            self._names = [str(name) for name in sources]
            sources = list(sources.values())
        if isinstance(sources, (str, bytes, Sequence)) or not isinstance(sources, Iterable):
            raise TypeError(f"sources must be a list or dict of sequences, not {short(sources)}")
        parts = list(sources)
        if not parts:
            raise ValueError("sources must not be empty")
        for number, part in enumerate(parts):
            self._check_part(f"sources[{self._names[number]!r}]" if self._names else f"sources[{number}]", part)
        self._parts = tuple(parts[1:])
        super().__init__(parts[0])
        self.seed  # noqa: B018  # a missing seed is drawn now, so that workers do not each draw their own

    def _check_part(self, name: str, part: Any) -> None:
        check_source(name, part)
        try:
            plan = plan_of(part)
            check_indexed(type(part).__name__, plan.origin, "read in this order", "join items in __iter__")
            plan.chosen(part, "", (), False)  # raises if nothing can follow the source in a chain
            if plan.is_stream or plan.assembly is not None:
                raise TypeError(
                    f"{type(part).__name__} is read in an order of its own"
                    if plan.is_stream
                    else "its batches are put together in the consumer's process, because a function before .batch() "
                    "returns lists or samples may be skipped: batch after this"
                )
        except Exception as error:
            add_note(error, f"in {name}")
            raise
        if isinstance(part, Sequence):
            part._check_open()

    @property
    def parts(self) -> tuple[Any, ...]:
        """The sources, in the order given."""
        return (self.source_split, *self._parts)

    def _lengths(self) -> list[int]:
        clock = asking() or self._clock
        return [with_clock(clock, in_part, number, len, part) for number, part in enumerate(self.parts)]

    def _items(self, part: int, place: int, epoch: int) -> list[Any]:
        """Return the items of source number ``part`` at ``place`` of the source's own epoch number ``epoch``."""
        found: list[Any] = in_part(part, self._items_here, part, place, epoch=epoch)
        return found

    def _items_here(self, part: int, place: int) -> list[Any]:
        return self._source_of(part).items(place)

    def _source_of(self, part: int) -> SourceOfEpoch:
        """Return source number ``part`` in its own epoch, within :func:`in_part`."""
        return of_epoch(self, part, functools.partial(self._made_source_of, part))

    def _made_source_of(self, part: int) -> SourceOfEpoch:
        source = self.parts[part]
        return SourceOfEpoch(source, plan_of_source(self, source), self.seed)

    def _turn(self, index: int) -> tuple[int, int, int]:
        """Return (the number of the source that job ``index`` reads, the source's own epoch, the place in it)."""
        raise NotImplementedError

    def _reader(self, jobs: list[int], on_error: str) -> Callable[[], list[Any]] | None:
        """Return a function that returns the items of the next of ``jobs``: see :func:`getter`."""
        turns = [self._turn(job) for job in jobs]
        places: dict[tuple[int, int], list[int]] = {}
        for part, epoch, place in turns:
            places.setdefault((part, epoch), []).append(place)
        getters = {
            (part, epoch): in_part(part, self._getter_of, part, found, on_error, epoch=epoch)
            for (part, epoch), found in places.items()
        }
        left = iter(turns)

        def read() -> list[Any]:
            part, epoch, place = next(left)
            found: list[Any] = in_part(part, getters[part, epoch], place, epoch=epoch)
            self._note(part)
            return found

        return read

    def _note(self, part: int) -> None:
        """Count, for the report, a sample that was read from source number ``part``, if sources have names."""
        if self._names is not None:
            note_source(self._names[part])

    def _getter_of(self, part: int, places: list[int], on_error: str) -> Callable[[int], list[Any]]:
        source = self._source_of(part)
        return getter(source.plan, source.source, places, on_error)

    # -- as the origin of a chain

    def _plan(self) -> Plan:
        plan = Plan.of(self, () if self._own_seed is None else (self._own_seed,))
        plans = [plan_of(part) for part in self.parts]
        is_drawn, num_shuffles = any(each.drawn for each in plans), max(each.num_shuffles for each in plans)
        return plan._replace(drawn=(self,) if is_drawn else (), num_shuffles=num_shuffles)

    def _digest_of_drawn(self) -> str:
        """Return the hashes of the orders that were drawn for the sources, for saved states."""
        return " ".join(
            in_part(number, each._digest_of_drawn)
            for number, part in enumerate(self.parts)
            for each in plan_of(part).drawn
        )

    def __getitem__(self, index: int) -> Any:
        return one_of(self._items_of_job(index))

    def _items_of_job(self, index: int) -> list[Any]:
        part, epoch, place = self._turn(index)
        found = self._items(part, place, epoch)
        self._note(part)
        return found

    @property
    def _has_lists(self) -> bool:
        return any(plan_of(part).has_lists for part in self.parts)

    def _identity(self) -> list[Any]:
        parts = [plan_of(part).identity for part in self.parts]
        seeds = [list(plan_of(part).seeds) for part in self.parts]
        return [type(self).__qualname__, parts, seeds, *self._arguments()]

    def _arguments(self) -> tuple[Any, ...]:
        return ()

    @property
    def is_stream(self) -> bool:  # type: ignore[override]
        return False

    def on_epoch_begin(self) -> None:
        """Call ``on_epoch_begin`` of the user's objects that the sources were made from, once for each object."""
        for origin in self._origins():
            if hasattr(origin, "on_epoch_begin"):
                origin.on_epoch_begin()

    def on_epoch_end(self) -> None:
        """Call ``on_epoch_end`` of the user's objects that the sources were made from, once for each object."""
        for origin in self._origins():
            if hasattr(origin, "on_epoch_end"):
                origin.on_epoch_end()

    def _origins(self) -> list[Any]:
        """Return the user's objects that the sources were made from, each object once."""
        found: list[Any] = []
        for part in self.parts:
            origin = plan_of(part).origin
            found += origin._origins() if isinstance(origin, SequenceOfParts) else [origin]
        return list({id(each): each for each in found}.values())

    def _has_hooks(self, *names: str) -> bool:
        return any(
            part._has_hooks(*names) if isinstance(part, Sequence) else defines_hooks(part, *names)
            for part in self.parts
        )

    def _is_length_at_hand(self) -> bool:
        return all(part._is_length_at_hand() for part in self.parts if isinstance(part, Sequence))

    def _check_open(self) -> None:
        super()._check_open()
        for part in self._parts:
            if isinstance(part, Sequence):
                part._check_open()

    def _own_facts(self) -> Iterable[DisplayedFact | None]:
        yield tried(lambda: count(len(self.parts), "source", "sources"))

    def subsample(self, nb_samples: int) -> Any:
        raise TypeError(f"the samples of a {type(self).__name__} cannot be chosen from: write .subsample() before it")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Any:
        raise TypeError(f"the samples of a {type(self).__name__} cannot be chosen from: write .subsample_uids() before")


class SequenceConcat(SequenceOfParts):
    """The batches of several sequences, one sequence after the other: see :func:`workers.concat`."""

    def __init__(self, sources: Any, seed: int | None) -> None:
        super().__init__(sources, seed)
        if self._is_length_at_hand():
            len(self)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        lengths = self._lengths()
        for number, length in enumerate(lengths[:-1]):
            if is_endless(length):
                name = repr(self._names[number]) if self._names else number
                raise ValueError(f"sources[{name}] of a concat has no end, so that the next one would never come")
        return min(sum(lengths), ENDLESS)

    def _turn(self, index: int) -> tuple[int, int, int]:
        ends = of_epoch(self, "ends", lambda: list(itertools.accumulate(self._lengths())))
        part = bisect.bisect_right(ends, index)
        return part, self.epoch, index - (ends[part - 1] if part else 0)


class SequenceZip(SequenceOfParts):
    """Tuples or dicts of the batches of several sequences at the same index: see :func:`workers.zip`."""

    def __init__(self, sources: Any, strict: bool, seed: int | None) -> None:
        self.strict = check_bool("strict", strict)
        super().__init__(sources, seed)
        if self._is_length_at_hand():
            len(self)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        lengths = self._lengths()
        if self.strict and len(set(lengths)) > 1:
            raise ValueError(
                f"the sources of a zip must be of equal lengths, not {lengths}: give strict=False to stop at the "
                "shortest one"
            )
        return min(lengths)

    def _reader(self, jobs: list[int], on_error: str) -> None:
        """Return None: a job reads all sources."""

    def _items_of_job(self, index: int) -> list[Any]:
        found = [self._items(part, index, self.epoch) for part in range(len(self.parts))]
        if any(len(items) != 1 or isinstance(items[0], Loose) for items in found):
            raise TypeError(
                f"the sources of a zip must have one item for each index, but at index {index} they have "
                f"{[len(items) for items in found]}, because a function returns lists, or failed items are skipped: "
                "give as_items=False, or zip before this function"
            )
        values = [items[0] for items in found]
        return [dict(builtins.zip(self._names, values, strict=True)) if self._names else tuple(values)]

    @property
    def _has_lists(self) -> bool:
        return False

    def _arguments(self) -> tuple[Any, ...]:
        return self.strict, self._names


def concat(sources: ListOf[Any] | Mapping[str, Any], *, seed: int | None = None) -> Sequence[Any]:
    """Return a sequence of all batches (or samples, before ``.batch()``) of the first source, then of the second, etc.

    Args:
        sources, seed: as for :func:`workers.mix`.

    Raises:
        TypeError, ValueError: an argument is wrong, or a source has no indices.

    >>> list(concat([[1, 2], [3]]))
    [1, 2, 3]
    """
    return SequenceConcat(sources, seed)


def zip(  # noqa: A001
    sources: ListOf[Any] | Mapping[str, Any], strict: bool = True, *, seed: int | None = None
) -> Sequence[Any]:
    """Return a sequence whose batch ``i`` is a tuple of batch ``i`` of each source; a dict if ``sources`` is a dict.

    Args:
        sources, seed: as for :func:`workers.mix`.
        strict: True to raise ValueError if the lengths of sources differ; False to stop at the end of the shortest.

    Raises:
        TypeError, ValueError: an argument is wrong, a source has no indices, or an index has not exactly one item.

    >>> list(zip({"image": [1, 2], "label": [0, 1]}))
    [{'image': 1, 'label': 0}, {'image': 2, 'label': 1}]
    """
    return SequenceZip(sources, strict, seed)
