"""The errors of this package, in one tree.

::

    PrefetchError                    the engine's own errors
    +-- ClosedError                  (ValueError)    something was used after its close()
    +-- NotPicklableError            (TypeError)     the Sequence cannot be sent to worker processes
    +-- StateError                   (ValueError)    load_state_dict was given what cannot be gone on with
    +-- StalePassError               (RuntimeError)  an iterator was read on after a newer one had taken its place
    +-- PlatformError                (OSError)       this system lacks what the engine needs
    +-- IntegrityError               (RuntimeError)  a batch is not what was asked for: a bug of this package
    +-- WorkerError                  (RuntimeError)  the world did it
        +-- WorkerStartError         workers die before they can take a job
        +-- WorkerDiedError          one job killed its worker again and again
        +-- JobTimeoutError          (TimeoutError)  one job outlasted job_timeout again and again
        +-- JobError                 a job raised what cannot be raised as it is in the consumer
    RemoteTraceback                  the cause of an exception that was raised in a job: the job's traceback

A wrong argument is a plain ``ValueError`` or ``TypeError``. What a job raises keeps its own type.
"""

from __future__ import annotations

import contextlib

from .checks import short


class PrefetchError(Exception):
    """Base of the engine's own errors."""


class ClosedError(PrefetchError, ValueError):
    """Something was used after its ``close()``."""


class NotPicklableError(PrefetchError, TypeError):
    """The Sequence holds something that cannot be sent to a worker process."""


class StateError(PrefetchError, ValueError):
    """``load_state_dict`` was given a state that this sequence cannot go on with."""


class StalePassError(PrefetchError, RuntimeError):
    """An iterator was read on after a newer pass had begun, the epoch was set, or a state was loaded."""


class PlatformError(PrefetchError, OSError):
    """This system lacks what the engine needs."""


class IntegrityError(PrefetchError, RuntimeError):
    """What has come from a worker is not what was asked for. It was not delivered; the loop ends. A bug of ours."""


class WorkerError(PrefetchError, RuntimeError):
    """A worker process failed."""


class WorkerStartError(WorkerError):
    """Workers die before they can take a job."""


class WorkerDiedError(WorkerError):
    """One job killed its worker again and again."""


class JobTimeoutError(WorkerError, TimeoutError):
    """One job outlasted ``job_timeout`` again and again."""


class JobError(WorkerError):
    """A job raised what cannot be raised as it is in the consumer, such as ``StopIteration``."""


class RemoteTraceback(Exception):
    """Cause of an exception that a job raised; its text is the traceback in the job's process."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text.rstrip()}"


def integrity_error(found: str) -> IntegrityError:
    """The error for ``found``, a mismatch that only a bug of this package can explain."""
    return IntegrityError(
        f"{found}. This is a bug in prefetch-sequence, not in your program: please report it with this text. No wrong "
        "batch was delivered; a loop over a new front-end can go on from state_dict()"
    )


def presentable(error: BaseException) -> BaseException:
    """``error``, or a :class:`JobError` in its place where raising it would end the consumer's loop or program
    without a word (StopIteration, SystemExit, KeyboardInterrupt)."""
    if isinstance(error, Exception) and not isinstance(error, (StopIteration, StopAsyncIteration)):
        return error
    wrapped = JobError(f"the job raised {short(error)}")
    wrapped.__cause__ = error
    return wrapped


def add_note(error: BaseException, note: str) -> None:
    """``error.add_note``, which Python 3.10 does not have."""
    with contextlib.suppress(AttributeError):  # an exception without a __dict__
        error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]
