"""What a worker does with its replica: the items of a job, through the functions of a chain."""

from __future__ import annotations

import functools
from typing import Any

from workers.checks import short

from .generators import Generators


def single_function_to_run(batch: Any, function_to_run: Any) -> Any:
    """Apply the functions of the list ``function_to_run`` to ``batch``, one after the other. Source: trw."""
    for function in function_to_run:
        batch = function(batch)
    return batch


class Task:
    """What a worker does: the items of job ``index``. This is what its replica is."""

    def __init__(self, source: Any, functions: tuple[Any, ...], seed: int) -> None:
        self.source = source
        self.functions = functions  # one for each SequenceMap of the chain; none: the batches as they are
        self.seed = seed

    def generators(self) -> Generators:
        """The random generators that its source and functions hold."""
        return Generators(lambda: [("source", self.source), ("functions", self.functions)])

    def run(self, index: int, payload: tuple[Any] | None) -> list[Any]:
        items = [self.source[index] if payload is None else payload[0]]
        for function in self.functions:
            results = [function(item) for item in items]
            items = []
            for result in results:
                # Only a list: a tuple is a batch.
                items.extend(result) if type(result) is list else items.append(result)
        return items


def one_function(function_to_run: Any) -> Any:
    if function_to_run is None or callable(function_to_run):
        return function_to_run
    if isinstance(function_to_run, (list, tuple)) and function_to_run and all(map(callable, function_to_run)):
        return functools.partial(single_function_to_run, function_to_run=list(function_to_run))
    raise TypeError(f"function_to_run must be a function, a list of functions or None, not {short(function_to_run)}")
