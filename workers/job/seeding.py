"""What a job may know and draw: its (epoch, index), and random numbers that depend on nothing else.

Batch (seed, epoch, index) must be the same bytes wherever and whenever it is computed. So before a job
runs, every generator it may draw from is set from these three numbers alone:

- ``current_rng()``: a Philox counter generator, key = seed, counter = (epoch, index). Streams of different
  jobs never overlap.
- ``current_seed()``: pairs of integers, for operations that keep no state (``tf.random.stateless_uniform``,
  ``jax.random``).
- ``random``, ``numpy.random``, and torch's global generator where it is loaded. Within an epoch no two jobs share a
  ``numpy.random`` seed.
- What TensorFlow draws eagerly: see ``tensorflow_draws``.
- The generators that the Sequence holds: see ``generators``.
- Those that each object of albumentations has: in a job they are the job's.

In a worker process that is all. In the consumer's process (:func:`run_job`) the user's own generators are put back
afterwards. Threads share generators, so the ``thread`` executor seeds only ``current_rng()``, ``current_seed()``,
TensorFlow's eager draws and albumentations.
"""

from __future__ import annotations

import functools
import logging
import random
import secrets
import sys
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workers.checks import short

from . import tensorflow_draws, twister
from .generators import Generators

logger = logging.getLogger("workers")

MAX_SEED = 2**63 - 1
_MASK = 2**64 - 1
_MASK31 = 2**31 - 1
# What the numbers of a job are used for: any that differ.
_OF_FIRST_SEED, _OF_NEXT_SEED, _OF_HELD = 0x3C3C3C3C3C3C3C3C, 0xC3C3C3C3C3C3C3C3, 0x6969696969696969

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


def is_in_worker_process() -> bool:
    """Whether this process computes jobs and does nothing else."""
    return _context is not _consumer


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


def current_seed() -> np.ndarray[Any, Any]:
    """The next seed of the job that runs now, for random operations that keep no state.

    Each call returns another one, and the n-th of a job is a function of (seed, epoch, index, n) alone. Outside of a
    job: a random one.

    Returns:
        Two integers, 0 to 2**31 - 1: an array of shape (2,), dtype int32. That is what ``tf.random.stateless_*``,
        ``tf.image.stateless_random_*`` and Keras take as ``seed``; a ``tf.function`` takes it as an argument like any
        tensor. For JAX: ``jax.random.wrap_key_data(current_seed().astype("uint32"))``. For torch:
        ``generator.manual_seed(int(current_seed()[0]))``.
    """
    stream = _context.stream
    seed = (secrets.randbits(31), secrets.randbits(31)) if stream is None else stream.next_seed()
    return np.array(seed, np.int32)


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
    """The random streams of one seed. One object serves one thread, a job at a time.

    Args:
        held: the generators that what runs in the jobs holds.
    """

    def __init__(self, seed: int, held: Generators | None = None) -> None:
        self.seed = seed
        self.held = held
        self.tensorflow_seeds: Any = None  # see tensorflow_draws
        self.last_tensorflow_seeds: Any = None
        self.num_repeats: dict[tuple[int, int], int] = {}
        self._num_seeds = 0  # how many the job has taken
        self._place = (0, 0)
        self._epoch_mix = (-1, 0)  # (epoch, what it adds to the global generators' seeds)
        self._generator: np.random.Generator | None = None
        self._stale = False  # the generator still stands at an earlier job
        self._python: random.Random | None = None

    def begin(self, epoch: int, index: int) -> None:
        """Set the job's place. Costs nothing until a generator is asked for."""
        self._place = (index, epoch)
        self._stale = True
        self._num_seeds = 0
        if self.num_repeats:
            self.num_repeats = {}
        if tensorflow_draws.is_ready():
            self.tensorflow_seeds = self.last_tensorflow_seeds = tensorflow_draws.source_of_seeds()[1]
        if self._generator is not None:
            # Once used, set for every job: the user's code may have kept the generator from an earlier one.
            self.generator()
        if self._python is not None:
            self._python.seed(self._python_seed())

    def _python_seed(self) -> int:
        return self._number(0x5A5A5A5A5A5A5A5A)

    def _number(self, use: int) -> int:
        """64 bits of the job's, for one use."""
        index, epoch = self._place
        return mix(index ^ mix(epoch ^ mix(self.seed ^ use)))

    def first_seed(self) -> int:
        """31 bits of the job's, always the same."""
        return self._number(_OF_FIRST_SEED) & _MASK31

    def next_seed(self) -> tuple[int, int]:
        """Twice 31 bits of the job's, others at each call."""
        number = mix(self._num_seeds ^ self._number(_OF_NEXT_SEED))
        self._num_seeds += 1
        return number & _MASK31, number >> 33

    def seed_held(self) -> None:
        """Seed the generators that the Sequence holds."""
        if self.held:
            of_job = self._number(_OF_HELD)
            self.held.seed(lambda path: mix(path ^ of_job) >> 2)

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
        for generator in _torch_generators():
            generator.manual_seed(seed & MAX_SEED)


