"""Support for JAX: makes its arrays, and sends them to workers. ``batch.to_numpy`` reads them by ``__array__``.

JAX has no stateful random generators to seed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np


class JaxTensors:
    """A maker of JAX arrays from numpy arrays.
    ``device`` is a name ("cpu"), a device or a sharding; None for JAX's default."""

    def __init__(self, plain: Callable[[Any], Any], device: Any = None) -> None:
        import jax

        self._jax, self._plain = jax, plain
        self.device = jax.devices(device)[0] if isinstance(device, str) else device

    def is_elsewhere(self) -> bool:
        return self.device is not None and self.device != self._jax.devices("cpu")[0]

    def tensor(self, array: Any) -> Any:
        try:
            return self._jax.device_put(self._plain(array), self.device)
        except TypeError:
            return array

    def move(self, tensors: list[Any]) -> tuple[list[Any], Callable[[], None]]:
        return tensors, lambda: None  # tensor() has put them there, and JAX waits for them when it needs them


Tensors = JaxTensors


def reduced(obj: Any, memory: Any) -> Any:
    kind = type(obj)
    if kind.__name__ != "ArrayImpl" or str(kind.__module__).partition(".")[0] != "jaxlib":
        return None
    is_here = obj.is_fully_addressable and {device.platform for device in obj.devices()} == {"cpu"}
    if not is_here or len(obj.devices()) > 1 or obj.weak_type or obj.nbytes < memory.least_nbytes:
        return None
    there = np.asarray(obj)
    if not there.flags.c_contiguous:
        return None
    return _array, (memory.view(obj, there), there.dtype, there.shape)


def _array(memory: Any, dtype: Any, shape: Any) -> Any:
    return importlib.import_module("jax").device_put(np.ndarray(shape, dtype, memory))
