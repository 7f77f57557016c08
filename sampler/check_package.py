"""Check that ``workers`` is the package next to this one; if not, raise an ImportError that names the wrong file.

A script's folder comes first on ``sys.path``, so a ``workers.py`` of the user in that folder hides the package.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def _found() -> str | None:
    """Return the file that ``import workers`` loads or has loaded, without importing it; None if there is none."""
    if "workers" in sys.modules:
        return getattr(sys.modules["workers"], "__file__", None)
    spec = importlib.util.find_spec("workers")
    return spec.origin if spec is not None else None


def _check() -> None:
    """Raise ImportError if the module ``workers`` is not the package next to ``sampler``."""
    needed = Path(__file__).resolve().parents[1] / "workers"
    found = _found()
    if found is None or Path(found).resolve().parent == needed:  # if there is no such file, Python raises its own error
        return
    file = Path(found).parent if Path(found).name == "__init__.py" else Path(found)
    raise ImportError(
        f"sampler needs the package workers that came with it, {needed}, but {file} hides it: Python finds that "
        "first. Rename it.",
        name="workers",
        path=found,
    )


_check()
