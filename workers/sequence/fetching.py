"""Fetches the samples of a batch: by one call of the dataset's ``__getitems__``, if it has one, or one by one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import Any

import numpy as np

from workers.checks import short
from workers.errors import add_note
from workers.job.context import current_stream
from workers.job.stream import hashed
from workers.job.task import items_of_job, knows_items, makes_items

from .epoch_plan import EpochPlan
from .source import place_in_mro

_OF_REDRAWS = "redraw"  # part of the key of the draws, so that they differ from all other draws


def getter(plan: EpochPlan, source: Any, places: OrderOf[int], on_error: str) -> Callable[[int], list[Any]]:
    """Return a function of a place (number in the epoch's order) that returns the list of items of ``source`` there.

    Call ``getter`` within a job, and then the returned function once for each of ``places``, in their order. ``plan``
    is the plan of ``source`` for the epoch.

    If the dataset at the start of the chain has ``__getitems__``, one call of it reads all samples immediately. If the
    call raises, and ``on_error`` is not ``"raise"``, they are read one by one, so that errors belong to single samples.

    Raises:
        TypeError: ``__getitems__`` does not return a list with one sample for each index.
    """
    dataset, functions = plan.plan.source, plan.plan.functions
    items_at = source._items_at if makes_items(source) else None
    if hasattr(type(dataset), "_reader") and len(places) and (items_at is not None or not functions):
        numbers = plan.jobs(places)
        reader = dataset._reader(numbers, on_error)
        if reader is not None:
            if not functions:
                return lambda place: reader()
            assert items_at is not None
            of_place, each = dict(zip(places, numbers, strict=True)), _Each(reader)
            return lambda place: items_at(place, of_place[place], each)
    if knows_items(dataset) or (functions and items_at is None):
        return functools.partial(items_of_job, source)
    numbers = plan.jobs(places)
    jobs = dict(zip(places, numbers, strict=True))
    samples = _samples(dataset, numbers, on_error) if jobs and gets_several(dataset) else None
    if samples is None:
        if items_at is None:
            return lambda place: [dataset[jobs[place]]]
        return lambda place: items_at(place, jobs[place])
    read = _Read(samples)
    if items_at is None or not functions:
        return lambda place: [read[place]]
    return lambda place: items_at(place, jobs[place], read)


class _Read:
    """A stand-in for a dataset, with samples read in advance: any index returns the next one and releases it."""

    def __init__(self, samples: list[Any]) -> None:
        self._left = samples[::-1]
        samples.clear()

    def __getitem__(self, index: int) -> Any:
        return self._left.pop()


class _Each:
    """A stand-in for a sequence that reads items of others: any index returns the items that come next."""

    def __init__(self, read: Callable[[], list[Any]]) -> None:
        self._read = read

    def _items_of_job(self, index: int) -> list[Any]:
        return self._read()


def batch_at(samples: EpochPlan, places: OrderOf[int], on_error: str) -> Any:
    """Return the batch of ``places`` if the source can make it as a whole; None if samples must be read one by one."""
    source = samples.plan.source
    if samples.plan.is_mapped or not hasattr(source, "_samples_at"):
        return None
    try:
        return source._samples_at(samples.take(places))
    except Exception:
        if on_error == "raise":
            raise
        return None


def another(plan: EpochPlan, source: Any, among: list[int] | None, job: int, number: int, attempt: int) -> list[Any]:
    """Return the items of a random sample of ``source``, to replace one that raised.

    Args:
        among: the places to draw the sample from; None for all.
        job, number, attempt: the numbers of the batch, of the sample that raised, and of the attempt to replace it.
            The draw depends on these, the seed and the epoch.
    """
    stream, length = current_stream(), plan.length if among is None else len(among)
    if stream is None or not length:
        return []
    place = hashed(stream.seed, repr((_OF_REDRAWS, plan.epoch, job, number, attempt)).encode())[0] % length
    place = place if among is None else among[place]
    return getter(plan, source, [place], "raise")(place)


def _samples(dataset: Any, indices: list[int], on_error: str) -> list[Any] | None:
    """Return the samples at ``indices`` by ``__getitems__``; None if it raises and ``on_error`` is not ``"raise"``."""
    try:
        found = dataset.__getitems__(indices)
    except Exception as error:
        if on_error == "raise":
            add_note(error, f"raised in {type(dataset).__name__}.__getitems__({short(indices)})")
            raise
        return None
    is_list = isinstance(found, (list, tuple, np.ndarray)) or bool(getattr(found, "shape", ()))
    if is_list and len(found) == len(indices):
        return list(found)
    got = f"{len(found)} samples" if is_list else f"a {type(found).__name__}"
    raise TypeError(
        f"{type(dataset).__name__}.__getitems__ must return a list with one sample for each index, as torch's "
        f"DataLoader wants it; for {len(indices)} indices it has returned {got}"
    )


def gets_several(dataset: Any) -> bool:
    """Return True if ``dataset`` has ``__getitems__``, and no subclass overrides only ``__getitem__``."""
    kind = type(dataset)
    return callable(getattr(kind, "__getitems__", None)) and place_in_mro(kind, "__getitems__") <= place_in_mro(
        kind, "__getitem__"
    )
