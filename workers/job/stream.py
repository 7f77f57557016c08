"""Makes the random numbers (the stream) of a job, the computation of one batch, from (seed, epoch, index) alone."""

from __future__ import annotations

import functools
import hashlib
import logging
import random
import secrets
import threading
from typing import Any, TypeAlias

import numpy as np

from workers.checks import short
from workers.frameworks import tensorflow_draws

from . import context
from .generators import Generators

Key: TypeAlias = "int | str | tuple[Key, ...]"


def encode(key: Any) -> bytes:
    """Return the ``key`` of ``current_rng(key)`` as bytes: equal for equal keys, different for different ones.

    Raises:
        TypeError: ``key`` is not an integer, a string, or a tuple of these.
    """
    if isinstance(key, str):
        text = key.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    if isinstance(key, tuple):
        return b"(%b)" % b"".join(map(encode, key))
    if isinstance(key, bool) or not hasattr(type(key), "__index__") or (hasattr(key, "shape") and key.shape):
        raise TypeError(
            f"the key of current_rng(key) must be an integer, a string, or a tuple of these, not {short(key)} "
            f"({type(key).__name__}): use what identifies a piece of the job's work, such as the number of a sample"
        )
    return b"i%d;" % int(key.__index__())


def hashed(seed: int, key: bytes) -> tuple[int, int]:
    """Return a 128-bit hash of ``seed`` and ``key``, as two 64-bit integers."""
    digest = hashlib.blake2b(key, digest_size=16, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


logger = logging.getLogger("workers")

MAX_SEED = 2**63 - 1
_MASK = 2**64 - 1
_MASK31 = 2**31 - 1
# One constant for each use of a job's numbers: arbitrary, but distinct.
_OF_FIRST_SEED, _OF_NEXT_SEED, _OF_HELD = 0x3C3C3C3C3C3C3C3C, 0xC3C3C3C3C3C3C3C3, 0x6969696969696969
_OF_SEQUENCES = 0x9696969696969696


def current_rng(key: Key | None = None) -> np.random.Generator:
    """Return the numpy generator of the current job: its numbers depend on (seed, epoch, index) alone.

    A job is the computation of batch ``index``. Outside of a job, return a fresh, randomly seeded generator, so that an
    augmenter can be tried by hand.

    Args:
        key: give one if a job draws in several threads, as their order differs from run to run. It selects a generator
            whose numbers depend on (seed, epoch, index, key), not on the thread. A good key identifies a piece of the
            job's work: ``current_rng(row)``, ``current_rng(("crop", row))``. The first call in a job starts the
            generator; later calls with the same key return it, and its numbers continue. Call this again in each job.

    Raises:
        TypeError: ``key`` is not an integer, a string, or a tuple of these.
        RuntimeError: with ``key``, in a thread started by a job while several jobs run in this process
            (``executor="thread"``), so that its job is unknown.
    """
    encoded = None if key is None else encode(key)
    stream = _stream_of_this_thread("current_rng", key)
    context.ask("current_rng()")
    if stream is None:
        return np.random.default_rng()
    return stream.generator() if encoded is None else stream.keyed_generator(encoded)


def _stream_of_this_thread(name: str, key: Key | None = None) -> Stream | None:
    """Return the random stream of the job that this thread runs, or else of the job that has started this thread.

    Return None if there is no such job, or if it is unknown which one it is. In a thread started by a job, warn if
    ``key`` is None, as the numbers then depend on the order of the threads.

    Args:
        name: the function that was called, for the warning.

    Raises:
        RuntimeError: ``key`` is given, and several jobs may have started this thread.
    """
    stream = context.current.stream
    if stream is not None and stream.thread == threading.get_ident():
        return stream
    streams = context.streams_of_other_threads() if stream is None else [stream]
    if len(streams) > 1 and key is not None:
        raise RuntimeError(
            f"current_rng({short(key)}) was called in a thread that runs no job, while {len(streams)} jobs run in "
            'this process (executor="thread"), so it is unknown which of them has started the thread: call '
            "current_rng(key) in the job's own thread, and pass the generator to the other thread"
        )
    if streams and key is None:
        _warn_of_threads(name, len(streams) == 1)
    return streams[0] if len(streams) == 1 else None


@functools.cache
def _warn_of_threads(name: str, is_known: bool) -> None:
    """Warn that ``name`` was called in a thread started by a job, so that its numbers differ from run to run.
    Warn only once for these arguments. ``is_known`` is True if it is known which job has started the thread."""
    logger.warning(
        "%s() was called in a thread started by a job, so its numbers depend on %s, and differ from run to run. Draw "
        "from current_rng(key) instead, with a key for each piece of work, such as its number",
        name,
        "the order in which threads draw" if is_known else "chance, as several jobs run in this process",
    )


def current_seed() -> np.ndarray[Any, Any]:
    """Return the next seed of the current job (the computation of a batch), for stateless random operations.

    Each call returns a new seed. The n-th seed of a job is a function of (seed, epoch, index, n) alone. Outside of a
    job, the seed is random.

    Returns:
        Two integers, 0 to 2**31 - 1: an array of shape (2,), dtype int32. ``tf.random.stateless_*``,
        ``tf.image.stateless_random_*`` and Keras take it as ``seed``; pass it to a ``tf.function`` as an argument, like
        any tensor. For JAX: ``jax.random.wrap_key_data(current_seed().astype("uint32"))``. For torch:
        ``generator.manual_seed(int(current_seed()[0]))``.
    """
    stream = _stream_of_this_thread("current_seed")
    context.ask("current_seed()")
    seed = (secrets.randbits(31), secrets.randbits(31)) if stream is None else stream.next_seed()
    return np.array(seed, np.int32)


def check_seed(seed: Any) -> int | None:
    """Return ``seed`` as an int, or None if it is None. Raise a TypeError or ValueError if it is not 0 to 2**63 - 1."""
    if seed is None:
        return None
    if isinstance(seed, bool) or not hasattr(type(seed), "__index__"):
        raise TypeError(f"seed must be an integer or None, not {short(seed)} ({type(seed).__name__})")
    if not 0 <= int(seed) <= MAX_SEED:
        raise ValueError(f"seed must be None or 0 to 2**63 - 1, not {short(int(seed))}")
    return int(seed)


def mix(number: int) -> int:
    """Return a 64-bit hash of a 64-bit integer, by splitmix64. No two integers have the same hash."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)


def mix32(number: int) -> int:
    """Return a 32-bit hash of a 32-bit integer, by murmur3's finaliser. No two integers have the same hash."""
    number &= 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ (number >> 16)


class Stream:
    """The random numbers of all jobs with one seed: ``begin`` selects the job, the other methods return its numbers.

    One object serves one thread, and one job at a time.

    Args:
        generators: the random generators that the jobs' source and functions hold; None if these are not to be seeded.
        chain: the sequences whose batches the jobs compute. Those without a seed of their own use this seed.

    Attributes:
        thread: the id of the thread that runs the job.
    """

    def __init__(self, seed: int, generators: Generators | None = None, chain: tuple[Any, ...] = ()) -> None:
        self.seed = seed
        self._chain = chain
        self.generators = generators
        self.tensorflow_seeds: Any = None  # see tensorflow_draws
        self.last_tensorflow_seeds: Any = None
        self.num_repeats: dict[tuple[int, int], int] = {}
        self._num_seeds = 0  # seeds that the job has taken
        self._num_sequences = 0  # sequences without a seed that the job has created
        self._place = (0, 0)  # (index, epoch)
        self._epoch_mix = (-1, 0)  # (epoch, its contribution to the seeds of global generators)
        self._generator: np.random.Generator | None = None
        self._stale = False  # the generator is still set for an earlier job
        self._python: random.Random | None = None
        self._keyed: dict[bytes, np.random.Generator] = {}  # {key: generator} of this job, e.g. {b"i3;": ...}
        self.thread = 0

    def is_of(self, sequence: Any) -> bool:
        """Return True if ``sequence`` is in ``chain``, the sequences whose batches the jobs compute."""
        return any(each is sequence for each in self._chain)

    def begin(self, epoch: int, index: int) -> None:
        """Begin job ``index`` of ``epoch``: from now on, all numbers are those of this job.
        Generators that earlier jobs have used are set for this job now, any other one when it is first used."""
        self._place = (index, epoch)
        self._stale = True
        self._num_seeds = self._num_sequences = 0
        self.thread = threading.get_ident()
        if self._keyed:
            self._keyed = {}
        if self.num_repeats:
            self.num_repeats = {}
        if tensorflow_draws.is_ready():
            self.tensorflow_seeds = self.last_tensorflow_seeds = tensorflow_draws.source_of_seeds()[1]
        if self._generator is not None:
            # Once used, it is set for every job: the user's code may have kept it since an earlier job.
            self.generator()
        if self._python is not None:
            self._python.seed(self._python_seed())

    def _python_seed(self) -> int:
        return self._number(0x5A5A5A5A5A5A5A5A)

    def _number(self, use: int) -> int:
        """Return 64 random bits of the current job. A different constant ``use`` for each purpose gives other bits."""
        index, epoch = self._place
        return mix(index ^ mix(epoch ^ mix(self.seed ^ use)))

    def first_seed(self) -> int:
        """Return a 31-bit seed of the current job, the same at each call."""
        return self._number(_OF_FIRST_SEED) & _MASK31

    def next_seed(self) -> tuple[int, int]:
        """Return a new seed of the current job at each call: two 31-bit integers."""
        number = mix(self._num_seeds ^ self._number(_OF_NEXT_SEED))
        self._num_seeds += 1
        return number & _MASK31, number >> 33

    def states(self) -> list[tuple[str, Any]]:
        """Return [(name, state)] of this stream's own generators, to find out whether the job has drawn from them."""
        generator, draws = self._generator, (self._num_seeds, sum(self.num_repeats.values()))
        if generator is None or self._stale:
            return [("current_rng()", None), ("TensorFlow", draws)]
        state: Any = generator.bit_generator.state
        counter, rest = state["state"]["counter"].tolist(), (state["buffer_pos"], state["has_uint32"])
        return [("current_rng()", (counter, rest)), ("TensorFlow", draws)]

    def seed_of_held(self, name: str) -> int:
        """Return the seed for a sequence of class ``name`` that was given none. It is the same in all jobs.
        Such a sequence was not created by a job: the jobs' source or functions hold it."""
        digest = hashlib.blake2b(repr((self.seed, name)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") & MAX_SEED

    def draw_seed(self) -> int:
        """Return a seed, 0 to 2**63 - 1, for the next sequence that the current job creates: a new one at each call."""
        self._num_sequences += 1
        return mix(self._num_sequences ^ self._number(_OF_SEQUENCES)) & MAX_SEED

    def seed_held_generators(self) -> None:
        """Seed, for the current job, the random generators that the jobs' source and functions hold."""
        if self.generators:
            of_job = self._number(_OF_HELD)
            self.generators.seed(lambda path: mix(path ^ of_job) >> 2)

    def python(self) -> random.Random:
        """Return a ``random.Random`` with the numbers of the current job."""
        if self._python is None:
            self._python = random.Random(self._python_seed())
        return self._python

    def generator(self) -> np.random.Generator:
        if self._generator is None:
            self._generator = np.random.Generator(np.random.Philox(0))
        if self._stale:
            self._stale = False
            self._set(self._generator, mix(self.seed), mix(self.seed ^ 0xA5A5A5A5A5A5A5A5))
        return self._generator

    def keyed_generator(self, key: bytes) -> np.random.Generator:
        """Return the current job's generator for ``key``, encoded as bytes: the same at each call, in any thread."""
        generator = self._keyed.get(key)
        if generator is None:
            generator = np.random.Generator(np.random.Philox(0))
            self._set(generator, *hashed(self.seed, key))
            generator = self._keyed.setdefault(key, generator)
        return generator

    def _set(self, generator: np.random.Generator, *key: int) -> None:
        """Set ``generator`` to the start of the current job's numbers for the Philox ``key``, two 64-bit words."""
        generator.bit_generator.state = {
            "bit_generator": "Philox",
            # The low words count the numbers drawn, the high ones identify the job.
            "state": {"counter": np.array([0, 0, *self._place], np.uint64), "key": np.array(key, np.uint64)},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }

    def seeds_of_globals(self, epoch: int, index: int) -> tuple[int, int]:
        """Return two seeds of global generators for job ``index`` of ``epoch``: 64 bits, and 32 bits for numpy's."""
        known, at = self._epoch_mix
        if known != epoch:
            at = mix(self.seed ^ mix(epoch))
            self._epoch_mix = (epoch, at)
        # Bijections of the index, so no two jobs of an epoch draw the same numbers.
        return mix(at ^ index), mix32(index + at)
