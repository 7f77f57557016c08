"""Convert tensors of TensorFlow, torch and JAX to numpy arrays; raise an error for tensors that are not dense."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers import frameworks
from workers.frameworks import NoArrayError

from .forms import is_of_framework

_NO_ARRAYS = frozenset({"SparseTensor", "RaggedTensor", "IndexedSlices", "BCOO", "BCSR", "COO", "CSR"})


def to_numpy(tensor: Any) -> Any:
    """Return a tensor of TensorFlow, torch or JAX as a numpy array, and anything else as it is.

    Raises:
        NoArrayError: the tensor cannot become an array.
    """
    if type(tensor).__name__ in _NO_ARRAYS:
        raise NoArrayError(tensor, "is no plain array: return its parts, or make it dense")
    try:
        found = frameworks.first_answer("to_numpy", tensor)
        if found is None and hasattr(tensor, "__array__") and hasattr(tensor, "shape"):  # e.g. of JAX
            found = np.asarray(tensor)
        return tensor if found is None else found
    except NoArrayError:
        raise
    except Exception as error:
        raise NoArrayError(tensor, f"cannot become a numpy array: {error}") from error


def arrays_of(values: list[Any], what: str) -> list[Any]:
    """Return a list with each of ``values`` as a numpy array, even tensors that ``np.asarray`` does not accept.

    Args:
        what: the name of a value in error messages, e.g. ``sample['x']``.

    Raises:
        TypeError: a tensor cannot become an array.
    """
    kinds: set[Any] = set(map(type, values))
    try:
        if not any(kind.__name__ in _NO_ARRAYS and is_of_framework(kind) for kind in kinds):
            return list(map(np.asarray, values))
    except Exception:  # from numpy, torch or a class of the user
        if not any(map(is_of_framework, kinds)):
            raise
    return [_as_array(value, what) for value in values]


def _as_array(value: Any, what: str) -> Any:
    kind: Any = type(value)
    try:
        return np.asarray(to_numpy(value) if is_of_framework(kind) else value)
    except NoArrayError as error:
        raise TypeError(f"{what} is a {type(error.leaf).__name__}, which {error.reason}") from error.__cause__
