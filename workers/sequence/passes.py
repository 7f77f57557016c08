"""One pass over what is left of an epoch: the outcomes of an engine, delivered one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any

from workers.engine.delivery import Failure
from workers.engine.handover import Outcome
from workers.engine.protocols import AnyReading
from workers.errors import StateError, integrity_error, presentable

from .clock import Clock
from .grouping import Assembly, Pieces, Ready
from .position import Delivered, Position

if TYPE_CHECKING:
    from typing_extensions import Self

    from .base import Sequence


_POLL_S = 0.001  # between two looks whether another thread has its batch


def _each(items: list[Any], place: int, passed_by: int) -> list[Ready]:
    """Each item of the job at ``place`` behind the first ``passed_by``, the last one first."""
    last = len(items)
    if last == 1:
        return [(items[0], [(place, None)])]
    numbered = list(enumerate(items[passed_by:], passed_by + 1))
    return [(item, [(place, at if at < last else None)]) for at, item in reversed(numbered)]


class Pass:
    """The consumer's end of a pass.

    An outcome of the engine is *taken*, which leaves its batches here, and these are *delivered*. A state counts what
    was delivered. Each of the two is committed in one place, without a call in between: so a Ctrl-C, which Python
    raises where a function is called, finds it done or not done.

    Args:
        reading: where the outcomes of its jobs come from.
        places: where the batches stand that are left, in the order of delivery.
        order: the jobs at these places, if their outcomes come in this order. None: they come in any order, and the
            index of a job is its place.
    """

    def __init__(
        self,
        reading: AnyReading,
        clock: Clock,
        position: Position,
        places: OrderOf[int] = (),
        order: OrderOf[int] | None = None,
        assembly: Assembly | None = None,
    ) -> None:
        self.reading = reading
        self.clock = clock
        self.position = position
        self.epoch, self.version = clock.epoch, clock.version
        self.is_over = False
        self.reader: dict[int, int] = {}  # {0: the thread that is in next()}, e.g. {0: 139872}; one at a time
        self.is_collating = False
        self.is_counted = position is clock.position  # by states; if not, it is model.fit's
        self.num_taken = 0  # outcomes
        self.num_jobs_taken = 0  # those of jobs
        self.ready: list[Ready] = []  # taken, not yet delivered: the next batch is the last of them
        self._places = places
        self._order = order
        self._assembly = assembly
        self._carry: list[Ready] = []  # samples that are left over for the next batch

    def check(self, of: Sequence) -> None:
        """Raise StopIteration if it is over, ClosedError or StalePassError if there is no more to be had of it."""
        clock = self.clock
        if clock.is_closed:
            of._check_open()
        if self.is_over:
            raise StopIteration
        if clock.position is not self.position and self.is_counted:
            raise clock.stale(type(of).__name__)

    def outcome(self, timeout_s: float | None = None) -> Outcome | None:
        """The next outcome; the same again, until it is taken. None: there are no more.

        Raises:
            queue.Empty: ``timeout_s`` is over. ClosedError, or what has ended the engine.
        """
        if self.num_taken < len(self._places):
            return self.reading.peek(self.num_taken, timeout_s)
        return None

    def take_ahead(self) -> bool:
        """Take one more outcome, if it is there and has batches. What raises, or has none, is taken when it is due."""
        outcome = self._outcome_that_is_there()
        if outcome is None or type(outcome.value) is Failure or not outcome.value:
            return False
        self.take(outcome, outcome.value)
        return True

    def _outcome_that_is_there(self) -> Outcome | None:
        return self.reading.outcomes.get(self.num_taken) if self.num_taken < len(self._places) else None

    def take(self, outcome: Outcome, items: list[Any] | None) -> None:
        """Have ``items``, which came of ``outcome``, ready for delivery. None: an error came of it, which the caller
        raises next."""
        number, place = self.num_taken, outcome.index
        if self._order is not None:
            if place != self._order[number]:
                raise integrity_error(f"batch {place} of epoch {self.epoch} has come for batch {self._order[number]}")
            place = self._places[number]
        self._commit(outcome, place, items)
        self.reading.drop(number)

    def _commit(self, outcome: Outcome, place: int, items: list[Any] | None, is_job: bool = True) -> None:
        position, number, jobs = self.position, self.num_taken, self.num_jobs_taken
        passed_by = position.num_passed_by(place)
        delivered: Delivered = position.delivered
        error: Exception | None = None
        if items and passed_by >= len(items) and self._assembly is None:
            text = f"the state was taken behind item {passed_by} of batch {place}, which has {len(items)}"
            error, items = StateError(text), None
        carry: list[Ready] = self._carry
        ready: list[Ready] = []
        if items and self._assembly is not None:
            try:
                carry, ready = self._assembly.add(carry, place, items, passed_by)
            except Exception as raised:  # no batches: raised in their place
                error, items = raised, None
        elif items:
            ready = _each(items, place, passed_by)
        if not items and carry and (items is not None or position.stride > 1):  # delivered with what is before it
            carry = [*carry[:-1], (carry[-1][0], [*carry[-1][1], (place, None)])]
            delivered = delivered if items is not None else position.within(place)
        elif not items or not (ready or carry):
            delivered = position.behind(place)
        if self.ready:  # it is taken ahead
            ready = [*ready, *self.ready]
        # Without a call in between: what a Ctrl-C has kept back is still to come.
        position.delivered, self.ready, self._carry = delivered, ready, carry
        self.num_taken, self.num_jobs_taken = number + 1, jobs + is_job
        if error is not None:
            try:
                raise error
            finally:
                del error  # no cycle with this frame

    def deliver(self) -> Any:
        """The next batch of those that are ready, and note that it was delivered."""
        ready = self.ready
        batch, marks = ready[-1]
        position = self.position
        delivered = position.behind(*marks[0]) if len(marks) == 1 else position.after(marks)
        if type(batch) is Pieces:
            try:
                batch = batch.whole()
            except Exception as error:
                position.delivered = delivered
                del ready[-1]
                if presentable(error) is error:
                    raise
                raise presentable(error) from error
        # Without a call in between, here and where this returns to.
        position.delivered = delivered
        del ready[-1]
        return batch

    def next(self, of: Sequence) -> Any:
        """The next batch of ``of``, which is iterated.

        Raises:
            StopIteration: the pass is over. StalePassError. What the job has raised.
        """
        self.check(of)
        while not self.ready:
            outcome = self.outcome()
            if outcome is None:
                if self.has_rest():
                    break
                self.end(of)
                raise StopIteration
            value = outcome.value
            if type(value) is Failure:
                self.take(outcome, None)
                try:
                    raise value.error
                finally:
                    del outcome, value  # no cycle with this frame
            self.take(outcome, value)
        return self.deliver()

    def has_rest(self) -> bool:
        """Whether samples were left over at the end, which are ready for delivery now."""
        if self._assembly is None:
            return False
        rest = self._assembly.rest(self._carry)
        self.ready, self._assembly = rest, None
        return bool(rest)

    def end(self, of: Sequence) -> None:
        """All was delivered: the epoch is over."""
        if self.clock.position is self.position:
            self.clock.end_epoch(of)
        self.is_over = True


def read_alone(this_pass: Pass, read: Callable[..., Any], *arguments: Any) -> Any:
    """``read(*arguments)``, which reads ``this_pass``; threads that read one pass wait here for each other.

    There is no lock, for a Ctrl-C that came in the call that releases it would lose the batch: behind ``read`` no
    call follows. A thread may come again, as from ``on_error``.
    """
    me, reader = threading.get_ident(), this_pass.reader
    is_within = reader.get(0) == me
    try:
        while reader.setdefault(0, me) != me:  # in one step
            time.sleep(_POLL_S)
        return read(*arguments)
    finally:
        if not is_within and reader == {0: me}:
            del reader[0]


class PassIterator:
    """What ``iter()`` of a sequence returns. It holds the sequence, whose workers live as long as somebody does.

    ``read``: returns the next batch of the pass.
    """

    __slots__ = "__weakref__", "_of", "_pass", "_read"

    def __init__(self, of: Sequence, this_pass: Pass, read: Callable[[], Any]) -> None:
        self._of = of
        self._pass = this_pass
        self._read = read

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self._read()
