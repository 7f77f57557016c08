"""Several samples of a dataset at once, by its ``__getitems__``, where a batch of them is wanted."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import Any

import numpy as np

from workers.checks import short
from workers.errors import add_note
from workers.job.task import items_of_job, knows_items, makes_items

from .plan import EpochPlan
from .source import place_in_mro


def getter(plan: EpochPlan, source: Any, places: OrderOf[int], on_error: str) -> Callable[[int], list[Any]]:
    """The function of a place that returns the items of ``source``, of which this is the plan, once for each of
    ``places``. To be called within a job.

    Where the dataset at the beginning of it has ``__getitems__``, they are read now, by one call. If that
    raises, they are read one by one, so that each error is that of its sample, unless ``on_error`` is ``"raise"``.

    Raises:
        TypeError: ``__getitems__`` returns no list with one sample for each index.
    """
    dataset, functions = plan.plan.source, plan.plan.functions
    items_at = source._items_at if makes_items(source) else None
    if knows_items(dataset) or (functions and items_at is None):
        return functools.partial(items_of_job, source)
    jobs = dict(zip(places, plan.jobs(places), strict=True))
    samples = _samples(dataset, list(jobs.values()), on_error) if jobs and gets_several(dataset) else None
    if samples is None:
        if items_at is None:
            return lambda place: [dataset[jobs[place]]]
        return lambda place: items_at(place, jobs[place])
    read = _Read(samples)
    if items_at is None or not functions:
        return lambda place: [read[place]]
    return lambda place: items_at(place, jobs[place], read)


class _Read:
    """Samples that were read. Each is asked for once, in order, and let go of: who gets it may write into it."""

    def __init__(self, samples: list[Any]) -> None:
        self._left = samples[::-1]
        samples.clear()

    def __getitem__(self, index: int) -> Any:
        return self._left.pop()


def _samples(dataset: Any, indices: list[int], on_error: str) -> list[Any] | None:
    """What ``__getitems__`` returns; None: it has raised, and that is not for the loop."""
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
        f"DataLoader wants it; of {len(indices)} indices it has returned {got}"
    )


def gets_several(dataset: Any) -> bool:
    """Whether ``__getitems__`` says the same as ``__getitem__``: a subclass may have overridden the latter alone."""
    kind = type(dataset)
    return callable(getattr(kind, "__getitems__", None)) and place_in_mro(kind, "__getitems__") <= place_in_mro(
        kind, "__getitem__"
    )
