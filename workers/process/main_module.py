"""Makes the user's own definitions, such as a script's classes, available in a worker under their module and name.

Jobs may use ``pickle.load``, ``np.load(allow_pickle=True)``, ``joblib.load`` or ``multiprocessing.Pool``, which look up
classes and functions by module and name. A worker does not run the user's script, so this look-up would fail in the
worker's ``__main__``. Therefore the classes and functions that were pickled with the Sequence are added to that module.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from workers.job.context import is_in_worker_process

_OF_SCRIPTS = "__main__", "__mp_main__"  # names of the script's module: in the program; in multiprocessing's children


_made: dict[str, types.ModuleType] = {}  # {name: module that offer() has made}


class Definitions:
    """The classes, functions and other objects of the program's modules that are pickled by value instead of by name.

    A worker adds these objects to its own modules of the same names, so that jobs can also unpickle them by name.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}  # {module: {name: object}}, e.g. {"__main__": {"Config": Config}}

    def add(self, obj: Any, name: str) -> None:
        """Record an object that was pickled by value, if it can also be looked up in its module under ``name``."""
        module = getattr(obj, "__module__", None)
        if isinstance(module, str) and getattr(sys.modules.get(module), "__dict__", {}).get(name) is obj:
            self._found.setdefault(module, {})[name] = obj

    def reduced(self) -> Any:
        """Return what ``__reduce__`` would: when a worker unpickles it, :func:`offer` is called with all definitions.

        Pickle this object last: by then all definitions are recorded, and the pickle does not repeat what it contains.
        """
        return offer, (self._found,)


def offer(found: dict[str, dict[str, Any]]) -> None:
    """Add the definitions of the user's script to this worker's ``__main__``, and all others to newly made modules.

    Skip modules that are inside a package, and modules that the worker has loaded or can import.
    ``found``: the definitions, {module: {name: object}}. Runs in: worker; in any other process it does nothing.
    """
    if not is_in_worker_process():
        return
    for name, definitions in found.items():
        if name in _OF_SCRIPTS:
            module = sys.modules["__main__"]
            sys.modules["__mp_main__"] = module
        elif name in sys.modules and sys.modules[name] is _made.get(name):
            module = _made[name]
        elif "." in name or name in sys.modules or _is_importable(name):  # in a package, or a real module
            continue
        else:
            module = sys.modules[name] = _made[name] = types.ModuleType(name)
        vars(module).update({key: each for key, each in definitions.items() if not key.startswith("__")})


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
