"""Drops the batches for which a function returns false, for ``.filter()``: during the loop, or once in advance."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counting import answers_of


class Kept:
    """A function that returns [item] if ``function(item)`` is true, else []."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function
        self.wants_tensors = getattr(function, "wants_tensors", True)

    def __call__(self, item: Any) -> list[Any]:
        return [item] if self.function(item) else []


def filtered(sequence: Any, function: Callable[[Any], Any]) -> tuple[NDArray[np.int64], int]:
    """Return (the places of the batches for which ``function`` returns true, the length of ``sequence``)."""
    answers = answers_of(sequence, functools.partial(_is_true, function), "filtered", "filter")
    places = np.flatnonzero(np.array(answers, bool))
    if answers and not len(places):
        raise ValueError(f"filter has kept none of the {len(answers)} {sequence._item_names[1]}: nothing is left")
    return places, len(answers)


def _is_true(function: Callable[[Any], Any], item: Any) -> bool:
    return bool(function(item))
