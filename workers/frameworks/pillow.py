"""Support for Pillow: passes the program's settings of Pillow on to the workers."""

from __future__ import annotations

import sys
from typing import Any

_SETTINGS = {
    "PIL.Image": ("MAX_IMAGE_PIXELS", 1024 * 1024 * 1024 // 4 // 3),
    "PIL.ImageFile": ("LOAD_TRUNCATED_IMAGES", False),
}  # {module: (setting, default)}


def settings() -> dict[str, dict[str, Any]]:
    return {name: {key: getattr(sys.modules[name], key)} for name, (key, _) in _SETTINGS.items() if name in sys.modules}


def that_are_needed(settings: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of the Pillow modules with non-default ``settings``, which are {module: {setting: value}}.
    A worker imports these modules early, so that the settings can be applied before a job needs them."""
    return [name for name, (key, usual) in _SETTINGS.items() if settings.get(name, {key: usual})[key] != usual]


def apply(module: str, values: dict[str, Any]) -> bool:
    for key, value in values.items():
        setattr(sys.modules[module], key, value)
    return True
