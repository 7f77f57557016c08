"""Sends the errors of samples that a job has skipped or replaced to the consumer, as the last item of the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from . import context

if TYPE_CHECKING:
    from .portions import PortionSender

_MOST_TEXT = 200  # characters of an error


class SampleFailure(NamedTuple):
    """A sample that raised an error: SampleFailure(17, "skipped", "ValueError: truncated image")."""

    sample: int | None  # its index; None if the error is of a whole batch, or the index is unknown
    what: str  # what was done: "skipped", "redrawn" or "retried"
    error: str


class _Failures:
    """The last item of a job in which samples have failed."""

    def __init__(self, failures: list[SampleFailure]) -> None:
        self.failures = failures


def failure_of(error: BaseException, what: str, sample: int | None = None) -> SampleFailure:
    """Return the record of ``error``; ``what``: what was done about it, such as "skipped"."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return SampleFailure(sample, what, text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "...")


def note_failure(failure: SampleFailure) -> None:
    """Record the failure of a sample of the running job; do nothing outside of a job that a loop has asked for."""
    failures = context.current.failures
    if failures is not None:
        failures.append(failure)


def with_failures(
    run: Callable[..., list[Any]], index: int, payload: tuple[Any] | None, portions: PortionSender
) -> list[Any]:
    """Return ``run(index, payload)``, the items of a job but for those that were sent as ``portions``.
    If samples have failed, one more item tells of them."""
    failures: list[SampleFailure] = []
    current = context.current
    current.failures, current.portions = failures, portions
    try:
        items = run(index, payload)
    finally:
        current.failures = current.portions = None
    return [*items, _Failures(failures)] if failures else items


def without_failures(items: list[Any]) -> tuple[list[Any], list[SampleFailure]]:
    """Return (the items of a job, the failures of its samples); see :func:`with_failures`."""
    if items and type(items[-1]) is _Failures:
        return items[:-1], items[-1].failures
    return items, []
