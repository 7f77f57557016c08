"""Makes the user's own definitions, such as a script's classes, available in a worker under their module and name.

Jobs may use ``pickle.load``, ``np.load(allow_pickle=True)``, ``joblib.load`` or ``multiprocessing.Pool``, which look up
classes and functions by module and name. A worker does not run the user's script, so its ``__main__`` would not have
them. Therefore the classes and functions that came with the pickled Sequence are put there.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from workers.job.context import is_in_worker_process

_OF_SCRIPTS = "__main__", "__mp_main__"  # the script's module: in the program, in a child of multiprocessing


_made: dict[str, types.ModuleType] = {}  # {name: module that offer() has made}


class Definitions:
    """The classes, functions and other objects of the program's modules that are pickled by value instead of by name.

    A worker puts them into its modules of the same names, where other pickles can find them.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}  # {module: {name: object}}, e.g. {"__main__": {"Config": Config}}

    def add(self, obj: Any, name: str) -> None:
        """Record ``obj``, which was pickled by value, if its module holds it under ``name``."""
        module = getattr(obj, "__module__", None)
        if isinstance(module, str) and getattr(sys.modules.get(module), "__dict__", {}).get(name) is obj:
            self._found.setdefault(module, {})[name] = obj

    def reduced(self) -> Any:
        """Return (:func:`offer`, its arguments), as from ``__reduce__``: a worker that unpickles this calls ``offer``.

        Pickle this object last. All definitions are recorded by then, and the pickle only refers to them.
        """
        return offer, (self._found,)


def offer(found: dict[str, dict[str, Any]]) -> None:
    """Put the objects of the user's script into the ``__main__`` of this worker; put others into new modules.

    Skip the objects of a module that is in a package, or that the worker has or can import.
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
        elif "." in name or name in sys.modules or _is_importable(name):  # a submodule, or a real module of that name
            continue
        else:
            module = sys.modules[name] = _made[name] = types.ModuleType(name)
        vars(module).update({key: each for key, each in definitions.items() if not key.startswith("__")})


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
