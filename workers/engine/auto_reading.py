"""Delivers the batches of one pass with ``nb_workers="auto"``, computed by workers or by the loop: see ``auto``."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from workers.batch.tree import own
from workers.job.notes import without_notes

from .comparison import difference
from .engine import Reading
from .handover import Outcome, Outcomes
from .passes import Ahead
from .results import Failure
from .serial import SerialReading

if TYPE_CHECKING:
    from .auto import AutoEngine


logger = logging.getLogger("workers")

_NOT_COMPARED = object()
_MAX_FAILED = 3  # the workers are given up after this many batches that failed in them, but not in the loop


class Phase(enum.Enum):
    """A phase of ``nb_workers="auto"``. Its value says who computes the batches."""

    ALONE = "the loop"
    TRIAL = "the loop; the workers compute one of these batches as well, to compare"
    SHARED = "the workers"
    LOST = "the loop, because the workers are lost for good"


class AutoReading:
    """The handle by which a loop with ``nb_workers="auto"`` reads the batches of one pass, its run over an epoch.

    The first batch of new workers is a trial. The loop computes this batch too, and delivers its own result. The two
    results are compared before the next batch is delivered. If they differ, the loop goes on without workers.
    """

    def __init__(
        self, auto: AutoEngine, epoch: int, length: int, ahead: Ahead | None, order: Sequence[int] | None
    ) -> None:
        self.engine = auto
        self._epoch = epoch
        self._order = range(length) if order is None else order
        self._given = order  # the argument; with None, the options may let batches come as they finish
        self._ahead = ahead
        self._alone: SerialReading = auto.serial.begin(epoch, length, False, None, None, order)
        self._shared: Reading | None = None  # the workers' part of the pass
        self._end = len(self._order)  # the number of the first batch that the workers do not compute
        self._is_at = 0  # the number of the batch asked for last
        self._look_at_s = 0.0
        self._trial: int | None = None  # the number of the batch that both compute
        self._tried: Any = _NOT_COMPARED  # a copy of the trial batch that the loop computed
        self._num_failed = 0

    @property
    def outcomes(self) -> Outcomes:
        """The workers' outcomes (batches or errors) that can be taken now, as {number in the pass: outcome}."""
        return {} if self._shared is None or self._trial is not None else self._shared.outcomes

    @property
    def has_computed(self) -> bool:
        return not self._is_of_workers(self._is_at)

    def peek(self, number: int, timeout_s: float | None = None, after: int | None = 0) -> Outcome:
        try:
            if not after and time.monotonic() >= self._look_at_s:
                with self.engine.lock:
                    if self.engine.is_read_by(self):
                        self._look(number)
            self._is_at = number
            if self._trial is not None and not after:
                self._compare(number, timeout_s)
            if self._is_of_workers(number):
                assert self._shared is not None
                return self._shared.peek(number, timeout_s, after)
        except Exception:
            if not self._has_lost_workers():
                raise
        outcome = self._alone.peek(number, timeout_s, after)
        if number == self._trial:
            self._tried = own(outcome.value) if type(outcome.value) is list and not after else _NOT_COMPARED
        return outcome

    def _is_of_workers(self, number: int) -> bool:
        return self._shared is not None and number < self._end and number != self._trial

    def _compare(self, number: int, timeout_s: float | None) -> None:
        """Compare the two results for the trial batch, once the loop asks for a later batch, ``number``.
        If the results differ, give up the workers. If either is an error, make batch ``number`` the next trial."""
        auto, trial, shared = self.engine, self._trial, self._shared
        if trial is None or shared is None or trial >= self._end:  # the workers did not get the batch's job
            self._trial = None
        elif trial < number:
            theirs = shared.peek(trial, timeout_s, None)
            value = theirs.value
            if type(value) is Failure:
                fails_only_there = self._tried is not _NOT_COMPARED
                self._num_failed += fails_only_there
                is_enough = fails_only_there and self._num_failed >= _MAX_FAILED
                found = f"jobs fail only in workers: {value.error!r}" if is_enough else None
                shared.forget(theirs.index)
            else:
                found = None if self._tried is _NOT_COMPARED else difference(_one(self._tried), _one(value))
            if found is not None and self._is_same_again(trial):
                auto.give_up_workers(
                    f"in batch {theirs.index} of epoch {self._epoch}, {found}. The likely cause is a setting that your "
                    "program makes only in its own process, or a job that depends on its process: make the setting in "
                    "worker_init_fn as well"
                )
                self._shared, self._trial = None, None
                return
            is_compared = not (type(value) is Failure or self._tried is _NOT_COMPARED)
            shared.drop(trial)
            self._trial, self._tried = None if is_compared else number, _NOT_COMPARED
            if is_compared:
                auto.has_compared()

    def _is_same_again(self, number: int) -> bool:
        """Compute batch ``number`` in the loop again. Return False if the result differs from the loop's first one.
        The batch is then random, so its difference from the workers' batch proves nothing."""
        value = self._alone.peek(number, None, None).value
        if type(value) is Failure or difference(_one(self._tried), _one(value)) is None:
            return True
        logger.info(
            "batch %d of epoch %d is different each time it is computed: its random draws are not seeded",
            self._order[number],
            self._epoch,
        )
        return False

    def _look(self, number: int) -> None:
        auto = self.engine
        wait_s = auto.look(len(self._order) - number)
        if self._shared is None and auto.chooser.nb_workers:
            if auto.is_ready:
                self.go_over(number)
            else:
                wait_s = 0.0
        elif self._shared is not None and auto.phase in (Phase.TRIAL, Phase.SHARED) and not auto.chooser.nb_workers:
            self._cut()
        if self._shared is not None and number >= self._end:
            self._shared = None
        self._look_at_s = time.monotonic() + wait_s

    def go_over(self, number: int) -> None:
        """Let the workers compute the rest of the pass, from batch ``number`` on.
        If the workers cannot begin, go on without them, or raise the error if workers are required."""
        auto, order = self.engine, self._given if number == 0 else self._order[number:]
        assert auto.engine is not None
        left, ahead = len(self._order) - number, self._ahead
        try:
            parcel = auto.workers.changes()
            shared = auto.engine.begin(self._epoch, left, False, ahead, parcel, order, number)
        except Exception as error:  # the sequence has become unpicklable, or the engine has failed
            if auto.serial.has_ended or not auto.give_up_workers(error):
                raise
            return
        self._end = len(self._order)
        self._trial, self._tried = None if auto.is_compared else number, _NOT_COMPARED
        auto.enter(Phase.SHARED if self._trial is None else Phase.TRIAL)
        self._shared = shared  # set last, so that this method is called again after a Ctrl-C
        auto.workers.sent(parcel)

    def _cut(self) -> None:
        """Send the workers no more jobs of this pass. The loop computes the batches that were not sent.
        If a Ctrl-C interrupts this method, :meth:`_look` calls it again."""
        assert self._shared is not None
        self._end = self._shared.cut()
        self.engine.enter(Phase.ALONE)

    def _has_lost_workers(self) -> bool:
        """Give up the workers if they have failed for good. Return True if the loop must go on without them."""
        auto = self.engine
        if self._shared is None or auto.serial.has_ended or not (auto.engine is None or auto.has_lost_workers()):
            return False
        self._shared, self._trial = None, None
        return True

    def drop(self, number: int) -> None:
        if self._is_of_workers(number):
            assert self._shared is not None
            self._shared.drop(number)
        else:
            self._alone.drop(number)

    def repeat(self, index: int, runs: int) -> Outcome:
        if self._is_of_workers(self._is_at):
            assert self._shared is not None
            try:
                return self._shared.repeat(index, runs)
            except Exception:
                if not self._has_lost_workers():
                    raise
        return self._alone.repeat(index, runs)

    def forget(self, index: int) -> None:
        if self._is_of_workers(self._is_at):
            assert self._shared is not None
            self._shared.forget(index)


def _one(items: Any) -> Any:
    """Return the batch in ``items``, the result of one job, or the list of all its batches. Leave out its notes."""
    items, _ = without_notes(items)
    return items[0] if len(items) == 1 else items
