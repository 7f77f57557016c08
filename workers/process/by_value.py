"""Modules that a worker cannot import by their name: what they define is sent as it is, like that of ``__main__``.

Such are a script that ``multiprocessing`` has run again in a child, a module that was loaded from a path, and one whose
folder ``sys.path`` does not lead to any more, for instance after ``os.chdir``.
"""

from __future__ import annotations

import functools
import os
import sys
import types
from collections.abc import Iterator

import cloudpickle

from workers.job.installed import is_installed

_ours: set[str] = set()  # that cloudpickle was told of by this module


def look_at(name: str | None) -> None:
    """Have cloudpickle send what module ``name`` defines by value, if it cannot be imported by that name."""
    module = sys.modules.get(name or "__main__")
    file = getattr(module, "__file__", None)
    if name is None or not isinstance(module, types.ModuleType) or not (isinstance(file, str) and file.endswith(".py")):
        return
    if name == "__main__" or is_installed(name):
        return
    if type(module) is not types.ModuleType and not os.path.isfile(file):  # torch.ops is of a "_ops.py"
        return
    is_importable = _leads_to(name, os.path.abspath(file), search_path())
    if not is_importable and name not in cloudpickle.list_registry_pickle_by_value() and module.__name__ == name:
        cloudpickle.register_pickle_by_value(module)
        _ours.add(name)
    elif is_importable and name in _ours:
        cloudpickle.unregister_pickle_by_value(module)
        _ours.discard(name)


def search_path() -> tuple[str, ...]:
    """``sys.path``, with the current folder where it has ``""``, which a server is to see as it is now."""
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        here = ""
    return tuple(entry or here for entry in sys.path)


@functools.lru_cache(maxsize=4096)
def _leads_to(name: str, file: str, path: tuple[str, ...]) -> bool:
    """Whether a new process with this ``sys.path`` that imports ``name`` runs ``file``."""
    if name == "__mp_main__":
        return False
    return any(map(functools.partial(_is_same, file), _files(name)))


def _files(name: str) -> Iterator[str]:
    """Where the module may lie, in the package or module that its first name stands for."""
    first, *rest = name.split(".")
    spec = None
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(first, None) if find is not None else None
        if spec is not None:
            break
    if spec is None:
        return
    if not rest:
        yield spec.origin or ""
    for folder in spec.submodule_search_locations or ():
        place = os.path.join(folder, *rest)
        yield f"{place}.py"
        yield os.path.join(place, "__init__.py")


def _is_same(file: str, other: str) -> bool:
    try:
        return os.path.abspath(other) == file or os.path.samefile(file, other)
    except (OSError, ValueError):
        return False