# random.seed without its Python-level dispatch on the type of the seed: 5 us instead of 8, for every job.
_python_random: Any = random.seed.__self__  # type: ignore[attr-defined]
_python_seed = super(random.Random, _python_random).seed


_globals_lock = threading.RLock()
_MAX_WAIT_S = 5.0


class _OfJob:
    """An attribute that holds a generator; in a job it is the job's."""

    of_job = True

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


def run_seeded(stream: Stream, begin: Callable[[], None], function: Callable[[], Any]) -> Any:
    """``function()`` in the job that ``begin()`` begins.

    If it loads one of ``_FRAMEWORKS``, or makes generators that are reached from its Sequence, its draws until then
    were not seeded: then it is done over.
    """
    modules = sys.modules
    while True:
        loaded = tuple(map(modules.__contains__, _FRAMEWORKS))
        begin()
        result = function()
        if tuple(map(modules.__contains__, _FRAMEWORKS)) != loaded:
            are_new = zip(_FRAMEWORKS, loaded, strict=True)
            new = "imported " + ", ".join(name for name, was in are_new if name in modules and not was)
        elif stream.held is not None and stream.held.has_grown():
            new = "made random generators of its own"
        else:
            return result
        logger.info("a job has %s; it is run again, for its draws to be seeded", new)


def run_job(stream: Stream, job: Job, function: Callable[[], Any], seed_globals: bool = True) -> Any:
    """Run a job in the consumer's process, and leave the user's own generators as they were.

    Args:
        seed_globals: False where other threads run jobs at the same time.
    """
    before = _context.job, _context.stream
    # One thread at a time; but a job may wait for threads that want to run jobs too, and these must not wait for ever.
    is_alone = seed_globals and _globals_lock.acquire(timeout=_MAX_WAIT_S)
    restore: list[Callable[[], None]] = []
    try:
        if seed_globals:
            _look_after_frameworks()
            restore = _save_globals()
            if stream.held is not None:
                stream.held.begin(job.epoch)
                restore += stream.held.save()
        return run_seeded(stream, lambda: enter_job(stream, job, seed_globals), function)
    finally:
        _context.job, _context.stream = before
        try:
            for each in restore:
                each()
        finally:
            if is_alone:
                _globals_lock.release()


def enter_job(stream: Stream, job: Job, seed_globals: bool = True) -> None:
    """Begin a job. Without more in a worker process, whose generators are nobody else's."""
    _look_after_frameworks()
    _context.job, _context.stream = job, stream
    stream.begin(job.epoch, job.index)
    if seed_globals:
        if stream.held is not None:
            stream.held.begin(job.epoch)
            stream.seed_held()
        stream.seed_globals(job.epoch, job.index)


def _look_after_frameworks() -> None:
    """Whatever of them has been loaded in the meantime."""
    if "tensorflow" in sys.modules:
        tensorflow_draws.install(_current_stream, is_in_worker_process)
    if "albumentations" in sys.modules:
        _give_to_albumentations()


def leave_job() -> None:
    """The job of :func:`enter_job` is over."""
    _context.job = _context.stream = None


def _current_stream() -> Stream | None:
    return _context.stream


def _save_globals() -> list[Callable[[], None]]:
    """Returns: what restores the generators that are not the job's to change."""
    restore = [twister.save_python(), twister.save_numpy()]
    restore += [functools.partial(each.set_state, each.get_state()) for each in _torch_generators()]
    if tensorflow_draws.is_ready():
        restore.append(functools.partial(tensorflow_draws.restore_source, tensorflow_draws.source_of_seeds()))
    return restore


def _torch_generators() -> list[Any]:
    """Those of the whole process, as far as torch is loaded and its accelerators are in use.

    ``torch.manual_seed`` takes 150 us: where there is no accelerator in use it writes a stack down for later.
    """
    generators = [getattr(sys.modules.get("torch"), "default_generator", None)]
    for name in ("torch.cuda", "torch.xpu"):
        accelerator = sys.modules.get(name)
        if accelerator is not None and getattr(accelerator, "is_initialized", bool)():
            generators += accelerator.default_generators
    return [generator for generator in generators if generator is not None]
