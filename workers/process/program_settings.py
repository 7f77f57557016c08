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

from workers import frameworks
from workers.frameworks import pillow

from .replica import ReplicaPickler

#: {module: {setting: value}}, e.g. {"PIL.ImageFile": {"LOAD_TRUNCATED_IMAGES": True}}.
Settings = dict[str, dict[str, Any]]


class Filter(NamedTuple):
    """One of ``warnings.filters``."""

    action: str
    modules: frozenset[str]  # which its pickle names
    pickle: bytes


class ProgramSettings(NamedTuple):
    """What a worker is to take over."""

    filters: list[Filter]
    settings: Settings
    recursion_limit: int
    levels: dict[str, int]  # of all loggers that have one; "root": of the root
    disabled: int  # the level of logging.disable

    @property
    def modules(self) -> list[str]:
        """What the server is to import for this."""
        return pillow.that_are_needed(self.settings)


def flags() -> list[str]:
    """The flags of this interpreter, as arguments for another one."""
    given: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in getattr(sys, "_xoptions", {}).items():  # it knows some of them only
        option = name if value is True else f"{name}={value}"
        if option not in given:
            given += ["-X", option]
    return given


def collect() -> ProgramSettings:
    """Runs in: consumer."""
    settings: Settings = {}
    for found in frameworks.asked("settings"):
        settings |= found
    settings["numpy"] = dict(np.geterr())
    filters = [found for each in warnings.filters if (found := _packed(each)) is not None]
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    levels = {each.name: each.level for each in loggers if isinstance(each, logging.Logger) and each.level}
    return ProgramSettings(filters, settings, sys.getrecursionlimit(), levels, logging.root.manager.disable)


def _packed(entry: Any) -> Filter | None:
    file = io.BytesIO()
    pickler = ReplicaPickler(file, protocol=5)
    try:
        pickler.dump(entry)
    except Exception:  # a category may be a class that refuses; the other filters matter more
        return None
    return Filter(entry[0], frozenset(pickler.modules), file.getvalue())


def before_imports(wanted: ProgramSettings) -> None:
    """What holds already while the replica is loaded. Not the filters that make errors: the program may have set these
    after its own imports. Runs in: worker."""
    sys.setrecursionlimit(wanted.recursion_limit)  # the replica may be that deep
    _set_filters([each for each in wanted.filters if each.action != "error"])
    _set_levels(wanted)


def apply(wanted: ProgramSettings) -> Settings:
    """Returns: the settings of what is not loaded yet, for :func:`settle`. Runs in: worker, with its replica loaded."""
    _set_filters(wanted.filters)
    _set_levels(wanted)
    return settle(wanted.settings)


def _set_filters(filters: list[Filter]) -> None:
    """Have these in place of all others. What names a module that is not loaded here concerns nothing that is."""
    found = [pickle.loads(each.pickle) for each in filters if each.modules <= sys.modules.keys()]
    warnings.resetwarnings()  # which also has Python forget what it remembers of them
    warnings.filters[:] = found  # type: ignore[index]


def _set_levels(wanted: ProgramSettings) -> None:
    logging.disable(wanted.disabled)
    logging.root.setLevel(wanted.levels.get("root", logging.NOTSET))
    for name, level in wanted.levels.items():
        if name != "root":  # which Python 3.10 takes for another one
            logging.getLogger(name).setLevel(level)


def settle(settings: Settings) -> Settings:
    """Set what is loaded. Returns: the rest."""
    left = {}
    for name, values in settings.items():
        module = sys.modules.get(name)
        if module is None:
            left[name] = values
        elif name == "numpy":
            module.seterr(**values)
        elif not frameworks.file_with_settings_of(name).apply(name, values):
            left[name] = values
    return left
