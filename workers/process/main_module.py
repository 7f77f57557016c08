"""What a script defines, in the ``__main__`` of a worker: pickles that a job reads or writes name it there.

``pickle.load``, ``np.load(allow_pickle=True)``, ``joblib.load`` and the pool of ``multiprocessing`` look classes and
functions up in their module. A worker does not run the script; what of it was sent with the Sequence is put there.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from typing import Any

from workers.job.context import is_in_worker_process

_OF_SCRIPTS = "__main__", "__mp_main__"  # the script, in a program and in a child of multiprocessing


_made: dict[str, types.ModuleType] = {}  # by this module


class Definitions:
    """What was sent by value that a module of the program has under its name."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Any]] = {}  # {module: {name: what it is there}}

    def add(self, obj: Any, name: str) -> None:
        """Note ``obj``, if its module has it as ``name``."""
        module = getattr(obj, "__module__", None)
        if isinstance(module, str) and getattr(sys.modules.get(module), "__dict__", {}).get(name) is obj:
            self._found.setdefault(module, {})[name] = obj

    def reduced(self) -> Any:
        """How a worker comes by them: by references to what was pickled before."""
        return offer, (self._found,)


def offer(found: dict[str, dict[str, Any]]) -> None:
    """Have the modules of this process know these definitions. Runs in: worker; in a program it does nothing."""
    if not is_in_worker_process():
        return
    for name, definitions in found.items():
        if name in _OF_SCRIPTS:
            module = sys.modules["__main__"]
            sys.modules["__mp_main__"] = module
        elif name in sys.modules and sys.modules[name] is _made.get(name):
            module = _made[name]
        elif "." in name or name in sys.modules or _is_importable(name):  # of a package; another one of that name
            continue
        else:
            module = sys.modules[name] = _made[name] = types.ModuleType(name)
        vars(module).update({key: each for key, each in definitions.items() if not key.startswith("__")})


def _is_importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError, AttributeError):
        return False
