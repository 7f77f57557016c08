"""Makes TensorFlow draw different random numbers in each job (computation of a batch), reproducibly where possible.

TensorFlow seeds an operation when its kernel is created. Calling ``tf.random.set_seed`` before each job would therefore
discard all kernels. Every traced function would be rebuilt (a third of a second for SimCLR's augmenter) and repeat the
numbers that it drew before, and every eager draw would create a kernel (1 ms, and 36 KB that are never freed). So no
seed is set, and no kernel is created:

- An eager draw in a job is computed by the stateless operation of the same distribution, with the job's next seed
  (``Stream.next_seed``). ``tf.random.set_seed`` in a job, and ``seed=`` of an operation, keep their meaning: within the
  job, equal seeds draw equal sequences.
- A draw in a traced function keeps its kernel. The kernel's state continues from job to job, so the numbers differ from
  run to run. Without a seed, system entropy seeds the kernel. A given seed is combined with a random number of the
  worker, so workers draw different numbers, and within each of them equal seeds still draw equal sequences.
- XLA (``jit_compile=True``) has no kernels: each process would start with the same numbers, whatever the seed. So these
  draws come from a ``tf.random.Generator`` that is set for each job.

Drawing from such a generator in all traced functions was tried, too. SimCLR's augmenter took 1.2 to 1.4 times as long
(a lock and two more operations for each of 42 draws an image). It was still not reproducible, as its loop processes
images in parallel.

Outside of jobs nothing changes. Runs in: consumer, worker.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import secrets
import sys
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

logger = logging.getLogger("workers")

_PYTHON = "tensorflow.python."
_MAX = 2**31 - 1


class _Stream(Protocol):
    """The attributes of a job's :class:`workers.job.seeding.Stream` (its random numbers) that are used here."""

    tensorflow_seeds: Any  # TensorFlow's source of seeds when the job began; replaced if the job sets a seed
    last_tensorflow_seeds: Any  # the same at the job's last draw
    num_repeats: dict[tuple[int, int], int]  # {(seed, seed2): draws with them since the job last set a seed}

    def first_seed(self) -> int: ...
    def next_seed(self) -> tuple[int, int]: ...


class _Modules:
    """The internal modules of TensorFlow that are used here. TensorFlow itself has loaded all of them."""

    def __init__(self) -> None:
        self.context = sys.modules[_PYTHON + "eager.context"]
        self.framework_ops = sys.modules[_PYTHON + "framework.ops"]
        self.random_seed: Any = sys.modules[_PYTHON + "framework.random_seed"]
        self.random = sys.modules[_PYTHON + "ops.gen_random_ops"]
        self.image = sys.modules[_PYTHON + "ops.gen_image_ops"]
        self.stateless = sys.modules[_PYTHON + "ops.gen_stateless_random_ops"]
        self.stateful = sys.modules[_PYTHON + "ops.gen_stateful_random_ops"]
        self.generator = sys.modules[_PYTHON + "ops.stateful_random_ops"]
        self.array = sys.modules[_PYTHON + "ops.array_ops"]
        self.constant = sys.modules[_PYTHON + "framework.constant_op"].constant
        self.control_flow = sys.modules[_PYTHON + "ops.control_flow_util"]


def _no_stream() -> _Stream | None:
    return None


_modules: _Modules | None = None
_current = _no_stream  # returns the stream of this thread's job
_is_worker: Callable[[], bool] = bool
_of_worker = 0  # this worker's own number, combined with the seeds of traced functions
generator_for_xla: Any = None  # a tf.random.Generator, made when a function that XLA compiles first draws


def is_ready() -> bool:
    """Return True if TensorFlow is completely loaded, and :func:`install` has replaced its random operations."""
    return _modules is not None


def install(current: Callable[[], _Stream | None], is_worker: Callable[[], bool]) -> None:
    """Make TensorFlow's random operations draw from the current job, if there is one. Do nothing before it is loaded.

    Args:
        current: returns the stream (random numbers) of this thread's job; None outside of a job.
        is_worker: returns True in a worker process.
    """
    global _modules, _current, _is_worker
    if _modules is not None or not hasattr(sys.modules.get("tensorflow"), "function"):
        return
    modules = _Modules()
    _current, _is_worker = current, is_worker
    _draw_of_worker()
    if hasattr(os, "register_at_fork"):  # the server may have run a job while it imported a module
        os.register_at_fork(after_in_child=_draw_of_worker)
    _modules = modules
    original_get_seed = modules.random_seed.get_seed
    modules.random_seed.get_seed = functools.wraps(original_get_seed)(functools.partial(_get_seed, original_get_seed))
    for name, compute in _STATELESS.items():
        _replace(modules.random, name, compute)
    _replace(modules.image, "sample_distorted_bounding_box_v2", _distorted_box)


