"""Support for TensorFlow's random generators, tensors and traced functions. For its draws see ``tensorflow_draws``.

A ``tf.function`` is sent to the workers as the Python function that it was made from, and they trace it again.
TensorFlow itself can pickle a ``tf.function`` only before its first call: from then on it holds graphs and variables
that no other process can use. A method that is a ``tf.function`` (``augmenter.augment``) refers to its object only
weakly, and is sent as the object and the method's name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from . import Kind, Memory, tensorflow_draws

NAME = "tensorflow"
ALIGNMENT = 64  # bytes: if the memory of a tensor is not aligned to this, TensorFlow aborts
_AS_BITS = "bfloat16"  # DLPack does not accept it from numpy
_GENERATORS = "tensorflow.python.ops.stateful_random_ops"
_MODULE = "tensorflow.python.eager.polymorphic_function.polymorphic_function"
_CONCRETE = "tensorflow.python.eager.polymorphic_function.concrete_function"


# -- random generators


def kinds() -> dict[type, Kind]:
    cls = getattr(sys.modules.get(_GENERATORS), "Generator", None)
    # No record: from_seed() sets the start of the counter, and all generators share a key.
    return {} if cls is None else {cls: Kind("tensorflow", _seed_one, _save_one, _state_of, lambda _: None)}


def _seed_one(generator: Any, number: int) -> None:
    state = np.zeros(generator.state.shape[0], np.int64)
    state[-1] = number  # the key; the counter before it starts at 0
    assign(generator.state, state)


def _save_one(generator: Any) -> Callable[[], None]:
    return functools.partial(assign, generator.state, read(generator.state))


def _state_of(generator: Any) -> Any:
    return np.asarray(generator.state).tolist()


def is_plain(variable: Any) -> bool:
    """Return True if ``variable`` is a TensorFlow variable on one device, so that raw operations can access it.
    These take 20 to 50 us each. Methods of the variable take 120 to 200 us each, and a job in the loop's process would
    call three."""
    return type(variable).__name__ == "ResourceVariable"


def read(variable: Any) -> Any:
    """Return the present value of ``variable``. Later assignments to it do not change the returned value."""
    if is_plain(variable):
        return sys.modules["tensorflow"].raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype)
    return np.array(np.asarray(variable))


def assign(variable: Any, state: Any) -> None:
    if is_plain(variable):
        sys.modules["tensorflow"].raw_ops.AssignVariableOp(resource=variable.handle, value=state)
    else:
        variable.assign(state)


def look_after(job: Any) -> None:
    """Make TensorFlow's random operations draw from the current job's stream, which a function of ``job`` returns."""
    tensorflow_draws.install(job.current_stream, job.is_in_worker_process)


def process_generators() -> list[tuple[str, Any]]:
    """Return [(path, generator)] of TensorFlow's global generator and the one for XLA; None if one does not exist yet.
    TensorFlow's public function is not used, as it would create the global generator."""
    return [
        ("tf.random.get_global_generator()", getattr(sys.modules.get(_GENERATORS), "global_generator", None)),
        ("tf.function(jit_compile=True)", tensorflow_draws.generator_for_xla),
    ]


def save() -> list[Callable[[], None]]:
    if not tensorflow_draws.is_ready():
        return []
    return [functools.partial(tensorflow_draws.restore_source, tensorflow_draws.source_of_seeds())]


def seed_of_program() -> Any:
    seed = getattr(sys.modules.get("tensorflow.python.eager.context"), "global_seed", None)
    return None if seed is None else seed()


# -- tensors as arrays, and arrays as tensors


def to_numpy(tensor: Any) -> Any:
    if not (hasattr(tensor, "numpy") and hasattr(tensor, "dtype")):  # not an eager tensor
        return None
    value = tensor.numpy()
    return np.asarray(value, object if isinstance(value, bytes) else None)  # keeps trailing zero bytes, as in a vector


