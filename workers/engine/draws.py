"""Whether jobs may run in threads: they share generators, so what draws from these is another batch there."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers import frameworks
from workers.job import process_generators
from workers.job.seeding import Stream

_LOOKED_AT = 200  # jobs: each look takes 0.4 ms


class Watched:
    """In the place of a ``Task``: notes what its jobs draw from.

    Attributes:
        draws_alone: no job was seen to draw from anything but ``current_rng()`` and ``current_seed()``, or from these
            in a thread of its own.
    """

    def __init__(self, task: Any, stream: Stream) -> None:
        self.source, self.functions = task.source, task.functions
        self.draws_alone = True
        self._left = _LOOKED_AT
        self._task = task
        self._stream = stream

    def run(self, index: int, payload: Any) -> Any:
        """See ``Task.run``."""
        if not self._left:
            return self._task.run(index, payload)
        self._left -= 1
        before = _states()
        items = self._task.run(index, payload)
        held = self._stream.held
        is_alone = not (held is not None and held.are_of_sequence) and not self._stream.is_drawn_by_threads
        if not is_alone or _states() != before:
            self.draws_alone = False
        return items


def _states() -> Any:
    """Of all generators of the process."""
    found: list[Any] = [generator for _, generator in frameworks.process_generators() if generator is not None]
    return process_generators.states(), [np.asarray(generator.state).tobytes() for generator in found]
