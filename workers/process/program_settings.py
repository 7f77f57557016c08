"""Passes the program's settings on to the workers, which inherit none: they are forks of a clean server process.

- Interpreter flags and Keras's backend are fixed when a process starts, so the server is started with them.
- All other settings are collected when a pool starts, and applied by each of its workers: ``warnings.filters``, the
  levels of loggers, the recursion limit, numpy's handling of floating-point errors, and settings of Keras, torch and
  Pillow if the program has loaded them.
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
    """One entry of ``warnings.filters``, pickled for the workers."""

    action: str
    modules: frozenset[str]  # the modules that its pickle refers to
    pickle: bytes


class ProgramSettings(NamedTuple):
    """The settings of the program that each worker process adopts, such as warning filters and logger levels."""

    filters: list[Filter]
    settings: Settings  # of numpy, Keras, torch and Pillow
    recursion_limit: int
    levels: dict[str, int]  # {logger: level} for loggers whose level is set, e.g. {"root": 20}
    disabled: int  # the level set by logging.disable()

    @property
    def modules(self) -> list[str]:
        """The modules to import early, so that workers can apply the modules' settings then, e.g. ["PIL.Image"]."""
        return pillow.that_are_needed(self.settings)


def flags() -> list[str]:
    """Return this interpreter's options as command-line arguments for another one, e.g. ["-O", "-X", "utf8"]."""
    given: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    for name, value in getattr(sys, "_xoptions", {}).items():  # the function above returns only some -X options
        option = name if value is True else f"{name}={value}"
        if option not in given:
            given += ["-X", option]
    return given


def collect() -> ProgramSettings:
    """Collect the settings of this program that its workers will adopt. Runs in: consumer."""
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
    except Exception:  # the category may be an unpicklable class; the other filters are still worth sending
        return None
    return Filter(entry[0], frozenset(pickler.modules), file.getvalue())


def before_imports(wanted: ProgramSettings) -> None:
    """Apply the settings that matter while a worker unpickles the sequence, which imports modules. Runs in: worker.

    Warning filters with the action "error" are left out, as they could make an import fail. The program may have set
    them after its own imports.
    """
    sys.setrecursionlimit(wanted.recursion_limit)  # to unpickle a deeply nested sequence
    _set_filters([each for each in wanted.filters if each.action != "error"])
    _set_levels(wanted)


def apply(wanted: ProgramSettings) -> Settings:
    """Apply all settings in a worker that has unpickled the sequence. Runs in: worker.

    Returns:
        The settings of modules that are not imported yet, to be passed to :func:`settle` later.
    """
    _set_filters(wanted.filters)
    _set_levels(wanted)
    return settle(wanted.settings)


def _set_filters(filters: list[Filter]) -> None:
    """Replace all warning filters of this process. Leave out those whose warning class is in an unloaded module."""
    found = [pickle.loads(each.pickle) for each in filters if each.modules <= sys.modules.keys()]
    warnings.resetwarnings()  # also clears Python's cache of filters
    warnings.filters[:] = found  # type: ignore[index]


def _set_levels(wanted: ProgramSettings) -> None:
    logging.disable(wanted.disabled)
    logging.root.setLevel(wanted.levels.get("root", logging.NOTSET))
    for name, level in wanted.levels.items():
        if name != "root":  # set above
            logging.getLogger(name).setLevel(level)


def settle(settings: Settings) -> Settings:
    """Apply the settings of the modules that are already imported. Return the other settings, to be applied later."""
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
