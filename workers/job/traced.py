"""A ``tf.function`` on its way to the workers: as the Python function that it was made of, which they trace anew.

TensorFlow pickles one that was never called. One that was holds its graphs and variables, which no other process can
use. A bound one (``augmenter.augment``, where the method is a ``tf.function``) holds its object weakly; it goes as the
object and the method's name.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

_MODULE = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
_CONCRETE = "tensorflow.python.eager.polymorphic_function.concrete_function"


def is_traced(value: Any) -> bool:
    """Whether ``value`` is a ``tf.function``."""
    cls = getattr(sys.modules.get(_MODULE), "Function", None)
    return cls is not None and isinstance(value, cls)


def is_concrete(value: Any) -> bool:
    """Whether ``value`` is one of the graphs of a ``tf.function``: what its ``get_concrete_function`` returns."""
    cls = getattr(sys.modules.get(_CONCRETE), "ConcreteFunction", None)
    return cls is not None and isinstance(value, cls)


def _bound_to(function: Any) -> Any:
    """The object that ``function`` is a bound method of, or None."""
    method = getattr(function, "__wrapped__", None)
    return getattr(method.__self__, "target", None) if isinstance(method, types.MethodType) else None


def python_function_of(function: Any) -> Any:
    """What a ``tf.function`` was made of; of a bound one, the bound method."""
    bound_to = _bound_to(function)
    return function.python_function if bound_to is None else types.MethodType(function.__wrapped__.__func__, bound_to)


def reduced(function: Any) -> Any:
    """How to make a ``tf.function`` again in another process, as ``__reduce__`` returns it."""
    bound_to = _bound_to(function)
    if bound_to is not None:
        return _bound, (bound_to, function.__wrapped__.__func__.__name__)
    options = {
        "input_signature": function.input_signature,
        "autograph": function._autograph,
        "jit_compile": function._jit_compile,
        "reduce_retracing": function._reduce_retracing,
        "experimental_attributes": dict(function._attributes),
        "experimental_autograph_options": function._experimental_autograph_options,
    }
    # Empty first: the function may refer to itself, by its own name.
    return _empty, (), (function.python_function, function.name, options), None, None, _fill


def _bound(to: Any, name: str) -> Any:
    function = getattr(to, name)
    function._is_bound_to = to  # where it came from, somebody else holds it
    return function


def _empty() -> Any:
    cls = importlib.import_module(_MODULE).Function
    return cls.__new__(cls)


def _fill(function: Any, state: tuple[Any, str, dict[str, Any]]) -> None:
    python_function, name, options = state
    function.__init__(python_function, name, **options)
