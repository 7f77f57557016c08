"""Applies a loop's policy for jobs that fail: raise the error, skip the batch, or run the job again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from workers.checks import short
from workers.engine.handover import Outcome
from workers.engine.results import Failure
from workers.errors import CacheError, add_note, safe_to_raise
from workers.job.notes import SampleFailure, failure_of
from workers.job.task import SAMPLE
from workers.sequence.passes import Pass
from workers.sequence.sample_errors import OTHERS_HAVE_RAISED, left, others

from .options import Options

logger = logging.getLogger("workers")

_LONGEST_WAIT_S = 60.0  # before a retry


class OnError:
    """A loop's policy for failed jobs: its option ``on_error``. If it is a function, the consumer's thread calls it."""

    def __init__(self, options: Options) -> None:
        self.policy = options.on_error
        self._max_retries = options.max_retries
        self._may_retry, self._retry_wait = options.may_retry, options.retry_wait
        self._deciding_for: Any = None  # the pass whose error the function is deciding on, if any

    def check(self, of: Pass) -> None:
        """Raise RuntimeError if the ``on_error`` function reads ``of``, the pass whose error it is deciding on."""
        if self._deciding_for is of:
            raise RuntimeError("on_error must not ask for batches of its own loop: loop over another front-end there")

    def items(
        self,
        of: Pass,
        outcome: Outcome,
        check: Callable[[], None],
        told: Callable[[int], None],
        failures: list[SampleFailure],
    ) -> list[Any]:
        """Apply the policy to a failed job. Return the items of a successful retry, or those that are not skipped.

        Args:
            of: the pass that the job belongs to.
            outcome: the failure of the job.
            check: raises StalePassError if the user's function has begun another pass, or loaded a state.
            told: called with the duration of each further run of the job, in ns.
            failures: what has failed is added to this list.

        Returns:
            The items, usually one batch; [] if the whole job is skipped.

        Raises:
            The job's error, or an error that the user's function raises.
        """
        index, value, _, _ = outcome
        what, of_sample = "raise", None
        try:
            while True:
                what, of_sample = self._what_of_all(value.error, of, check)
                if what != "retry" or value.runs > self._max_retries:
                    break
                logger.warning("batch %d of epoch %d is tried again", index, of.epoch, exc_info=value.error)
                failures += _failures(value.error, "retried")
                self._wait(value.runs, check)
                _, value, ns, _ = of.reading.repeat(index, value.runs)
                told(ns)
                if type(value) is not Failure:
                    return list(value[of.num_items_taken :])
            if what != "skip":
                raise of_sample or value.error
            failures += _failures(value.error, "skipped")
            items = left(value.error, of.epoch, index)
            text = "samples of batch %d of epoch %d are skipped" if items else "batch %d of epoch %d is skipped"
            logger.error(text, index, of.epoch, exc_info=value.error)
            return items
        except Exception:
            what = "raise"
            raise
        finally:
            if self._may_retry and what in ("skip", "raise") and type(value) is Failure:
                of.reading.forget(index)
            del value, outcome, of_sample  # no reference cycle with the error

    def decide(self, error: BaseException, of: Any) -> str:
        """Return "raise", "skip" or "retry" for the error of a job that ``of``, a reader for Keras, has run itself."""
        return self._what_of(error, of, lambda: None)

    def _wait(self, runs: int, check: Callable[[], None]) -> None:
        """Wait before a job that has run ``runs`` times runs again: twice as long each time."""
        if self._retry_wait:
            time.sleep(min(self._retry_wait * 2 ** (runs - 1), _LONGEST_WAIT_S))
            check()

    def _what_of_all(self, error: BaseException, of: Pass, check: Callable[[], None]) -> tuple[str, BaseException]:
        """Return (the policy's answer for a failed job: "raise", "skip" or "retry"; the error that it answers).

        If several samples of a batch have failed, the answer is "skip" only if the policy says "skip" for every error.
        """
        for each in (error, *others(error)):
            what = self._what_of(each, of, check)
            if what != "skip":
                return what, each
        return "skip", error

    def _what_of(self, error: BaseException, of: Any, check: Callable[[], None]) -> str:
        if self.policy == "redraw":
            if any(OTHERS_HAVE_RAISED in note for note in getattr(error, "__notes__", ())):
                return "raise"
            add_note(error, 'on_error="redraw" takes other samples: give batch_size, or write .batch() after it')
            return "raise"
        if isinstance(error, CacheError):
            return "raise"
        if not callable(self.policy):
            return self.policy
        if self._deciding_for is not None:
            raise RuntimeError("a job of a loop that on_error began has failed as well: catch this error in on_error")
        self._deciding_for = of
        try:
            what = self.policy(error)
        except StopIteration as raised:
            raise safe_to_raise(raised) from raised
        finally:
            self._deciding_for = None
        if what not in ("raise", "skip", "retry"):
            text = f"on_error must return 'raise', 'skip' or 'retry', not {short(what)}"
            raise (TypeError if not isinstance(what, str) else ValueError)(text) from error
        check()
        return what


def _failures(error: BaseException, what: str) -> list[SampleFailure]:
    """Return the record of ``error``, and of the errors of other samples of its batch; ``what`` was done about them."""
    return [failure_of(each, what, vars(each).get(SAMPLE)) for each in (error, *others(error))]
