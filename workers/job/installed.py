"""Tells the user's own modules from those that belong to Python, to an installed package or to this package."""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
from pathlib import Path

_OURS = Path(__file__).resolve().parents[2]  # the folder that contains the packages workers and sampler


@functools.cache
def _folders() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    named = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    own = [str(_OURS / name) for name in ("workers", "sampler")]
    return tuple(f"{folder}/" for folder in (*named, *site.getsitepackages(), site.getusersitepackages(), *own))


def is_installed(name: str | None) -> bool:
    """Return True if the module ``name`` belongs to Python, an installed package or this package, not to the user."""
    if name in (None, "__main__", "__mp_main__"):
        return False
    module = sys.modules.get(name)
    if module is None:  # of a function that was sent to this process, which has not imported its module
        return False
    return _is_in_package(name, getattr(module, "__file__", None))


@functools.lru_cache(maxsize=4096)
def _is_in_package(name: str, file: str | None) -> bool:
    return name in sys.builtin_module_names if file is None else file.startswith(_folders())
