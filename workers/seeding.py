"""What a job may know and draw: its (epoch, index), and random numbers that depend on nothing else.

Batch (seed, epoch, index) must be the same bytes wherever and whenever it is computed. So before a job
runs, every generator it may draw from is set from these three numbers alone:

- ``current_rng()``: a Philox counter generator, key = seed, counter = (epoch, index). Streams of different
  jobs never overlap.
- ``random``, ``numpy.random``, and TensorFlow's and torch's global generators where they are loaded. Within
  an epoch no two jobs share a ``numpy.random`` seed.
- Those that each object of albumentations has: in a job they are the job's.

In a worker process that is all. In the consumer's process (:func:`run_job`) the user's own generators are put back
afterwards, and of TensorFlow's draws only the eager ones are seeded, not those inside a ``tf.function``. Threads
share the global generators, so the ``thread`` executor seeds only ``current_rng()``.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import twister
from .errors import short

MAX_SEED = 2**63 - 1
_MASK = 2**64 - 1

#: The "index" of what runs between two epochs (``on_epoch_end``), of what runs before a whole epoch, and of
#: ``on_epoch_begin``.
EPOCH_END = 2**64 - 1
EPOCH_START = 2**64 - 2
EPOCH_BEGIN = 2**64 - 3


class Job(NamedTuple):
    """What runs now: batch ``index`` of ``epoch``, for the ``attempt``-th time (from 0), on ``worker``.

    ``worker`` is the number of the worker, or None in the consumer's own thread.
    """

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int = 0
    worker: int | None = None


class _Context:
    """The job that a thread (in a worker: the process) is in."""

    job: Job | None = None
    stream: Stream | None = None


class _ThreadContext(_Context, threading.local):
    pass


_consumer = _ThreadContext()
_context: _Context = _consumer


def enter_worker_process() -> None:
    """From here on all threads of this process are in the same job, for a job may use threads of its own."""
    global _context
    _context = _Context()


def current_job() -> Job | None:
    """The job that runs now, or None outside of one."""
    return _context.job


def current_rng() -> np.random.Generator:
    """The random generator of the job that runs now: a function of (seed, epoch, index) alone.

    Outside of a job: a fresh, randomly seeded one, so that an augmenter can be tried by hand.
    """
    stream = _context.stream
    if stream is None:
        return np.random.default_rng()
    return stream.generator()


def draw_seed() -> int:
    """A fresh seed from the system's entropy."""
    return secrets.randbelow(MAX_SEED + 1)


def check_seed(seed: Any) -> int | None:
    """``seed`` as an int, or None."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(type(seed), "__index__"):
        raise TypeError(f"seed must be an integer or None, not {short(seed)} ({type(seed).__name__})")
    if not 0 <= int(seed) <= MAX_SEED:
        raise ValueError(f"seed must be None or 0 to 2**63 - 1, not {short(int(seed))}")
    return int(seed)


def mix(number: int) -> int:
    """A bijection of 64-bit integers that spreads every input bit (the splitmix64 finaliser)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def _mix32(number: int) -> int:
    """A bijection of 32-bit integers (the murmur3 finaliser)."""
    number &= 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ (number >> 16)


class Stream:
    """The random streams of one seed. One object serves one thread, a job at a time."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._place = (0, 0)
        self._epoch_mix = (-1, 0)  # (epoch, what it adds to the global generators' seeds)
        self._generator: np.random.Generator | None = None
        self._stale = False  # the generator still stands at an earlier job
        self._python: random.Random | None = None

    def begin(self, epoch: int, index: int) -> None:
        """Set the job's place. Costs nothing until a generator is asked for."""
        self._place = (index, epoch)
        self._stale = True
        if self._generator is not None:
            # Once used, set for every job: the user's code may have kept the generator from an earlier one.
            self.generator()
        if self._python is not None:
            self._python.seed(self._python_seed())

    def _python_seed(self) -> int:
        index, epoch = self._place
        return mix(index ^ mix(epoch ^ mix(self.seed ^ 0x5A5A5A5A5A5A5A5A)))

    def python(self) -> random.Random:
        """The same for who wants Python's kind of generator."""
        if self._python is None:
            self._python = random.Random(self._python_seed())
        return self._python

    def generator(self) -> np.random.Generator:
        if self._generator is None:
            self._generator = np.random.Generator(np.random.Philox(0))
        if self._stale:
            self._stale = False
            self._generator.bit_generator.state = {
                "bit_generator": "Philox",
                # The low words count the numbers drawn, the high ones are the job.
                "state": {"counter": np.array([0, 0, *self._place], np.uint64), "key": self._key()},
                "buffer": np.zeros(4, np.uint64),
                "buffer_pos": 4,
                "has_uint32": 0,
                "uinteger": 0,
            }
        return self._generator

    def _key(self) -> Any:
        return np.array([mix(self.seed), mix(self.seed ^ 0xA5A5A5A5A5A5A5A5)], np.uint64)

    def seed_globals(self, epoch: int, index: int) -> None:
        """Seed the global generators of this process for a job."""
        known, at = self._epoch_mix
        if known != epoch:
            at = mix(self.seed ^ mix(epoch))
            self._epoch_mix = (epoch, at)
        seed = mix(at ^ index)
        _python_seed(seed)
        _python_random.gauss_next = None
        # A bijection of the index: no two jobs of an epoch draw the same numbers.
        np.random.seed(_mix32(index + at))
        modules = sys.modules
        if "tensorflow" in modules:
            _seed_tensorflow(seed & 0x7FFFFFFF, lazily=_context is _consumer)
        if "torch" in modules:
            with contextlib.suppress(AttributeError):  # half imported: nothing to seed yet
                modules["torch"].manual_seed(seed & MAX_SEED)


