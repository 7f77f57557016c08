"""Finds out whether a function that a job has called has drawn random numbers, or asked which job it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import context, process_generators

_FEW = 16  # parts; a larger tuple holds numbers only, as that of random.Random
#: What is compared to find a draw: [(what was drawn from, its state)].
_States = list[tuple[str, Any]]


class DrawSearch:
    """The random draws since this was made, in the running job.

    Draws from the global generators are noticed only if the job's executor seeds them, i.e. not in threads. A traced
    ``tf.function`` is noticed only when it is traced.
    """

    def __init__(self) -> None:
        self._before = _states()
        self._asked, context.current.asked = context.current.asked, []

    def end(self) -> None:
        """End the search: later draws no longer count."""
        asked, context.current.asked = context.current.asked, self._asked
        if self._asked is not None:  # a search within another one
            self._asked += asked or ()

    def found(self) -> str:
        """Return the name of something that was drawn from, such as "numpy.random"; "" if nothing was.
        Generators that have come since the search began count as drawn from."""
        asked = context.current.asked
        if asked:
            return asked[0]
        now = _states()
        if [name for name, _ in now] != [name for name, _ in self._before]:
            return "new generators"
        pairs = zip(self._before, now, strict=True)
        return next((name for (name, one), (_, other) in pairs if not _is_equal(one, other)), "")


def _is_equal(one: Any, other: Any) -> bool:
    """Return True if two states of a generator are equal. They are numbers and arrays, in tuples and dicts."""
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, dict):
        return all(_is_equal(value, other[key]) for key, value in one.items())
    if isinstance(one, tuple) and len(one) < _FEW:
        return len(one) == len(other) and all(map(_is_equal, one, other))
    return bool(one == other)


def _states() -> _States:
    current = context.current
    if current.stream is None:
        return []
    found = current.stream.states()
    if current.seeds_globals:
        found += process_generators.states()
        if current.stream.generators is not None:
            found += current.stream.generators.states()
    return found


def current_job() -> context.Job | None:
    """Return the :class:`Job` (epoch, index, attempt, worker) in which the caller runs; None outside of a job."""
    context.ask("current_job()")
    return context.current_job()
