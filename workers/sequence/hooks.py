"""The hooks of an epoch, ``on_epoch_begin`` and ``on_epoch_end``: who defines them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from workers.frameworks import keras

HOOKS = "on_epoch_begin", "on_epoch_end"
_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def is_default(hook: _Hook) -> _Hook:
    """Mark a hook that does nothing, so that it need not be called."""
    hook._is_default = True  # type: ignore[attr-defined]
    return hook


def defines_hooks(source: Any, *names: str) -> bool:
    """Whether the class of ``source`` defines these hooks, or any, itself."""
    source = source.dataset if isinstance(source, keras.Counted) else source
    methods = [getattr(type(source), name, None) for name in names or HOOKS]
    return any(
        method is not None
        and not hasattr(method, "_is_default")
        and method.__module__.partition(".")[0] != keras.PACKAGE  # PyDataset's own
        for method in methods
    )


def has_hooks(sequence: Any, origin: Any, names: tuple[str, ...]) -> bool:
    """Whether these hooks, or any, are called for the epochs of ``sequence``: those of what it begins with."""
    if origin is not sequence and hasattr(type(origin), "_has_hooks"):
        return bool(origin._has_hooks(*names))
    return defines_hooks(origin, *names)
