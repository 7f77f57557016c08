"""What the program has set for itself, on its way to the workers: they are forks of a clean server, not of the program.

- The flags of its interpreter, and Keras's backend, a process has from its start on: they belong to the server.
- All else is collected when a pool starts, and each worker of it takes it over: ``warnings.filters``, the levels of
  loggers, the limit of recursion, what numpy does on floating-point errors, and settings of Keras, torch and Pillow
  where the program has loaded them.
"""

from __future__ import annotations

import io
import logging
import pickle
import subprocess
import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

from .replica import Pickler

_KERAS = "floatx", "epsilon", "image_data_format", "dtype_policy"
_PILLOW = {
    "PIL.Image": ("MAX_IMAGE_PIXELS", 1024 * 1024 * 1024 // 4 // 3),
    "PIL.ImageFile": ("LOAD_TRUNCATED_IMAGES", False),
}  # {module: (its setting, as it is from the start)}

#: An attribute that a module has when its import has come to its settings.
_LOADED_WITH = {"keras": "config", "torch": "set_default_dtype"}

#: {module: {setting: value}}, e.g. {"PIL.ImageFile": {"LOAD_TRUNCATED_IMAGES": True}}.
Settings = dict[str, dict[str, Any]]


class Filter(NamedTuple):
    """One of ``warnings.filters``."""

    action: str
    modules: frozenset[str]  # which its pickle names
    pickle: bytes


class Surroundings(NamedTuple):
    """What a worker is to take over."""

    filters: list[Filter]
    settings: Settings
    recursion_limit: int
    levels: dict[str, int]  # of all loggers that have one; "root": of the root
    disabled: int  # the level of logging.disable

    @property
    def modules(self) -> list[str]:
        """What the server is to import for this: Pillow is small, and a job that loads it would use it at once."""
        return [
            name for name, (key, default) in _PILLOW.items() if self.settings.get(name, {key: default})[key] != default
        ]


def flags() -> list[str]:
    """The flags of this interpreter, as arguments for another one."""
    given: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in getattr(sys, "_xoptions", {}).items():  # it knows some of them only
        option = name if value is True else f"{name}={value}"
        if option not in given:
            given += ["-X", option]
    return given


def keras_backend() -> str | None:
    """The backend that the program's Keras has; None: it is not loaded."""
    config = getattr(sys.modules.get("keras"), "config", None)
    return config.backend() if config is not None else None


def collect() -> Surroundings:
    """Runs in: consumer."""
    settings = {
        name: {key: getattr(sys.modules[name], key)} for name, (key, _) in _PILLOW.items() if name in sys.modules
    }
    config = getattr(sys.modules.get("keras"), "config", None)
    if config is not None:
        settings["keras"] = {key: getattr(config, key)() for key in _KERAS}
        settings["keras"]["dtype_policy"] = settings["keras"]["dtype_policy"].name
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.get_default_dtype() != torch.float32:
        settings["torch"] = {"default_dtype": str(torch.get_default_dtype()).partition(".")[2]}
    settings["numpy"] = dict(np.geterr())
    filters = [found for each in warnings.filters if (found := _packed(each)) is not None]
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    levels = {each.name: each.level for each in loggers if isinstance(each, logging.Logger) and each.level}
    return Surroundings(filters, settings, sys.getrecursionlimit(), levels, logging.root.manager.disable)


def _packed(entry: Any) -> Filter | None:
    file = io.BytesIO()
    pickler = Pickler(file, protocol=5)
    try:
        pickler.dump(entry)
    except Exception:  # a category may be a class that refuses; the other filters matter more
        return None
    return Filter(entry[0], frozenset(pickler.modules), file.getvalue())


def before_imports(surroundings: Surroundings) -> None:
    """What holds already while the replica is loaded. Not the filters that make errors: the program may have set these
    after its own imports. Runs in: worker."""
    sys.setrecursionlimit(surroundings.recursion_limit)  # the replica may be that deep
    _set_filters([each for each in surroundings.filters if each.action != "error"])
    _set_levels(surroundings)


def apply(surroundings: Surroundings) -> Settings:
    """Returns: the settings of what is not loaded yet, for :func:`settle`. Runs in: worker, with its replica loaded."""
    _set_filters(surroundings.filters)
    _set_levels(surroundings)
    return settle(surroundings.settings)


def _set_filters(filters: list[Filter]) -> None:
    """Have these in place of all others. What names a module that is not loaded here concerns nothing that is."""
    found = [pickle.loads(each.pickle) for each in filters if each.modules <= sys.modules.keys()]
    warnings.resetwarnings()  # which also has Python forget what it remembers of them
    warnings.filters[:] = found  # type: ignore[index]


def _set_levels(surroundings: Surroundings) -> None:
    logging.disable(surroundings.disabled)
    logging.root.setLevel(surroundings.levels.get("root", logging.NOTSET))
    for name, level in surroundings.levels.items():
        if name != "root":  # which Python 3.10 takes for another one
            logging.getLogger(name).setLevel(level)


def settle(settings: Settings) -> Settings:
    """Set what is loaded. Returns: the rest."""
    left = {}
    for name, values in settings.items():
        module = sys.modules.get(name)
        if module is None or not hasattr(module, _LOADED_WITH.get(name, "__name__")):  # or it is being imported
            left[name] = values
        elif name == "numpy":
            module.seterr(**values)
        elif name == "torch":
            module.set_default_dtype(getattr(module, values["default_dtype"]))
        else:
            for key, value in values.items():
                if name == "keras":
                    getattr(module.config, f"set_{key}")(value)
                else:
                    setattr(module, key, value)
    return left