def _draw_of_worker() -> None:
    global _of_worker
    _of_worker = 1 + secrets.randbelow(_MAX)


def source_of_seeds() -> tuple[int | None, Any]:
    """Return TensorFlow's global seed, and the object that supplies the seeds of eager operations. Both may be None."""
    assert _modules is not None
    context = _modules.context.context()
    return context._seed, getattr(context, "_rng", None)


def restore_source(saved: tuple[int | None, Any]) -> None:
    """Undo a ``tf.random.set_seed`` that a job has called since :func:`source_of_seeds` returned ``saved``."""
    assert _modules is not None
    if saved[1] is source_of_seeds()[1]:
        return
    context = _modules.context.context()
    context._seed = saved[0]
    if saved[1] is not None:
        context._rng = saved[1]
    elif hasattr(context, "_rng"):
        del context._rng


def _get_seed(original: Callable[[int | None], Any], op_seed: int | None) -> Any:
    """Return the two seeds of a random operation that was called with ``seed=op_seed``.
    This replaces TensorFlow's ``random_seed.get_seed``, here ``original``, which all its random operations call."""
    assert _modules is not None
    stream = _current()
    if _modules.context.executing_eagerly():
        if stream is None or stream.tensorflow_seeds is not source_of_seeds()[1]:
            return original(op_seed)
        if op_seed is None:
            return stream.next_seed()
        return stream.first_seed(), op_seed % _MAX
    if (stream is not None or _is_worker()) and not _is_for_xla():
        _tell(_modules.framework_ops.get_default_graph())
    seeds = original(op_seed)
    return (seeds[0] ^ _of_worker, seeds[1]) if _is_worker() and seeds[0] is not None else seeds


@functools.cache
def _tell_once() -> None:
    """Do nothing but fill the cache of this function. If it is filled, ``_tell`` has already logged its warning."""


def _tell(graph: Any) -> None:
    if _tell_once.cache_info().currsize:
        return
    _tell_once()
    while getattr(graph, "outer_graph", None) is not None and hasattr(graph.outer_graph, "outer_graph"):
        graph = graph.outer_graph  # from a branch or loop to the function around it
    logger.warning(
        "The tf.function %s draws random numbers by stateful operations (such as tf.random.uniform or "
        "tf.image.random_flip_left_right). They differ from batch to batch, but also from run to run, and with the "
        "number of workers. To make them reproducible, pass workers.current_seed() to it as an argument, and use "
        "tf.random.stateless_* and tf.image.stateless_random_*.",
        getattr(graph, "name", "?"),
    )


# -- the stateless operations: they take a seed, and the arguments of the stateful ones without seed, seed2 and name


def _uniform(seed: Any, shape: Any, dtype: Any) -> Any:
    return _stateless().stateless_random_uniform(shape, seed, dtype)


def _uniform_int(seed: Any, shape: Any, minval: Any, maxval: Any) -> Any:
    return _stateless().stateless_random_uniform_int(shape, seed, minval, maxval)


def _normal(seed: Any, shape: Any, dtype: Any) -> Any:
    return _stateless().stateless_random_normal(shape, seed, dtype)


def _truncated_normal(seed: Any, shape: Any, dtype: Any) -> Any:
    return _stateless().stateless_truncated_normal(shape, seed, dtype)


def _multinomial(seed: Any, logits: Any, num_samples: Any, output_dtype: Any) -> Any:
    return _stateless().stateless_multinomial(logits, num_samples, seed, output_dtype)


def _gamma(seed: Any, shape: Any, alpha: Any) -> Any:
    return _stateless().stateless_random_gamma_v2(_outer(shape, alpha), seed, alpha)


def _poisson(seed: Any, shape: Any, rate: Any, dtype: Any) -> Any:
    return _stateless().stateless_random_poisson(_outer(shape, rate), seed, rate, dtype)


