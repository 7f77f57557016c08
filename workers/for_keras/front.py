"""The pool of a Sequence that is given to Keras without one: ``model.fit(sequence)``."""

from __future__ import annotations

import threading
import time
import weakref
from typing import Any

from workers.loader.prefetching import usable_cores
from workers.loader.sequence_map import SequenceMap
from workers.sequence.base import Sequence


class KerasFront(SequenceMap):
    """The pool of a Sequence that was given to Keras as it is.

    It belongs to the Sequence, which so is held weakly. Keras does not say when it needs it no more, and TensorFlow
    holds every Sequence that it was given: so its workers end when nothing was asked for ``idle_s`` seconds.
    """

    idle_s = 60.0

    def __init__(self, sequence: Sequence) -> None:
        self._ended = threading.Event()
        super().__init__(sequence, max(1, usable_cores() - 1))

    def _start(self) -> None:
        super()._start()
        self._asked_s = time.monotonic()
        self._ended = threading.Event()
        weakref.finalize(self, self._ended.set)
        arguments = weakref.ref(self), self._ended, self.idle_s
        threading.Thread(target=_end_when_idle, args=arguments, name="prefetch-idle", daemon=True).start()

    def _stop(self) -> None:
        self._ended.set()
        super()._stop()

    def _ask(self, index: int, order: list[int] | None) -> Any:
        try:
            return super()._ask(index, order)
        finally:
            self._asked_s = time.monotonic()

    def end_if_idle(self) -> None:
        """End the workers, until they are needed again, if they were not for a while."""
        use = self.source_split._keras_use
        with use.lock:
            if time.monotonic() - self._asked_s > self.idle_s:
                use.forget()
                self._stop()

    @property
    def source_split(self) -> Any:
        return self._source()

    @source_split.setter
    def source_split(self, source: Sequence) -> None:
        self._source = weakref.ref(source)


def _end_when_idle(of: weakref.ref[KerasFront], ended: threading.Event, idle_s: float) -> None:
    while not ended.wait(idle_s / 2):
        front = of()
        if front is not None:
            front.end_if_idle()
        del front
