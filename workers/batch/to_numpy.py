"""Tensors of TensorFlow, torch and JAX as numpy arrays. Those that are no plain arrays (sparse, nested) raise."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .forms import is_of_framework

_NO_ARRAYS = frozenset({"SparseTensor", "RaggedTensor", "IndexedSlices", "BCOO", "BCSR", "COO", "CSR"})


class NoArrayError(Exception):
    """A leaf is a tensor that cannot become an array."""

    def __init__(self, leaf: Any, reason: str) -> None:
        super().__init__(leaf, reason)
        self.leaf, self.reason = leaf, reason


def to_numpy(tensor: Any) -> Any:
    """``tensor`` of TensorFlow, torch or JAX as a numpy array; anything else as it is."""
    if type(tensor).__name__ in _NO_ARRAYS:
        raise NoArrayError(tensor, "is no plain array: return its parts, or make it dense")
    try:
        if hasattr(tensor, "detach"):
            return _of_torch(tensor)
        if hasattr(tensor, "numpy") and hasattr(tensor, "dtype"):  # TensorFlow, eager
            value = tensor.numpy()
            return np.asarray(value, object if isinstance(value, bytes) else None)  # no bytes cut short, as in a vector
        if hasattr(tensor, "__array__") and hasattr(tensor, "shape"):  # JAX
            return np.asarray(tensor)
    except NoArrayError:
        raise
    except Exception as error:
        raise NoArrayError(tensor, f"does not become a numpy array: {error}") from error
    return tensor


def _of_torch(tensor: Any) -> Any:
    torch = sys.modules["torch"]
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else "sparse"
        raise NoArrayError(tensor, f"is {kind}: return its parts, or make it dense")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = str(tensor.dtype).partition(".")[2]
    if name != "bfloat16" and not name.startswith("float8"):
        return np.asarray(tensor)
    try:
        import ml_dtypes
    except ImportError as error:
        raise NoArrayError(tensor, f"is of {name}, which numpy knows with ml_dtypes: pip install ml_dtypes") from error
    bits = torch.uint16 if tensor.itemsize == 2 else torch.uint8
    return np.asarray(tensor.view(bits)).view(getattr(ml_dtypes, name))


def arrays_of(values: list[Any], what: str) -> list[Any]:
    """``np.asarray`` of each of ``values``, also of tensors that numpy does not take as they are.

    Raises:
        TypeError: a tensor cannot become an array; says that ``what`` is one.
    """
    kinds: set[Any] = set(map(type, values))
    try:
        if not any(kind.__name__ in _NO_ARRAYS and is_of_framework(kind) for kind in kinds):
            return list(map(np.asarray, values))
    except Exception:  # numpy's, torch's or that of a class of the user
        if not any(map(is_of_framework, kinds)):
            raise
    return [_as_array(value, what) for value in values]


def _as_array(value: Any, what: str) -> Any:
    kind: Any = type(value)
    try:
        return np.asarray(to_numpy(value) if is_of_framework(kind) else value)
    except NoArrayError as error:
        raise TypeError(f"{what} is a {type(error.leaf).__name__}, which {error.reason}") from error.__cause__
