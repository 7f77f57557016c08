"""Delivers batches to the loop, one by one, as the workers' jobs finish.

A job computes one batch. Its outcome is either an error or a list of items, usually just that batch. The consumer (the
thread that runs the loop) takes the outcomes, handles errors, applies ``collate_fn`` and keeps statistics.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.engine.handover import Outcome
from workers.engine.results import Failure, Portion
from workers.errors import StalePassError, TooManyFailuresError, safe_to_raise
from workers.job.function_use import FunctionUse, Uses
from workers.job.notes import NOTHING, CacheUse, Notes, SampleFailure, without_notes
from workers.report import units
from workers.report.failures import Failures
from workers.report.loop import LoopFigures
from workers.sequence.display import Display, DisplayedFact, count, named
from workers.sequence.grouping import Pieces
from workers.sequence.passes import Pass

from .max_failures import check_failures
from .on_error import OnError
from .tensors import Moved, TensorMaker

if TYPE_CHECKING:
    from .loop import Loop


class Metadata(Display):
    """The statistics of one pass (one run of the loop over an epoch). Source: ``trw.train.sequence_map.Metadata``.

    Attributes:
        nb_batches: number of batches delivered.
        time_to_get_next_batch: seconds that the loop waited for batches.
        time_processing: seconds that computing batches took, summed over all workers.
        time_pinning: seconds that finished batches waited until the loop took them, summed over the batches.
        time_start: ``time.perf_counter()`` when the pass began.
        pin_queue_size: number of outcomes of jobs that were ready when the loop asked for one, summed over requests.
    """

    def __init__(self) -> None:
        self.time_to_get_next_batch = 0.0
        self.nb_batches = 0
        self.time_processing = 0.0
        self.time_pinning = 0.0
        self.time_start = time.perf_counter()
        self.pin_queue_size = 0

    def _shown_facts(self) -> Iterable[DisplayedFact]:
        yield count(self.nb_batches, "batch", "batches")
        yield named("waited", f"{self.time_to_get_next_batch:.3g} s")
        yield named("in jobs", f"{self.time_processing:.3g} s")

    def in_words(self) -> str:
        """Return a summary of the pass, e.g. "200 batches in 4.1 s (48.8 a second); the loop waited 12.0% of it"."""
        seconds = max(time.perf_counter() - self.time_start, 1e-9)
        rate = self.nb_batches / seconds
        batches = f"{self.nb_batches:,} batches in {seconds:.3g} s ({units.rate(rate)} a second)"
        return f"{batches}; the loop waited {self._share_waited():.1%} of it"

    def _share_waited(self) -> float:
        """Return the fraction (0 to 1) of the time since the pass began that the loop has spent waiting for batches."""
        return min(1.0, self.time_to_get_next_batch / max(1e-9, time.perf_counter() - self.time_start))

    def note_job(self, job_ns: int) -> None:
        """Add the duration of one run of a job, in nanoseconds, to ``time_processing``."""
        self.time_processing += job_ns / 1e9


logger = logging.getLogger("workers")


class Consumer:
    """The part of a loop that takes the outcomes of jobs from the workers, and returns their batches one by one."""

    def __init__(self, on_error: OnError, collate_fn: Callable[..., Any] | None, figures: LoopFigures) -> None:
        self.metadata = Metadata()
        self.figures = figures
        self.on_error = on_error
        self._collate_fn = collate_fn
        self._has_warned = False
        self.failures = Failures()
        self.sources: Counter[str] = Counter()  # {name of a source of a mix: samples of it that were delivered}
        self.cached = CacheUse()
        self.functions: Uses = {}
        self._asked_ns = 0  # when next_items was first called for the items still awaited; 0: none are

    def next(self, loop: Loop, this_pass: Pass, timeout_s: float | None = None) -> Any:
        """Return the next batch of ``this_pass``; wait for it at most ``timeout_s`` seconds if that is given.

        Raises:
            StopIteration: the pass is over, or no batch came within ``timeout_s``. StalePassError: a newer pass has
                replaced this one. ClosedError: the sequence is closed. RuntimeError: ``collate_fn`` has asked for
                a batch of its own loop. Any error raised while the batch was computed.
        """
        loop.check(this_pass)
        if this_pass.is_collating:
            raise RuntimeError(
                "collate_fn has asked for a batch of the loop that called it: in collate_fn, loop over another "
                "front-end, such as another sequence.prefetch()"
            )
        metadata, num_ready = self.metadata, len(this_pass.reading.outcomes)
        asked_ns = time.monotonic_ns()
        while not this_pass.ready:
            metadata.pin_queue_size += num_ready
            try:
                outcome = this_pass.outcome(timeout_s)
            except queue.Empty:
                raise StopIteration from None
            if outcome is None:
                if this_pass.has_rest():
                    break
                this_pass.end(loop.sequence)
                self.tell_of_epoch(this_pass.epoch)
                raise StopIteration
            try:
                is_straight = loop.output is None and self._collate_fn is None and loop.current is this_pass
                if is_straight and this_pass.is_plain(outcome):
                    return self._passed_on(this_pass, outcome, asked_ns)
                self._take(loop, this_pass, outcome)
            finally:
                del outcome  # no reference cycle with an error that it may hold
        got_ns = time.monotonic_ns()
        metadata.time_to_get_next_batch += (got_ns - asked_ns) / 1e9
        metadata.nb_batches += 1
        self.figures.note(asked_ns, got_ns, num_ready)
        if loop.output is not None:
            return self._as_tensors(loop, this_pass, loop.output.tensors)
        return this_pass.deliver() if self._collate_fn is None else self._collated(loop, this_pass)

    def _passed_on(self, this_pass: Pass, outcome: Outcome, asked_ns: int) -> Any:
        """Return the batch of an ``outcome`` that :meth:`Pass.is_plain`: the short way of what has no workers."""
        metadata, got_ns = self.metadata, time.monotonic_ns()
        metadata.time_processing += outcome.job_ns / 1e9
        metadata.time_to_get_next_batch += (got_ns - asked_ns) / 1e9
        metadata.nb_batches += 1
        self.figures.note(asked_ns, got_ns, 0)
        return this_pass.pass_on(outcome)

    def _as_tensors(self, loop: Loop, this_pass: Pass, tensors: TensorMaker) -> Any:
        """Return the next batch as tensors, and start moving the batches after it to the device if they are ready."""
        ready = this_pass.ready
        batch, marks = ready[-1]
        if type(batch) is not Moved:
            if self._collate_fn is not None:
                batch = self._collated(loop, this_pass, then=tensors)
            else:
                this_pass.join()
                ready[-1] = tensors(ready[-1][0]), marks
                batch = this_pass.deliver()
        else:
            this_pass.deliver()
        batch.hand_over()
        with loop.lock:
            if loop.current is this_pass and tensors.depth:
                self._move_ahead(loop, this_pass, tensors)
        return batch.batch

    def _move_ahead(self, loop: Loop, this_pass: Pass, tensors: TensorMaker) -> None:
        while len(this_pass.ready) < tensors.depth and (notes := this_pass.take_ahead()) is not None:
            self._count(notes)
        ready = this_pass.ready
        for at in reversed(range(len(ready))):  # the last one is delivered next
            batch, marks = ready[at]
            if type(batch) is Moved:
                continue
            try:
                batch = batch.whole() if type(batch) is Pieces else batch
                collated = batch if self._collate_fn is None else self._collate_fn(batch, source=loop.sequence)
                ready[at] = tensors(collated), marks
            except Exception:  # raised again when the batch is due
                break

    def next_items(self, loop: Loop, this_pass: Pass, timeout_s: float, as_they_come: bool) -> list[Any]:
        """Return the items of the next job in a pass of ``model.fit``: usually one batch, or [] if the job is skipped.
        With ``as_they_come``, return [the next batch] instead, however many jobs it takes.

        A pass of ``model.fit`` does not move the position that ``state_dict()`` saves.

        Raises:
            queue.Empty: nothing came within ``timeout_s``. StopIteration: there are no more jobs. StalePassError: a
                newer pass has replaced this one. Any error of the job.
        """
        loop.check(this_pass)
        metadata, num_ready = self.metadata, len(this_pass.reading.outcomes)
        asked_ns = self._asked_ns = self._asked_ns or time.monotonic_ns()
        is_portion = True
        while (is_portion and not as_they_come) or (as_they_come and not this_pass.ready):
            outcome = this_pass.outcome(timeout_s)
            if outcome is None:
                if as_they_come and this_pass.has_rest():
                    break
                raise StopIteration
            is_portion = type(outcome.value) is Portion
            try:
                self._take(loop, this_pass, outcome)
            finally:
                del outcome  # no reference cycle with an error that it may hold
        self._asked_ns, got_ns = 0, time.monotonic_ns()
        metadata.time_to_get_next_batch += (got_ns - asked_ns) / 1e9
        metadata.nb_batches += 1
        self.figures.note(asked_ns, got_ns, num_ready)
        items: list[Any] = []
        while this_pass.ready and not (as_they_come and items):
            items.append(this_pass.deliver() if self._collate_fn is None else self._collated(loop, this_pass))
        return items

    def tell_of_epoch(self, epoch: int) -> None:
        """Log, at level INFO, the statistics of the pass over ``epoch`` that has just ended."""
        if logger.isEnabledFor(logging.INFO):
            logger.info("epoch %d: %s", epoch, self.metadata.in_words())

    def _take(self, loop: Loop, this_pass: Pass, outcome: Outcome) -> None:
        """Make the batches in ``outcome`` ready for delivery. If its job has failed, first apply ``on_error``."""
        metadata, items = self.metadata, outcome.value
        metadata.time_processing += outcome.job_ns / 1e9
        error: Exception | None = None
        failures: list[SampleFailure] = []
        if type(items) is Failure:
            self.on_error.check(this_pass)
            try:
                items = self.on_error.items(
                    this_pass, outcome, lambda: _check_still(loop, this_pass), metadata.note_job, failures
                )
            except StalePassError:
                raise
            except Exception as raised:
                error, items = raised, None
        elif type(items) is Portion:
            items = items.items
        else:
            metadata.time_pinning += (time.monotonic_ns() - outcome.received_ns) / 1e9
            if len(items) > 1 and not self._has_warned:
                self._has_warned = _warn_of_columns(items)
        if items:
            items, notes = without_notes(items)
            failures += notes.failures
            self._count(notes)
        if failures:
            error = self._note(loop, this_pass, outcome.index, failures) or error
            items = None if error is not None else items
        with loop.lock:
            if loop.current is not this_pass:
                _check_still(loop, this_pass)
            this_pass.take(outcome, items)
        if error is not None:
            try:
                raise error
            finally:
                del error, outcome  # no reference cycle with the error

    def _count(self, notes: Notes) -> None:
        if notes is not NOTHING:
            self.sources.update(notes.sources)
            self.cached = self.cached.plus(notes.cached)
            for name, use in (notes.functions or {}).items():
                self.functions[name] = self.functions.get(name, FunctionUse()).plus(use)

    def _note(self, loop: Loop, this_pass: Pass, index: int, failures: list[SampleFailure]) -> Exception | None:
        """Record the failures of a job. Return the error of the loop if there are more than it allows."""
        lost, limit = self.failures.note(this_pass.epoch, index, failures), loop.options.max_failures
        try:
            if limit is not None:
                check_failures(limit, lost, self.failures, this_pass.epoch, loop.sequence)
        except TooManyFailuresError as error:
            return error
        return None

    def _collated(self, loop: Loop, this_pass: Pass, then: Callable[[Any], Any] | None = None) -> Any:
        """Apply ``collate_fn``, and then the function ``then`` if given, to the next ready batch. Return the result.

        The batch counts as delivered from the start, so a ``state_dict()`` taken within ``collate_fn`` includes it.
        """
        assert self._collate_fn is not None
        ready, position = this_pass.ready, this_pass.position
        batch, marks = ready[-1]
        before, after = position.delivered, position.after(marks)
        position.delivered = after
        this_pass.is_collating = True
        try:
            batch = self._collate_fn(batch.whole() if type(batch) is Pieces else batch, source=loop.sequence)
            this_pass.is_collating = False
            batch = batch if then is None else then(batch)
        except Exception as error:
            this_pass.is_collating = False
            del ready[-1]
            if safe_to_raise(error) is error:
                raise
            raise safe_to_raise(error) from error
        except BaseException:
            this_pass.is_collating = False
            position.delivered = before
            raise
        del ready[-1]  # no call follows in which a Ctrl-C could lose the batch
        return batch


def _check_still(loop: Loop, this_pass: Pass) -> None:
    """Raise StalePassError if ``on_error`` has begun a pass that replaces this one, unless it has closed the loop."""
    if not this_pass.reading.engine.has_ended:
        loop.check(this_pass)


def _warn_of_columns(items: list[Any]) -> bool:
    """Log a warning and return True if ``items``, which are delivered one by one, look like the arrays of one batch."""
    shapes = [np.shape(item) for item in items] if all(hasattr(item, "shape") for item in items[:4]) else []
    if len(shapes) > 4 or len({shape[:1] for shape in shapes}) != 1 or len({len(shape) for shape in shapes}) == 1:
        return False
    logger.warning(
        "function_to_run returned a list of %d arrays, which are delivered one by one, as %d batches. If they are one "
        "batch, return a tuple, or write as_items=False",
        len(items),
        len(items),
    )
    return True