class TensorFlowTensors:
    """A maker of TensorFlow tensors from numpy arrays. It moves them to ``device``, e.g. "/GPU:0", if one is given."""

    def __init__(self, plain: Callable[[Any], Any], device: Any = None) -> None:
        import tensorflow as tf

        self._tf, self._plain, self.device = tf, plain, device
        if device is not None:
            with tf.device(device):
                tf.identity(0)  # raises if there is no such device

    def is_elsewhere(self) -> bool:
        return self.device is not None and "CPU" not in str(self.device).upper()

    def tensor(self, array: Any) -> Any:
        tf, address = self._tf, array.__array_interface__["data"][0]
        if address % ALIGNMENT == 0 and array.flags.c_contiguous and array.flags.writeable:
            with contextlib.suppress(BufferError):
                return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        try:
            return tf.convert_to_tensor(self._plain(array))
        except (TypeError, ValueError):
            return array

    def move(self, tensors: list[Any]) -> tuple[list[Any], Callable[[], None]]:
        with self._tf.device(self.device):
            return [self._tf.identity(each) if self._tf.is_tensor(each) else each for each in tensors], lambda: None


Tensors = TensorFlowTensors


# -- on their way to workers


def reduced(obj: Any, memory: Any) -> Any:
    return _reduced_eager(obj, memory) if type(obj).__name__ == "EagerTensor" else None


def _reduced_eager(tensor: Any, memory: Any) -> Any:
    """Return how a worker rebuilds ``tensor`` over shared memory, as ``__reduce__`` does.
    Return None for a tensor that TensorFlow itself has to pickle, with a copy."""
    if "CPU" not in tensor.device:
        return None
    array = tensor._numpy()
    dtype, name = array.dtype, tensor.dtype.name
    if array.nbytes < memory.least_nbytes or (dtype.kind not in "biufc" and name != _AS_BITS):
        return None
    # The array was created just now, but the tensor stays, so the memory is recognised later by the tensor.
    return _eager, (memory.view(tensor, array), dtype, array.shape, name)


def _eager(memory: Any, dtype: Any, shape: Any, name: str) -> Any:
    tf: Any = importlib.import_module("tensorflow")
    address = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    if address % ALIGNMENT:
        return tf.convert_to_tensor(np.ndarray(shape, dtype, memory), name)
    # TensorFlow does not write to a tensor, but DLPack accepts only writable memory.
    items = np.asarray(Memory(memory, address, len(memory), is_writable=True))
    array = items.view(np.uint16 if name == _AS_BITS else dtype).reshape(shape)
    tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.bitcast(tensor, name) if name == _AS_BITS else tensor


def is_traced(value: Any) -> bool:
    """Return True if ``value`` is a ``tf.function``, a Python function that TensorFlow traces into graphs."""
    cls = getattr(sys.modules.get(_MODULE), "Function", None)
    return cls is not None and isinstance(value, cls)


def is_concrete(value: Any) -> bool:
    """Return True if ``value`` is one graph of a ``tf.function``, as its ``get_concrete_function`` returns it."""
    cls = getattr(sys.modules.get(_CONCRETE), "ConcreteFunction", None)
    return cls is not None and isinstance(value, cls)


def _bound_to(function: Any) -> Any:
    """Return the object that ``function``, a ``tf.function``, is bound to as a method; None if it is not bound."""
    method = getattr(function, "__wrapped__", None)
    return getattr(method.__self__, "target", None) if isinstance(method, types.MethodType) else None


def python_function_of(function: Any) -> Any:
    """Return the Python function that a ``tf.function`` was made from, bound to the same object if there is one."""
    bound_to = _bound_to(function)
    return function.python_function if bound_to is None else types.MethodType(function.__wrapped__.__func__, bound_to)


def reduced_function(function: Any) -> Any:
    """Return how to rebuild a ``tf.function`` in another process, as ``__reduce__`` does; None for other objects.
    Raise a TypeError for a concrete function, which is a single graph and cannot be sent."""
    if is_concrete(function):
        raise TypeError(
            f"the graph {function.name.decode()} cannot leave this process: keep the tf.function itself, which workers "
            "trace anew, and call get_concrete_function() where it is used"
        )
    if not is_traced(function):
        return None
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
    # Created empty first: the function may refer to itself by its own name.
    return _empty, (), (function.python_function, function.name, options), None, None, _fill


def _bound(to: Any, name: str) -> Any:
    function = getattr(to, name)
    function._is_bound_to = to  # keeps the object alive; in the original process, the user's program does
    return function


def _empty() -> Any:
    cls = importlib.import_module(_MODULE).Function
    return cls.__new__(cls)


def _fill(function: Any, state: tuple[Any, str, dict[str, Any]]) -> None:
    python_function, name, options = state
    function.__init__(python_function, name, **options)
