"""Errors of a job that are due to its being in a worker: what to do about them, in their own text."""

from __future__ import annotations

import bdb
import pickle

_KINDS = bdb.BdbQuit, EOFError, AttributeError, pickle.PicklingError


def explain(error: BaseException) -> None:
    """Add to the text of ``error`` what to do about it, if that is known. Runs in: worker."""
    if type(error) not in _KINDS:  # a class of the user's may have other arguments
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
            "A worker process has no standard input: ask for it before the loop, or use nb_workers=0, also for "
            "debugging"
        )
    if isinstance(error, (AttributeError, pickle.PicklingError)) and "__main__" in text:
        return (
            "Workers do not run the script: their __main__ has what the sequence was sent with. Have the sequence "
            "refer to it (in its class: needs = TheClass, the_function), or define it in a module of its own, a file "
            "that the script imports"
        )
    return None


def _is_raised_in(module: str, error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__") == module
