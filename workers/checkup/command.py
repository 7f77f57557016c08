"""Run the command ``python -m workers check``: load the source that its arguments name, check it, print the report."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import Any

from .doctor import check


def main(arguments: list[str]) -> int:
    """Run ``python -m workers check`` with command-line ``arguments``.

    Returns:
        The exit code: 0 if the report is ok, 1 if it is not, 2 if the source cannot be loaded or checked.
    """
    options = _parse(arguments)
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        source = _source(options.source)
    except _WrongUsage as error:
        sys.stderr.write(f"python -m workers check: {error}\n")
        return 2
    try:
        return 0 if check(source, options.workers, step_ms=options.step_ms).ok else 1
    except (TypeError, ValueError) as error:  # of check(): such a source cannot be checked
        sys.stderr.write(f"python -m workers check: {options.source}: {error}\n")
        return 2


class _WrongUsage(Exception):
    """Raised if the source cannot be loaded."""


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m workers check",
        description="Computes a few batches here and in workers, and says what would go wrong in a training.",
        epilog="The exit code is 0 if nothing would, 1 if there is an error, and 2 if the source cannot be checked.",
    )
    what = "where the source is: package.module:name; a function without arguments may return it"
    parser.add_argument("source", metavar="MODULE:OBJECT", help=what)
    parser.add_argument("--workers", metavar="N", type=int, default=2, help="the number of workers (default: 2)")
    parser.add_argument("--step-ms", metavar="X", type=float, help="how long a step of the training takes")
    return parser.parse_args(arguments)


def _source(name: str) -> Any:
    """Return the source ``name``, ``module:object``. A function, or a class, is called without arguments."""
    module, colon, path = name.partition(":")
    if not (module and colon and path):
        raise _WrongUsage(f"{name!r} must be MODULE:OBJECT, such as package.module:make_batches")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module's own error
        raise _WrongUsage(f"there is no module {error.name!r} in {os.getcwd()} or on sys.path") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise _WrongUsage(f"{module} has no {path!r}")
        found = getattr(found, part)
    is_source = hasattr(type(found), "__getitem__") or hasattr(type(found), "__iter__")
    return found() if callable(found) and not is_source else found
