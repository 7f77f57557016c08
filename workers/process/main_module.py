"""Puts a script's definitions into the ``__main__`` of a worker, where pickles that a job reads or writes name them.

``pickle.load``, ``np.load(allow_pickle=True)``, ``joblib.load`` and the pool of ``multiprocessing`` look classes and
functions up in their module. A worker does not run the script, so its classes and functions that came with the pickled
Sequence are put there.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from workers.job.context import is_in_worker_process

_OF_SCRIPTS = "__main__", "__mp_main__"  # of the script in a program, and in a child of multiprocessing


_made: dict[str, types.ModuleType] = {}  # {name: module that offer() has made}


class Definitions:
    """The classes, functions and other objects of the program's modules that are pickled by value, not by name.

    A worker puts them into its modules of the same names, where other pickles can find them.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}  # {module: {name: object}}, e.g. {"__main__": {"Config": Config}}

    def add(self, obj: Any, name: str) -> None:
        """Record ``obj``, which was pickled by value, if the module that defines it has it under ``name``."""
        module = getattr(obj, "__module__", None)
        if isinstance(module, str) and getattr(sys.modules.get(module), "__dict__", {}).get(name) is obj:
            self._found.setdefault(module, {})[name] = obj

    def reduced(self) -> Any:
        """Return (:func:`offer`, its arguments), as from ``__reduce__``: unpickling this puts the objects in place.

        Pickle it last, so that it only refers to objects that are in the pickle already.
        """
        return offer, (self._found,)


def offer(found: dict[str, dict[str, Any]]) -> None:
    """Put objects into the modules of this worker, under their names; make a module where none of that name exists.

    ``found``: {module: {name: object}}. Runs in: worker; in any other process it does nothing.
    """
    if not is_in_worker_process():
        return
    for name, definitions in found.items():
        if name in _OF_SCRIPTS:
            module = sys.modules["__main__"]
            sys.modules["__mp_main__"] = module
        elif name in sys.modules and sys.modules[name] is _made.get(name):
            module = _made[name]
        elif "." in name or name in sys.modules or _is_importable(name):  # in a package, or another module of that name
            continue
        else:
            module = sys.modules[name] = _made[name] = types.ModuleType(name)
        vars(module).update({key: each for key, each in definitions.items() if not key.startswith("__")})


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