def _shuffle(seed: Any, value: Any) -> Any:
    assert _modules is not None
    order = np.random.Generator(np.random.Philox(key=seed.numpy().astype(np.uint64))).permutation(np.shape(value)[0])
    return _modules.array.gather(value, order)


def _distorted_box(seed: Any, image_size: Any, bounding_boxes: Any, min_object_covered: Any, **options: Any) -> Any:
    assert _modules is not None
    return _modules.image.stateless_sample_distorted_bounding_box(
        image_size, bounding_boxes, min_object_covered, seed, **options
    )


def _is_for_xla() -> bool:
    """Return True if TensorFlow is now tracing a function that XLA will compile."""
    assert _modules is not None
    return bool(_modules.control_flow.GraphOrParentsInXlaContext(_modules.framework_ops.get_default_graph()))


def _next_eager_seed(stream: _Stream, seeds: tuple[int, int]) -> Any:
    """Return the seed, as a tensor, for the next eager draw of an operation that was given ``seeds``.
    Each draw gets a new seed, just as each draw advances the state of TensorFlow's own operation."""
    assert _modules is not None
    if seeds == (0, 0):  # for TensorFlow, this means any seed
        seeds = stream.next_seed()
    source = source_of_seeds()[1]
    if source is not stream.last_tensorflow_seeds:  # tf.random.set_seed restarts all sequences
        stream.last_tensorflow_seeds = source
        stream.num_repeats = {}
    num_before = stream.num_repeats.get(seeds, 0)
    stream.num_repeats[seeds] = num_before + 1
    # A list of small integers becomes a tensor in half the time that an array takes.
    return _modules.constant([(seeds[0] + num_before * 0x9E3779B1) & _MAX, seeds[1]])


def _generator_for_xla() -> Any:
    global generator_for_xla
    assert _modules is not None
    if generator_for_xla is None:
        with _modules.framework_ops.init_scope():
            generator_for_xla = _modules.generator.Generator.from_seed(0, alg="philox")
    return generator_for_xla


def _stateless() -> Any:
    assert _modules is not None
    return _modules.stateless


def _outer(shape: Any, parameter: Any) -> Any:
    """Return the shape of an array that has ``shape`` numbers for each element of ``parameter``."""
    return np.concatenate([np.asarray(shape, np.int32).reshape(-1), np.asarray(np.shape(parameter), np.int32)])


_STATELESS: dict[str, Callable[..., Any]] = {
    "random_uniform": _uniform,
    "random_uniform_int": _uniform_int,
    "random_standard_normal": _normal,
    "truncated_normal": _truncated_normal,
    "multinomial": _multinomial,
    "random_gamma": _gamma,
    "random_poisson_v2": _poisson,
    "random_shuffle": _shuffle,
}


_WITHIN_XLA: dict[str, Callable[..., Any]] = {
    "random_uniform": lambda shape, dtype: _generator_for_xla().uniform(shape, dtype=dtype),
    "random_uniform_int": lambda shape, minval, maxval: _generator_for_xla().uniform(
        shape, minval, maxval, minval.dtype
    ),
    "random_standard_normal": lambda shape, dtype: _generator_for_xla().normal(shape, dtype=dtype),
    "truncated_normal": lambda shape, dtype: _generator_for_xla().truncated_normal(shape, dtype=dtype),
}


def _replace(module: Any, name: str, compute: Callable[..., Any]) -> None:
    """Replace the operation ``name`` of ``module`` by one that chooses how to draw.
    In a job, it calls ``compute`` for an eager draw, and a function in ``_WITHIN_XLA`` for one that XLA compiles. For
    all other draws it calls the original."""
    original = getattr(module, name)
    signature = inspect.signature(original)

    @functools.wraps(original)
    def operation(*args: Any, **kwargs: Any) -> Any:
        stream = _current()
        assert _modules is not None
        is_eager = _modules.context.executing_eagerly()
        if is_eager and stream is None:
            return original(*args, **kwargs)
        if not is_eager and not (name in _WITHIN_XLA and (stream is not None or _is_worker()) and _is_for_xla()):
            return original(*args, **kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        del arguments["name"]
        seeds = arguments.pop("seed") or 0, arguments.pop("seed2") or 0
        if stream is None or not is_eager:
            return _WITHIN_XLA[name](**arguments)
        return compute(_next_eager_seed(stream, seeds), **arguments)

    setattr(module, name, operation)
