"""A pass (one run of a loop over an epoch): it takes the outcomes of jobs, and delivers their batches one by one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from collections.abc import Sequence as OrderOf
from typing import TYPE_CHECKING, Any

from workers.engine.handover import Outcome, ready
from workers.engine.protocols import AnyReading
from workers.engine.results import Failure, Portion
from workers.errors import StateError, integrity_error, safe_to_raise
from workers.job.notes import Notes, without_notes

from .clock import Clock
from .grouping import Assembly, JobItems, Pieces, Ready, raising
from .position import Delivered, Position

if TYPE_CHECKING:
    from typing_extensions import Self

    from .base import Sequence


_POLL_S = 0.001  # how often a thread checks whether another one has received its batch


def _each(items: JobItems, passed_by: int) -> list[Ready]:
    """Return [(item, [mark])] for the ``items`` except the first ``passed_by`` of their job, in reverse order."""
    each, start = items.items, items.num_passed_by(passed_by)
    return [(each[at], [items.mark(at)]) for at in reversed(range(start, len(each)))]


class Pass:
    """The consumer's side of a pass, one run of a loop over an epoch.

    The outcome (result) of a job is first *taken*, which makes its batches ready; each batch is then *delivered*. A
    state counts delivered batches. Each of the two steps ends with assignments without a call in between. Python
    raises a Ctrl-C at calls, not between such assignments, so a step is either done or not done.

    Args:
        reading: where the outcomes of the pass's jobs arrive.
        places: the places (numbers in the epoch's order) of the remaining batches, in the order of delivery.
        order: the numbers of the jobs at these places, if outcomes come in this order; None if outcomes come in any
            order, and the number of a job is its place.
        assembly: makes batches out of the items of several jobs; None if each item is a batch.
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
        self.reader: dict[int, int] = {}  # {0: id of the one thread in next()}, e.g. {0: 139872}
        self.is_collating = False
        self.is_counted = position is clock.position  # True if states count its batches; False in model.fit
        self.num_taken = 0  # outcomes taken
        self.num_jobs_taken = 0  # outcomes of jobs among them
        self.num_items_taken = 0  # items of the next outcome, which have come in portions
        self._num_counted = 0  # the same, as the assembly counts
        self.yields = False  # a generator function makes the items, so an error may come behind the last one
        self._is_spoilt = False  # one of them could not be used, so the rest of the outcome is left out
        self.ready: list[Ready] = []  # taken but not delivered; the next batch is the last one
        self._places = places
        self._order = order
        self._assembly = assembly
        self._carry: list[Ready] = []  # samples left over for the next batch

    def check(self, of: Sequence) -> None:
        """Raise an error if the pass over the sequence ``of`` cannot go on.

        Raises:
            StopIteration: the pass is over. ClosedError: ``of`` is closed. StalePassError: a newer pass has begun.
        """
        clock = self.clock
        if clock.is_closed:
            of._check_open()
        if self.is_over:
            raise StopIteration
        if clock.position is not self.position and self.is_counted:
            raise clock.stale(type(of).__name__)

    def outcome(self, timeout_s: float | None = None) -> Outcome | None:
        """Return the next outcome, or the next portion of it, without taking it; None if there are no more.

        Raises:
            queue.Empty: no outcome came within ``timeout_s``. ClosedError, or the error that ended the engine.
        """
        if self.num_taken < len(self._places):
            return self.reading.peek(self.num_taken, timeout_s, self.num_items_taken)
        return None

    def take_ahead(self) -> Notes | None:
        """Take the next outcome before the loop needs it, and return its notes. Return None if it is not there, failed,
        or has no items."""
        outcome = self._outcome_that_is_there()
        if outcome is None or type(outcome.value) is Failure or not outcome.value:
            return None
        items, notes = without_notes(outcome.value.items if type(outcome.value) is Portion else outcome.value)
        if notes.failures or not items:  # which the loop has to count when the batch is due
            return None
        self.take(outcome, items)
        return notes

    def _outcome_that_is_there(self) -> Outcome | None:
        if self.num_taken >= len(self._places):
            return None
        return ready(self.reading.outcomes, self.num_taken, self.num_items_taken)

    def take(self, outcome: Outcome, items: list[Any] | None) -> None:
        """Make the ``items`` of an outcome, or of a portion of it, ready for delivery.
        They are None if the job failed, and the caller raises its error."""
        number, place = self.num_taken, outcome.index
        if self._order is not None:
            if place != self._order[number]:
                raise integrity_error(f"batch {place} of epoch {self.epoch} has come for batch {self._order[number]}")
            place = self._places[number]
        self._commit(outcome, place, items)
        if type(outcome.value) is not Portion:
            self.reading.drop(number)

    def is_plain(self, outcome: Outcome) -> bool:
        """Return True if ``outcome``, the next one, is one batch and nothing else, and nobody has to be told that it
        was taken, as it was computed in this thread."""
        value, number = outcome.value, self.num_taken
        if type(value) is not list or len(value) != 1 or type(value[0]) is Notes or not self.reading.has_computed:
            return False
        order, place = self._order, self._places[number]
        if (
            self._assembly is not None
            or self.num_items_taken
            or outcome.index != (place if order is None else order[number])
        ):
            return False
        return self.position.is_in_order(place)

    def pass_on(self, outcome: Outcome) -> Any:
        """Take and deliver the batch of an ``outcome`` that :meth:`is_plain`, and return it."""
        number, jobs, position = self.num_taken + 1, self.num_jobs_taken + 1, self.position
        delivered, batch = Delivered(self._places[self.num_taken] + 1), outcome.value[0]
        # No call follows, here or in the caller, in which a Ctrl-C could lose the batch.
        position.delivered, self.num_taken, self.num_jobs_taken = delivered, number, jobs
        return batch

    def _commit(self, outcome: Outcome, place: int, items: list[Any] | None, is_job: bool = True) -> None:
        position, before, is_end = self.position, self._num_counted, type(outcome.value) is not Portion
        passed_by = position.num_passed_by(place)
        delivered: Delivered = position.delivered
        error: Exception | None = None
        num_items = len(items or ())
        number = before + num_items
        is_spoilt = self._is_spoilt
        items = [] if is_spoilt and items else items
        if items and is_end and passed_by >= number + self.yields and self._assembly is None:
            text = f"the state was taken after item {passed_by} of batch {place}, which has only {number} items"
            error, items = StateError(text), None
        carry: list[Ready] = self._carry
        made: list[Ready] = []
        if items and self._assembly is not None:
            try:
                carry, made = self._assembly.add(carry, JobItems(place, items, before, is_end), passed_by)
            except Exception as raised:  # e.g. an item is not a batch; raised behind those before it
                usable = items[: self._assembly.num_usable(items)]
                if len(usable) < len(items):
                    carry, made = self._assembly.add(carry, JobItems(place, usable, before, False), passed_by)
                error, items, is_spoilt = (None, [], True) if made else (raised, None, True)
                made = [raising(raised), *made] if made else made
        elif items and num_items == 1 and is_end and not before:  # the usual case
            made = [(items[0], [(place, None)])]
        elif items:
            made = _each(JobItems(place, items, before, is_end), passed_by)
        waiting = [*made, *self.ready]  # the last one, perhaps taken ahead of time, is delivered next
        if not is_end:
            pass
        elif not items and carry and (items is not None or position.stride > 1 or carry[-1][1][-1][0] == place):
            carry = [*carry[:-1], (carry[-1][0], [*carry[-1][1], (place, None)])]  # delivered with the previous part
            is_between = items is None and position.stride > 1
            delivered = position.within(place) if is_between else delivered
        elif (not items or not (made or carry)) and waiting:  # delivered with the batch before it
            waiting[0] = waiting[0][0], [*waiting[0][1], (place, None)]
        elif not items or not (made or carry):
            delivered = position.behind(place)
        taken = self.num_taken + 1, self.num_jobs_taken + is_job, 0, 0
        if not is_end:
            counted = before + self._count(items or [])
            taken = self.num_taken, self.num_jobs_taken, self.num_items_taken + num_items, counted
        # No call in between, so that a Ctrl-C loses no batch.
        position.delivered, self.ready, self._carry = delivered, waiting, carry
        self.num_taken, self.num_jobs_taken, self.num_items_taken, self._num_counted = taken
        self._is_spoilt = is_spoilt and not is_end
        if error is not None:
            try:
                raise error
            finally:
                del error  # no reference cycle with this frame

    def _count(self, items: list[Any]) -> int:
        return len(items) if self._assembly is None else self._assembly.count(items)

    def join(self) -> None:
        """Put the next batch together if it consists of pieces. If this raises, it counts as delivered."""
        batch, marks = self.ready[-1]
        if type(batch) is Pieces:
            try:
                whole = batch.whole()
            except Exception as error:
                self.position.delivered = self.position.after(marks)
                del self.ready[-1]
                if safe_to_raise(error) is error:
                    raise
                raise safe_to_raise(error) from error
            self.ready[-1] = whole, marks

    def deliver(self) -> Any:
        """Return the next batch that is ready, and count it as delivered in the position of the pass."""
        self.join()
        ready = self.ready
        batch, marks = ready[-1]
        position = self.position
        delivered = position.behind(*marks[0]) if len(marks) == 1 else position.after(marks)
        # No call follows, here or in the caller, in which a Ctrl-C could lose the batch.
        position.delivered = delivered
        del ready[-1]
        return batch

    def next(self, of: Sequence) -> Any:
        """Return the next batch of the pass over the sequence ``of``.

        Raises:
            StopIteration: the pass is over. StalePassError, ClosedError: see :meth:`check`. Any error of a job.
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
            self.take(outcome, value.items if type(value) is Portion else without_notes(value)[0])
        return self.deliver()

    def has_rest(self) -> bool:
        """Make the last batch ready, of the samples left over by all jobs. Return False if there is no such batch."""
        if self._assembly is None:
            return False
        rest = self._assembly.remaining(self._carry)
        self.ready, self._assembly = rest, None
        return bool(rest)

    def end(self, of: Sequence) -> None:
        """End the pass after its last batch. If it is the current pass, move the sequence ``of`` to the next epoch."""
        if self.clock.position is self.position:
            self.clock.end_epoch(of)
        self.is_over = True


def read_alone(this_pass: Pass, read: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``read(*arguments)``, which reads ``this_pass``, once no other thread reads that pass; return its result.

    No lock is used, because a Ctrl-C in the call that releases it would lose the batch. Here no call follows ``read``.
    The thread that reads the pass may call this again, for example from ``on_error``.
    """
    me, reader = threading.get_ident(), this_pass.reader
    is_within = reader.get(0) == me
    try:
        while reader.setdefault(0, me) != me:  # atomic
            time.sleep(_POLL_S)
        return read(*arguments)
    finally:
        if not is_within and reader == {0: me}:
            del reader[0]


class PassIterator:
    """The iterator of a loop over a sequence. It refers to the sequence, and so keeps the workers alive.

    The loop reads ``this_pass``; ``read()`` returns the next batch of that pass.
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