# random.seed without its Python-level dispatch on the type of the seed: 5 us instead of 8, for every job.
_python_random: Any = random.seed.__self__  # type: ignore[attr-defined]
_python_seed = super(random.Random, _python_random).seed


class _SeedAtFirstDraw:
    """Stands in for TensorFlow's source of operation seeds until one is asked for.

    ``tf.random.set_seed`` throws away all of TensorFlow's compiled kernels; between two steps of a training loop in
    the same process that costs a hundred times what a batch does. So there it is put off until a job draws.
    """

    def __init__(self, context: Any, seed: int) -> None:
        self._context = context
        self._seed = seed

    def randint(self, low: int, high: int) -> int:
        sys.modules["tensorflow"].random.set_seed(self._seed)  # puts a generator in our place
        drawn: int = self._context._rng.randint(low, high)
        return drawn


def _seed_tensorflow(seed: int, lazily: bool) -> None:
    context = _tensorflow_context() if lazily else None
    if context is not None:
        context._seed, context._rng = seed, _SeedAtFirstDraw(context, seed)
        return
    with contextlib.suppress(AttributeError):  # half imported: nothing to seed yet
        sys.modules["tensorflow"].random.set_seed(seed)


_globals_lock = threading.RLock()
_MAX_WAIT_S = 5.0


class _OfJob:
    """An attribute that holds a generator; in a job it is the job's."""

    def __init__(self, name: str, of: Callable[[Stream], Any]) -> None:
        self._name = name
        self._of = of

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        stream = _context.stream
        if stream is not None:
            return self._of(stream)
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self._name] = value


def _give_to_albumentations() -> None:
    """Its objects have generators of their own, which a copy in each worker would repeat."""
    for module, name in (("core.transforms_interface", "BasicTransform"), ("core.composition", "BaseCompose")):
        of = getattr(sys.modules.get(f"albumentations.{module}"), name, None)
        if of is not None and "py_random" not in of.__dict__:
            of.random_generator = _OfJob("random_generator", Stream.generator)
            of.py_random = _OfJob("py_random", Stream.python)


#: What has generators that are seeded only where it is loaded.
_FRAMEWORKS = "tensorflow", "torch", "albumentations"


def run_seeded(begin: Callable[[], None], function: Callable[[], Any]) -> Any:
    """``function()`` in the job that ``begin()`` begins.

    If one of ``_FRAMEWORKS`` is loaded by it, its draws until then were not seeded: then it is done over.
    """
    while True:
        loaded = [name in sys.modules for name in _FRAMEWORKS]
        begin()
        result = function()
        if loaded == [name in sys.modules for name in _FRAMEWORKS]:
            return result


def run_job(stream: Stream, job: Job, function: Callable[[], Any], seed_globals: bool = True) -> Any:
    """Run a job in the consumer's process, and leave the user's own generators as they were.

    Args:
        seed_globals: False where other threads run jobs at the same time.
    """
    before = _context.job, _context.stream
    # One thread at a time; but a job may wait for threads that want to run jobs too, and these must not wait for ever.
    is_alone = seed_globals and _globals_lock.acquire(timeout=_MAX_WAIT_S)
    saved = None
    try:
        saved = _save_globals() if seed_globals else None
        return run_seeded(lambda: enter_job(stream, job, seed_globals), function)
    finally:
        _context.job, _context.stream = before
        try:
            if saved is not None:
                _restore_globals(saved)
        finally:
            if is_alone:
                _globals_lock.release()


def enter_job(stream: Stream, job: Job, seed_globals: bool = True) -> None:
    """Begin a job. Without more in a worker process, whose generators are nobody else's."""
    _context.job, _context.stream = job, stream
    stream.begin(job.epoch, job.index)
    if "albumentations" in sys.modules:
        _give_to_albumentations()
    if seed_globals:
        stream.seed_globals(job.epoch, job.index)


def leave_job() -> None:
    """The job of :func:`enter_job` is over."""
    _context.job = _context.stream = None


def _save_globals() -> tuple[Any, ...]:
    torch = sys.modules.get("torch")
    torch_state = torch.get_rng_state() if torch is not None and hasattr(torch, "get_rng_state") else None
    return twister.save_python(), twister.save_numpy(), torch_state, _tensorflow_state()


def _restore_globals(saved: tuple[Any, ...]) -> None:
    restore_python, restore_numpy, torch_state, tensorflow_state = saved
    restore_python()
    restore_numpy()
    if torch_state is not None:
        sys.modules["torch"].set_rng_state(torch_state)
    if tensorflow_state is not None:
        context, seed, generator = tensorflow_state
        context._seed = seed
        if generator is not None:
            context._rng = generator
        elif hasattr(context, "_rng"):
            del context._rng


def _tensorflow_state() -> tuple[Any, Any, Any] | None:
    context = _tensorflow_context()
    return None if context is None else (context, context._seed, getattr(context, "_rng", None))


def _tensorflow_context() -> Any:
    """Where TensorFlow keeps its eager seed, for which it has no public way to read it; None: not there."""
    get = getattr(sys.modules.get("tensorflow.python.eager.context"), "context", None)
    if get is None:
        return None
    context = get()
    return context if hasattr(context, "_seed") else None
