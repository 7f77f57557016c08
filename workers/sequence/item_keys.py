"""Gives each item of a sequence a key, a number that is the same in each epoch, whatever the order of the items is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from workers.frameworks.keras import is_endless
from workers.job.context import in_part, in_round
from workers.job.task import makes_items

from .array import SequenceArray
from .base import plan_of
from .batched import SequenceBatch
from .chosen import SequenceChosen, check_order_is_fixed
from .groups import SequenceGroups
from .parts import SequenceOfParts, SequenceZip
from .plan import Plan


def check_keys(plan: Plan) -> None:
    """Raise TypeError if the items of ``plan`` have no keys, because a job makes other items in each epoch."""
    source = plan.source
    makes_own = isinstance(source, SequenceArray) and source._makes_samples()
    if isinstance(source, (SequenceGroups, SequenceBatch, SequenceZip)) or makes_items(source) or makes_own:
        check_order_is_fixed(source, "cached")
    elif isinstance(source, SequenceChosen):
        check_keys(plan_of(source.source_split))
    elif isinstance(source, SequenceOfParts):
        for part in source.parts:
            check_keys(plan_of(part))


def num_keys(plan: Plan) -> int:
    """Return how many keys the items of ``plan`` have."""
    source = plan.source
    if isinstance(source, SequenceChosen) and not isinstance(source, SequenceGroups):
        return num_keys(plan_of(source.source_split))
    if isinstance(source, SequenceOfParts) and not isinstance(source, SequenceZip):
        return sum(_num_keys_of_parts(source))
    if _has_sampler(source):
        return int(source.nb_samples)
    number = plan.count()
    assert number is not None
    if is_endless(number):
        raise TypeError(f"{type(source).__name__} has no end, so its items cannot be cached")
    return number


def keys_of(plan: Plan, jobs: list[int], note: bool = False) -> list[int]:
    """Return the keys of the items that ``jobs`` of ``plan`` make. Call it within a job.

    ``note``: count the items for the report, as those who read them from a mix or a concatenation do.
    """
    source = plan.source
    if isinstance(source, (SequenceGroups, SequenceBatch, SequenceZip)):
        return jobs
    if isinstance(source, SequenceChosen):
        return _keys_of_chosen(source, jobs, note)
    if isinstance(source, SequenceOfParts):
        first = np.cumsum([0, *_num_keys_of_parts(source)]).tolist()
        return [_key_of_turn(source, first, job, note) for job in jobs]
    if _has_sampler(source):
        found: list[int] = (source._positions()[jobs] % source.nb_samples).tolist()
        return found
    return jobs


def _has_sampler(source: Any) -> bool:
    """Return True if the items of ``source`` are found by their positions in its arrays, whatever its order is."""
    return isinstance(source, SequenceArray) and source.sampler is not None and not source._makes_samples()


def _keys_of_chosen(source: SequenceChosen[Any], jobs: list[int], note: bool) -> list[int]:
    chosen = source._source_places(np.array(jobs, np.int64))
    if chosen is None:  # the jobs are of several rounds of a repeated sequence
        return [key for job in jobs for key in _keys_of_chosen(source, [job], note)]
    plan, places = chosen
    return in_round(plan.epoch, keys_of, plan.plan, plan.jobs(places), note)  # type: ignore[no-any-return]


def _num_keys_of_parts(source: SequenceOfParts) -> list[int]:
    return [in_part(number, num_keys, plan_of(part)) for number, part in enumerate(source.parts)]


def _key_of_turn(source: SequenceOfParts, first: list[int], job: int, note: bool) -> int:
    part, epoch, place = source._turn(job)
    if note:
        source._note(part)
    return first[part] + in_part(part, _key_in_part, source, part, place, note, epoch=epoch)  # type: ignore[no-any-return]


def _key_in_part(source: SequenceOfParts, part: int, place: int, note: bool) -> int:
    plan = source._source_of(part).plan
    return keys_of(plan.plan, plan.jobs([place]), note)[0]


def made_from(plan: Plan) -> list[Any]:
    """Return what determines the items of ``plan``: the user's objects, functions, and arguments of methods."""
    source = plan.source
    found: list[Any] = [*plan.functions, plan.as_items] if plan.functions else []
    if isinstance(source, SequenceBatch):
        of_samples = plan_of(source.source_split)
        own = source.batch_size, source.discard_batch_not_full, of_samples.arrangements
        return [*found, *_given(source.collate_fn), own, *made_from(of_samples)]
    if isinstance(source, SequenceZip):
        found += [source._names, [plan_of(part).arrangements for part in source.parts]]
    if isinstance(source, SequenceOfParts):
        return [*found, type(source).__name__, [made_from(plan_of(part)) for part in source.parts]]
    if isinstance(source, SequenceChosen):
        return [*found, *made_from(plan_of(source.source_split))]
    if makes_items(source):
        return [*found, *_given(source.collate_fn), *made_from(source._plan())]
    if isinstance(source, SequenceArray) and not source._makes_samples():
        return [*found, source.arrays]
    return [*found, source]


def _given(function: Callable[..., Any] | None) -> list[Any]:
    return [] if function is None else [function]
