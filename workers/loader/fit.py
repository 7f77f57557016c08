"""The front-end of a Sequence that is given to ``model.fit`` as it is."""

from __future__ import annotations

import weakref
from typing import Any

from workers.for_keras import reading
from workers.job.task import Task
from workers.sequence.base import Sequence
from workers.sequence.chain import NbWorkers
from workers.sequence.clock import Clock

from .sequence_map import SequenceMap

NB_WORKERS: NbWorkers = "auto"


class FitFront(SequenceMap):
    """The workers of a Sequence, which owns them: so it is held weakly. Their epochs are its own."""

    def __init__(self, sequence: Sequence) -> None:
        super().__init__(sequence, NB_WORKERS)

    @property
    def source_split(self) -> Any:
        return self._source()

    @source_split.setter
    def source_split(self, source: Sequence) -> None:
        self._source = weakref.ref(source)

    def _task_here(self) -> Task:
        task = self._task()
        if task.source is self.source_split:
            task.source = weakref.proxy(task.source)
        return task

    @property
    def _clock(self) -> Clock:
        return self.source_split._clock  # type: ignore[no-any-return]


reading.make_front.append(FitFront)
