"""Defines the public exceptions of this package.

::

    PrefetchError                    the errors of this package
    +-- ClosedError                  (ValueError)    an object was used after its close()
    +-- NotPicklableError            (TypeError)     the Sequence cannot be sent to worker processes
    +-- StateError                   (ValueError)    a state does not fit, or a source cannot begin again
    +-- CacheError                   (ValueError)    what is to be cached differs from epoch to epoch
    +-- StalePassError               (RuntimeError)  an iterator was read after a newer pass had replaced its own
    +-- PlatformError                (OSError)       this system lacks what the engine needs
    +-- IntegrityError               (RuntimeError)  a worker sent the wrong result: a bug of this package
    +-- WorkerError                  (RuntimeError)  a worker process failed
        +-- WorkerStartError         workers cannot be started, or die before their first job
        +-- WorkerDiedError          one job killed its worker repeatedly
        +-- JobTimeoutError          (TimeoutError)  one job exceeded job_timeout repeatedly
        +-- JobError                 a job raised an exception that cannot be raised unchanged in the consumer
    RemoteTraceback                  the cause of an exception raised by a job: the job's traceback

A wrong argument raises a plain ``ValueError`` or ``TypeError``. An exception raised by a job keeps its type.
"""

from __future__ import annotations

import contextlib
from typing import Any

from .checks import short


class PrefetchError(Exception):
    """The base class of the errors of this package."""


class ClosedError(PrefetchError, ValueError):
    """Raised if a sequence or another object is used after its ``close()``."""


class NotPicklableError(PrefetchError, TypeError):
    """Raised if a Sequence holds something that cannot be sent to a worker process."""


class StateError(PrefetchError, ValueError):
    """Raised if a saved state does not fit the sequence, or a source that has only ``__iter__`` cannot restart."""


class CacheError(PrefetchError, ValueError):
    """Raised if a function before ``.cache()`` draws random numbers, or depends on the epoch. It is never skipped."""


class StalePassError(PrefetchError, RuntimeError):
    """Raised if an iterator is read after a newer loop has begun, the epoch was set, or a state was loaded."""


class PlatformError(PrefetchError, OSError):
    """Raised if this system lacks what workers need, such as shared memory or file descriptors."""


class IntegrityError(PrefetchError, RuntimeError):
    """Raised if a bug of this package made a worker send the wrong result. The loop ends without delivering it."""


class TooManyFailuresError(PrefetchError, RuntimeError):
    """Raised if more samples have failed in an epoch than ``max_failures`` allows. ``failures`` lists them."""

    def __init__(self, text: str, failures: list[Any]) -> None:
        super().__init__(text)
        self.failures = failures

    def __reduce__(self) -> Any:
        return type(self), (*self.args, self.failures)


class WorkerError(PrefetchError, RuntimeError):
    """The base class of errors that report the failure of a worker process."""


class WorkerStartError(WorkerError):
    """Raised if workers cannot be started, or die before their first job (the computation of a batch)."""


class WorkerDiedError(WorkerError):
    """Raised if one job (the computation of a batch) has killed its worker process repeatedly."""


class JobTimeoutError(WorkerError, TimeoutError):
    """Raised if one job (the computation of a batch) took longer than ``job_timeout`` repeatedly."""


class JobError(WorkerError):
    """Raised if a job (the computation of a batch) raised an exception that the loop cannot raise unchanged.
    Examples are ``StopIteration``, and an exception that cannot be rebuilt in the consumer's process."""


class RemoteTraceback(Exception):
    """The ``__cause__`` of an exception that a job has raised in a worker. Its text is the traceback in the worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text.rstrip()}"


def integrity_error(found: str) -> IntegrityError:
    """Return an IntegrityError with the text ``found``, which tells of a mismatch that only a bug here can cause."""
    return IntegrityError(
        f"{found}. This is a bug in prefetch-sequence, not in your program: please report it with this text. No wrong "
        "batch was delivered; a loop over a new front-end can go on from state_dict()"
    )


def safe_to_raise(error: BaseException) -> BaseException:
    """Return ``error``, or a :class:`JobError` if raising ``error`` would silently end the user's loop or program.
    StopIteration, SystemExit and KeyboardInterrupt would do so, for instance."""
    if isinstance(error, Exception) and not isinstance(error, (StopIteration, StopAsyncIteration)):
        return error
    wrapped = JobError(f"the job raised {short(error)}")
    wrapped.__cause__ = error
    return wrapped


def add_note(error: BaseException, note: str) -> None:
    """Add a note to ``error``. This replaces ``error.add_note``, which Python 3.10 lacks."""
    with contextlib.suppress(AttributeError):  # an exception without a __dict__
        error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]
