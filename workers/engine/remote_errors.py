"""Carries the exceptions of jobs from workers to the consumer, with the job's traceback, and if possible their type.

A StopIteration from a job would end the loop silently, so :func:`workers.errors.safe_to_raise` makes it a JobError.

An exception is pickled as its class defines it, if possible. If its constructor expects arguments other than ``args``,
this fails or changes its text. Then class, ``args`` and attributes are pickled, to rebuild it without the constructor.
"""

from __future__ import annotations

import bdb
import os
import pickle
import traceback
from typing import Any, NamedTuple

from workers.batch.tree import dumps
from workers.errors import JobError, RemoteTraceback, add_note, safe_to_raise

_MAX_TEXT = 1 << 20


class RemoteFailure(NamedTuple):
    """An exception from a job, in the form in which it is sent to the consumer."""

    pickled: bytes | None  # the exception, or its (class, args, attributes); None: neither can be pickled
    name: str  # the name of its class
    message: str
    traceback: str
    pid: int


def exit_code(error: BaseException | None) -> int:
    """Return the exit code that Python would use for a process ended by ``error``, or 0 if ``error`` is None."""
    error = error.__cause__ if isinstance(error, JobError) else error
    code = error.code if isinstance(error, SystemExit) else error is not None
    return int(code) if isinstance(code, int) else int(code is not None)


def pack(error: BaseException) -> RemoteFailure:
    """Add advice to a job's exception, and convert it to the form sent to the consumer. Runs in the worker."""
    explain(error)
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    text = "".join(lines)[-_MAX_TEXT:]
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return RemoteFailure(_pickle(error), name, _text(error)[:_MAX_TEXT], text, os.getpid())


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the user's __str__ failed
        return "(its __str__ failed)"


def _pickle(error: BaseException) -> bytes | None:
    """Return ``error`` pickled as its class defines it; None if it cannot be pickled at all.
    If this fails or changes the error's text, the result is its pickled (class, arguments, attributes) instead."""
    attributes = {k: v for k, v in getattr(error, "__dict__", {}).items() if _survives(v)}
    arguments = tuple(each if _survives(each) else repr(each) for each in error.args)
    for what in (error, (type(error), arguments, attributes)):
        try:
            pickled = dumps(what)
            if _text(rebuild(pickled)) == _text(error):
                return pickled
        except BaseException:  # the class may do anything, even sys.exit()
            continue
    return None


def _survives(value: Any) -> bool:
    try:
        pickle.loads(dumps(value))
    except BaseException:  # a reducer may raise anything, even SystemExit
        return False
    return True


def rebuild(pickled: bytes) -> BaseException:
    """Rebuild an exception from its pickle, :attr:`RemoteFailure.pickled`. The result has no traceback."""
    loaded = pickle.loads(pickled)
    if isinstance(loaded, BaseException):
        return loaded
    of, arguments, attributes = loaded
    error: BaseException = of.__new__(of, *arguments)
    error.args = arguments
    error.__dict__.update(attributes)
    return error


def unpack(failure: RemoteFailure, where: str) -> BaseException:
    """Return the exception to raise in the consumer: the original one, or a JobError if that cannot be rebuilt.
    A note in it says ``where`` it was raised, e.g. "batch 3 of epoch 0". Runs in the consumer."""
    error: BaseException | None = None
    if failure.pickled is not None:
        try:
            error = rebuild(failure.pickled)
        except BaseException:  # only the worker knows its class, or the class calls sys.exit()
            error = None
    if error is None:
        error = JobError(f"{failure.name}: {failure.message}")
    error = safe_to_raise(error)
    error.__cause__ = RemoteTraceback(failure.traceback)
    add_note(error, f"raised in {where}, process {failure.pid}")
    return error


_KINDS = bdb.BdbQuit, EOFError, AttributeError, pickle.PicklingError


def explain(error: BaseException) -> None:
    """Add advice to the text of ``error`` if its cause is known, e.g. ``input()`` in a worker. Runs in the worker."""
    if type(error) not in _KINDS:  # a subclass, such as the user's, may have other arguments
        return
    text = str(error)
    hint = _hint(error, text)
    if hint is not None and hint not in text:
        error.args = (f"{text}. {hint}" if text else hint,)


def _hint(error: BaseException, text: str) -> str | None:
    if isinstance(error, bdb.BdbQuit):
        return (
            "A debugger (breakpoint, pdb) cannot ask for commands in a worker process, which has no standard input: "
            "debug with nb_workers=0"
        )
    if isinstance(error, EOFError) and (text == "EOF when reading a line" or _is_raised_in("getpass", error)):
        return (
            "A worker process has no standard input: read the input before the loop, or use nb_workers=0, also for "
            "debugging"
        )
    if isinstance(error, (AttributeError, pickle.PicklingError)) and "__main__" in text:
        return (
            "Workers do not run the script: their __main__ has only what the sequence refers to. Have the sequence "
            "refer to it (in its class: needs = TheClass, the_function), or define it in a module that the script "
            "imports"
        )
    return None


def _is_raised_in(module: str, error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == module
