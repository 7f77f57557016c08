"""The random streams of a job: what it draws depends on (seed, epoch, index) alone."""

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
    """``key`` as bytes: equal for equal keys, and others for others.

    Raises:
        TypeError: it is no integer, string, or tuple of these.
    """
    if isinstance(key, str):
        text = key.encode("utf-8", "surrogatepass")
        return b"s%d:%b" % (len(text), text)
    if isinstance(key, tuple):
        return b"(%b)" % b"".join(map(encode, key))
    if isinstance(key, bool) or not hasattr(type(key), "__index__") or (hasattr(key, "shape") and key.shape):
        raise TypeError(
            f"the key of current_rng(key) must be an integer, a string, or a tuple of these, not {short(key)} "
            f"({type(key).__name__}): what tells the pieces of a job's work apart, such as the number of a sample"
        )
    return b"i%d;" % int(key.__index__())


def hashed(seed: int, key: bytes) -> tuple[int, int]:
    """128 bits of a seed and a key."""
    digest = hashlib.blake2b(key, digest_size=16, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")


logger = logging.getLogger("workers")

MAX_SEED = 2**63 - 1
_MASK = 2**64 - 1
_MASK31 = 2**31 - 1
# What the numbers of a job are used for: any that differ.
_OF_FIRST_SEED, _OF_NEXT_SEED, _OF_HELD = 0x3C3C3C3C3C3C3C3C, 0xC3C3C3C3C3C3C3C3, 0x6969696969696969
_OF_SEQUENCES = 0x9696969696969696


def current_rng(key: Key | None = None) -> np.random.Generator:
    """The random generator of the job that runs now: a function of (seed, epoch, index) alone.

    Outside of a job: a fresh, randomly seeded one, so that an augmenter can be tried by hand.

    Args:
        key: for jobs that draw in threads of their own, whose order is another one in each run: a stream of (seed,
            epoch, index, key), the same in whatever thread it is drawn. What numbers the work makes a good key:
            ``current_rng(row)``, ``current_rng(("crop", row))``. The first call in a job begins the stream; others with
            the same key return the same generator, which goes on. Ask for it anew in each job.

    Raises:
        TypeError: ``key`` is no integer, string, or tuple of these.
        RuntimeError: with ``key``, in a thread that a job has started while several jobs run in this process
            (``executor="thread"``), so that it is not known which one it belongs to.
    """
    encoded = None if key is None else encode(key)
    stream = _stream_of_this_thread("current_rng", key)
    if stream is None:
        return np.random.default_rng()
    return stream.generator() if encoded is None else stream.keyed_generator(encoded)


def _stream_of_this_thread(name: str, key: Key | None = None) -> Stream | None:
    """The stream of the job that this thread is in, or that has started it; None: outside of a job."""
    stream = context.current.stream
    if stream is not None and stream.thread == threading.get_ident():
        return stream
    streams = context.streams_of_other_threads() if stream is None else [stream]
    if len(streams) > 1 and key is not None:
        raise RuntimeError(
            f"current_rng({short(key)}) was called in a thread that is in no job, while {len(streams)} jobs run in "
            'this process (executor="thread"), so it is not known which of them has started the thread: call '
            "current_rng(key) in the job's own thread, and hand the generator to the other one"
        )
    if streams and key is None:
        _warn_of_threads(name, len(streams) == 1)
    return streams[0] if len(streams) == 1 else None


@functools.cache
def _warn_of_threads(name: str, is_known: bool) -> None:
    """Once in each process."""
    logger.warning(
        "%s() was called in a thread that a job has started, so its numbers depend on %s: they are other ones in each "
        "run. Draw from current_rng(key), with a key for each piece of work, such as its number",
        name,
        "the order in which threads draw" if is_known else "chance, for several jobs run in this process",
    )


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
    stream = _stream_of_this_thread("current_seed")
    seed = (secrets.randbits(31), secrets.randbits(31)) if stream is None else stream.next_seed()
    return np.array(seed, np.int32)


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


def mix32(number: int) -> int:
    """A bijection of 32-bit integers (the murmur3 finaliser)."""
    number &= 0xFFFFFFFF
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ (number >> 16)


class Stream:
    """The random streams of one seed. One object serves one thread, a job at a time.

    Args:
        generators: those that what runs in the jobs holds.
        chain: the sequences that the jobs are made of. Those that were given no seed draw from this one.

    Attributes:
        thread: in which the job runs.
    """

    def __init__(self, seed: int, generators: Generators | None = None, chain: tuple[Any, ...] = ()) -> None:
        self.seed = seed
        self._chain = chain
        self.generators = generators
        self.tensorflow_seeds: Any = None  # see tensorflow_draws
        self.last_tensorflow_seeds: Any = None
        self.num_repeats: dict[tuple[int, int], int] = {}
        self._num_seeds = 0  # how many the job has taken
        self._num_sequences = 0  # how many it has made that were given no seed
        self._place = (0, 0)
        self._epoch_mix = (-1, 0)  # (epoch, what it adds to the global generators' seeds)
        self._generator: np.random.Generator | None = None
        self._stale = False  # the generator still stands at an earlier job
        self._python: random.Random | None = None
        self._keyed: dict[bytes, np.random.Generator] = {}  # {key: generator}, of this job
        self.thread = 0

    def is_of(self, sequence: Any) -> bool:
        """Whether the jobs are made of ``sequence``, among others."""
        return any(each is sequence for each in self._chain)

    def begin(self, epoch: int, index: int) -> None:
        """Set the job's place. Costs nothing until a generator is asked for."""
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

    def seed_of_held(self, name: str) -> int:
        """The seed, in all jobs, of sequences of this name that what runs in the jobs holds, and that have none."""
        digest = hashlib.blake2b(repr((self.seed, name)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") & MAX_SEED

    def draw_seed(self) -> int:
        """A seed for the next sequence that the job makes."""
        self._num_sequences += 1
        return mix(self._num_sequences ^ self._number(_OF_SEQUENCES)) & MAX_SEED

    def seed_held(self) -> None:
        """Seed the generators that the Sequence holds."""
        if self.generators:
            of_job = self._number(_OF_HELD)
            self.generators.seed(lambda path: mix(path ^ of_job) >> 2)

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
            self._set(self._generator, mix(self.seed), mix(self.seed ^ 0xA5A5A5A5A5A5A5A5))
        return self._generator

    def keyed_generator(self, key: bytes) -> np.random.Generator:
        """That of ``key``; may be called in any thread."""
        generator = self._keyed.get(key)
        if generator is None:
            generator = np.random.Generator(np.random.Philox(0))
            self._set(generator, *hashed(self.seed, key))
            generator = self._keyed.setdefault(key, generator)
        return generator

    def _set(self, generator: np.random.Generator, *key: int) -> None:
        """Have ``generator`` begin the stream of the job that has a key of two words."""
        generator.bit_generator.state = {
            "bit_generator": "Philox",
            # The low words count the numbers drawn, the high ones are the job.
            "state": {"counter": np.array([0, 0, *self._place], np.uint64), "key": np.array(key, np.uint64)},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }

    def seeds_of_globals(self, epoch: int, index: int) -> tuple[int, int]:
        """What to seed the global generators with: (64 bits, 32 bits for numpy)."""
        known, at = self._epoch_mix
        if known != epoch:
            at = mix(self.seed ^ mix(epoch))
            self._epoch_mix = (epoch, at)
        # A bijection of the index: no two jobs of an epoch draw the same numbers.
        return mix(at ^ index), mix32(index + at)
