"""Whether jobs may run in threads: they share generators, so what draws from these is another batch there."""

from __future__ import annotations

from typing import Any

from workers.job import process_generators
from workers.job.seeding import Stream


class Watched:
    """In the place of a ``Task``: notes what its jobs draw from.

    Attributes:
        draws_alone: no job was seen to draw from anything but ``current_rng()`` and ``current_seed()``.
    """

    def __init__(self, task: Any, stream: Stream) -> None:
        self.source, self.functions = task.source, task.functions
        self.draws_alone = True
        self._task = task
        self._stream = stream

    def run(self, index: int, payload: Any) -> Any:
        """See ``Task.run``."""
        before = process_generators.states()
        items = self._task.run(index, payload)
        if self._stream.held or process_generators.states() != before:
            self.draws_alone = False
        return items
