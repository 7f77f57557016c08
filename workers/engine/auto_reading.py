"""What a loop with ``nb_workers="auto"`` reads a pass with: see ``auto``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from .handover import Outcome, Outcomes
from .passes import Ahead
from .reading import Reading
from .serial import SerialReading

if TYPE_CHECKING:
    from .auto import AutoEngine


class AutoReading:
    """In the place of a :class:`workers.engine.reading.Reading`."""

    def __init__(
        self, auto: AutoEngine, epoch: int, length: int, ahead: Ahead | None, order: Sequence[int] | None
    ) -> None:
        self.engine = auto
        self._epoch = epoch
        self._order = range(length) if order is None else order
        self._given = order  # None: as they come, where that is wanted
        self._ahead = ahead
        self._alone: SerialReading = auto.serial.begin(epoch, length, False, None, None, order)
        self._shared: Reading | None = None  # with workers
        self._end = len(self._order)  # the number of the first batch that they do not have
        self._is_cutting = False
        self._is_at = 0  # the number that was asked for last
        self._look_at_s = 0.0

    @property
    def outcomes(self) -> Outcomes:
        """{number: outcome} that are there."""
        return {} if self._shared is None else self._shared.outcomes

    def peek(self, number: int, timeout_s: float | None = None) -> Outcome:
        try:
            if time.monotonic() >= self._look_at_s:
                with self.engine.lock:
                    if self.engine.is_read_by(self):
                        self._look(number)
            self._is_at = number
            if self._shared is not None and number < self._end:
                return self._shared.peek(number, timeout_s)
        except Exception:
            if not self._has_lost_workers():
                raise
        return self._alone.peek(number, timeout_s)

    def _look(self, number: int) -> None:
        auto = self.engine
        if self._is_cutting:
            self._cut()
        wait_s = auto.look(len(self._order) - number)
        if self._shared is None and auto.chooser.nb_workers:
            if auto.is_ready:
                self.go_over(number)
            else:
                wait_s = 0.0
        elif self._shared is not None and number < self._end and (auto.changes_kind or not auto.chooser.nb_workers):
            self._cut()
        if self._shared is not None and number >= self._end:
            self._shared = None
        self._look_at_s = time.monotonic() + wait_s

    def go_over(self, number: int) -> None:
        """The workers have the batches from ``number`` on."""
        auto, order = self.engine, self._given if number == 0 else self._order[number:]
        assert auto.engine is not None
        left, ahead = len(self._order) - number, self._ahead if auto.chooser.kind == "process" else None
        try:
            parcel = auto.workers.changes()
            shared = auto.engine.begin(self._epoch, left, False, ahead, parcel, order, number)
        except Exception as error:  # it cannot be sent any more, or the engine has failed
            if auto.serial.has_ended or not auto.does_without(error):
                raise
            return
        self._end = len(self._order)
        auto.with_workers(True)
        self._shared = shared  # a Ctrl-C before leaves all to be done again
        auto.workers.sent(parcel)

    def _cut(self) -> None:
        """The workers get no more batches. A Ctrl-C in between leaves it to be done again."""
        assert self._shared is not None
        self._is_cutting = True
        self._end = self._shared.cut()
        self.engine.with_workers(False)
        self._is_cutting = False

    def _has_lost_workers(self) -> bool:
        """Whether there are none any more, and the loop goes on without them."""
        auto = self.engine
        if self._shared is None or auto.serial.has_ended or not (auto.engine is None or auto.lacks_workers()):
            return False
        self._shared, self._is_cutting = None, False
        return True

    def drop(self, number: int) -> None:
        if self._shared is not None and number < self._end:
            self._shared.drop(number)
        else:
            self._alone.drop(number)

    def repeat(self, index: int, runs: int) -> Outcome:
        if self._shared is not None and self._is_at < self._end:
            try:
                return self._shared.repeat(index, runs)
            except Exception:
                if not self._has_lost_workers():
                    raise
        return self._alone.repeat(index, runs)

    def forget(self, index: int) -> None:
        if self._shared is not None and self._is_at < self._end:
            self._shared.forget(index)


AnyReading: TypeAlias = "Reading | SerialReading | AutoReading"
