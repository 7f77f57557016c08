"""Seeds all generators that a job may draw from, so that the job's random numbers are the same in any process and run.

Batch (seed, epoch, index) must have the same bytes wherever and whenever it is computed. So before a job (the
computation of a batch) runs, every generator that it may draw from is set by these three numbers alone:

- ``current_rng()``: a Philox counter generator, key = seed, counter = (epoch, index). Streams of different jobs never
  overlap. ``current_rng(key)`` is the same, but its Philox key is a hash of (seed, key).
- ``current_seed()``: pairs of integers for stateless operations (``tf.random.stateless_uniform``, ``jax.random``).
- ``random``, ``numpy.random``, and torch's global generator if torch is loaded. Within an epoch no two jobs share a
  ``numpy.random`` seed.
- TensorFlow's eager draws: see ``tensorflow_draws``.
- The generators that the Sequence holds: see ``generators``.
- The generators of albumentations objects: during a job, the job's generators take their place.

A source that is read item by item in the consumer's process is seeded once for each epoch: see :class:`SourceReading`.

In the consumer's process, unlike in a worker, :func:`run_job` also restores the user's own generators after the job.
Threads share most generators, so the ``thread`` executor seeds only ``current_rng()``, ``current_seed()``, TensorFlow's
eager draws and albumentations.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import random
import sys
from collections.abc import Callable
from typing import Any

from workers import frameworks
from workers.frameworks import THAT_DRAW

from . import context, process_generators
from .alone import run_alone
from .context import (
    EPOCH_BEGIN,
    EPOCH_END,
    EPOCH_START,
    Job,
    current_job,
    current_stream,
    enter_worker_process,
    is_in_worker_process,
)
from .generators import Generators
from .stream import MAX_SEED, Stream, check_seed, current_rng, current_seed, mix

__all__ = [
    "EPOCH_BEGIN",
    "EPOCH_END",
    "EPOCH_START",
    "MAX_SEED",
    "Job",
    "RunAgain",
    "SourceReading",
    "Stream",
    "check_seed",
    "current_job",
    "current_rng",
    "current_seed",
    "current_stream",
    "draw_seed",
    "enter_job",
    "enter_worker_process",
    "is_in_worker_process",
    "leave_job",
    "loaded_frameworks",
    "run_job",
    "run_seeded",
    "unseeded",
]

logger = logging.getLogger("workers")

_MOST_RUNS = 5  # of a job that has drawn numbers that were not seeded
_OF_ALWAYS = (
    "a job has %s each time it ran, %d times, so some of its draws are not seeded. Make generators in __init__ of the "
    "class, or draw from current_rng()"
)
_numbers = itertools.count()  # counts the seeds drawn so far, so that no two are the same
_OF_READING = 0x0F0F0F0F0F0F0F0F  # separates the draws of a source that is read here from those of the jobs


def run_seeded(stream: Stream, begin: Callable[[], None], function: Callable[[], Any]) -> Any:
    """Call ``begin()``, which begins a job and seeds its generators. Then return ``function()``, the job's result.

    Both are called again if ``function`` has imported a framework that draws random numbers (``THAT_DRAW``), or has
    created generators that the Sequence can reach, because they were not seeded when ``function`` drew from them.
    """
    current = context.current
    before = current.loaded  # of the job that this one runs in
    try:
        for run in itertools.count(1):
            current.loaded = loaded_frameworks()
            begin()
            is_refused = False
            try:
                result = function()
                why = unseeded(stream)
            except RunAgain as raised:
                why, is_refused = str(raised), True
            if not why:
                return result
            if run == _MOST_RUNS:
                if is_refused:
                    raise RuntimeError(_OF_ALWAYS % (why, run))
                _tell_of_always(why)
                return result
            _tell(why)
    finally:
        current.loaded = before


class RunAgain(Exception):
    """Raised in a job that :func:`run_seeded` must run again, because it has drawn numbers that were not seeded."""


def loaded_frameworks() -> tuple[bool, ...]:
    """Return, for each framework in ``THAT_DRAW``, True if it is imported."""
    return tuple(map(sys.modules.__contains__, THAT_DRAW))


def unseeded(stream: Stream) -> str:
    """Return why the running job, whose random numbers ``stream`` holds, may have drawn some that were not seeded.
    Return "" if it has not. A reason is returned once."""
    loaded = context.current.loaded
    grown = stream.generators is not None and stream.generators.has_grown()
    if loaded_frameworks() != loaded:
        return "imported " + ", ".join(_new_frameworks(loaded))
    return "created random generators" if grown else ""


def _new_frameworks(before: tuple[bool, ...]) -> list[str]:
    return [name for name, was in zip(THAT_DRAW, before, strict=True) if name in sys.modules and not was]


@functools.cache
def _tell_of_import(before: tuple[bool, ...]) -> None:
    """Warn that reading the source has imported frameworks besides ``before``. Warn once for the same ``before``."""
    logger.warning(
        "reading the source has imported %s, whose draws are not seeded in this epoch. Import it at the top of the "
        "module instead",
        ", ".join(_new_frameworks(before)),
    )


@functools.cache
def _tell_of_always(new: str) -> None:
    """Warn that a job does what ``new`` says each time it runs. Warn once for each text."""
    logger.warning(_OF_ALWAYS, new, _MOST_RUNS)


@functools.cache
def _tell(new: str) -> None:
    """Warn that a job has done what ``new`` says, e.g. "imported torch", and so runs again. Warn once for each text."""
    logger.warning(
        "a job has %s, so its first draws were not seeded, and it runs again. To have it run once, do this at the top "
        "of the module, or in __init__ of the class",
        new,
    )


def run_job(stream: Stream, job: Job, function: Callable[[], Any], seed_globals: bool = True) -> Any:
    """Return ``function()``, run as ``job`` in the consumer's process, and restore the user's own generators.

    Args:
        stream: the random numbers of the job.
        seed_globals: False if other threads run jobs at the same time: then no generator that threads share is seeded.
    """
    if not seed_globals:
        return _run_job(stream, job, function, False)
    return run_alone(_run_job, stream, job, function, True)


def _run_job(stream: Stream, job: Job, function: Callable[[], Any], seed_globals: bool) -> Any:
    current = context.current
    before, seeds_globals = (current.job, current.stream), current.seeds_globals
    restore: list[Callable[[], None]] = []
    try:
        if not seed_globals:
            return run_seeded(stream, lambda: enter_job(stream, job, False), function)
        process_generators.look_after_frameworks()
        restore = process_generators.save()
        if stream.generators is not None:
            stream.generators.begin(job.epoch)
            restore += stream.generators.save()
        return run_seeded(stream, lambda: enter_job(stream, job), function)
    finally:
        current.job, current.stream = before  # first: a Ctrl-C may come in the next call
        current.seeds_globals = seeds_globals
        for each in restore:
            each()
        context.enter(*before)


class SourceReading:
    """The reading of a source's items in this process during an epoch, with random numbers set by (seed, epoch).

    Each call of :meth:`run` is one part of the reading. It continues from the generator states that the previous part
    has left; between the calls, the generators have the user's own states. Unlike a job, a part never runs again.
    Within a part, ``current_job()`` is None: sequences that the source reads have their own jobs.

    Args:
        seed: the seed of the jobs that work on the items. The reading draws other numbers than these jobs.
    """

    def __init__(self, seed: int, epoch: int, source: Any) -> None:
        self._stream = Stream(mix(seed ^ _OF_READING) & MAX_SEED, Generators(lambda: [("source", source)]))
        self._epoch = epoch
        self._left: list[Callable[[], None]] | None = None  # restores the states that the last part left

    def run(self, function: Callable[[], Any]) -> Any:
        """Return ``function()``, run as the next part of the reading: its draws continue those of the previous part."""
        return run_alone(self._run, function)

    def _run(self, function: Callable[[], Any]) -> Any:
        before = context.current.job, context.current.stream
        restore: list[Callable[[], None]] = []
        try:
            process_generators.look_after_frameworks()
            if self._left is None:
                self._held.begin(self._epoch)
            restore = self._save()
            context.current.job, context.current.stream = None, self._stream
            if self._left is None:
                self._begin()
            else:
                for each in self._left:
                    each()
            loaded = loaded_frameworks()
            try:
                return function()
            finally:
                if loaded_frameworks() != loaded:
                    _tell_of_import(loaded)
                try:
                    self._left = self._save()
                except BaseException:  # a Ctrl-C
                    self._left = self._save()
                    raise
        finally:
            context.current.job, context.current.stream = before  # first: a Ctrl-C may come in the next call
            context.enter(*before)  # a job of a sequence that the source has read has entered the reading's stream
            for each in restore:
                each()

    @property
    def _held(self) -> Generators:
        held = self._stream.generators
        assert held is not None
        return held

    def _begin(self) -> None:
        self._stream.begin(self._epoch, EPOCH_START)
        self._stream.seed_held_generators()
        process_generators.seed(self._stream, self._epoch, EPOCH_START)

    def _save(self) -> list[Callable[[], None]]:
        return process_generators.save() + self._held.save()


def enter_job(stream: Stream, job: Job, seed_globals: bool = True) -> None:
    """Make ``job`` the current job, and seed its generators. For ``seed_globals`` see :func:`run_job`.
    A worker process calls this directly. Elsewhere :func:`run_job` does, and restores the user's generators later."""
    process_generators.look_after_frameworks()
    context.enter(job, stream)
    context.current.seeds_globals = seed_globals
    stream.begin(job.epoch, job.index)
    if seed_globals:
        if stream.generators is not None:
            stream.generators.begin(job.epoch)
            stream.seed_held_generators()
        process_generators.seed(stream, job.epoch, job.index)


def leave_job() -> None:
    """End the job that :func:`enter_job` has begun, so that this thread has no current job."""
    context.enter(None, None)


def draw_seed() -> int:
    """Return a seed (0 to 2**63 - 1) for a sequence that was given none.

    In a job, the seed depends on the job. Elsewhere it depends on how the program has seeded its global generators, and
    on how many seeds were drawn before.

    It is enough that the program seeds one generator (``np.random.seed(0)``, ``random.seed(0)``,
    ``torch.manual_seed(0)``, ``tf.random.set_seed(0)``, ``keras.utils.set_random_seed(0)``). numpy, torch and
    TensorFlow show whether they were seeded. Python's ``random`` does not, so its state is used only if none of the
    others was seeded. That state is system entropy unless the program has seeded ``random``. No generator is advanced.
    """
    stream = current_stream()
    if stream is not None:
        return stream.draw_seed()
    states = [*_of_numpy(), *(each for each in frameworks.asked("seed_of_program") if each is not None)] or [
        random.getstate()
    ]
    digest = hashlib.blake2b(repr((next(_numbers), states)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & MAX_SEED


def _of_numpy() -> list[Any]:
    return [process_generators.numpy_words()] if process_generators.is_numpy_seeded() else []
