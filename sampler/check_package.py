"""The package ``workers`` is the one that lies beside this one; else importing ``sampler`` says what is in its place.

A script's folder comes first on ``sys.path``: a ``workers.py`` of the user's there hides the package.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _found() -> str | None:
    """The file that ``import workers`` runs, or has run; a file of the user's is not run for it."""
    if "workers" in sys.modules:
        return getattr(sys.modules["workers"], "__file__", None)
    spec = importlib.util.find_spec("workers")
    return spec.origin if spec is not None else None


def _check() -> None:
    """Raises ImportError: ``workers`` is another module."""
    needed = Path(__file__).resolve().parents[1] / "workers"
    found = _found()
    if found is None or Path(found).resolve().parent == needed:  # where there is none, Python says so
        return
    file = Path(found).parent if Path(found).name == "__init__.py" else Path(found)
    raise ImportError(
        f"sampler needs the package workers that came with it, {needed}, but {file} hides it: Python finds that "
        "first. Rename it.",
        name="workers",
        path=found,
    )


_check()
