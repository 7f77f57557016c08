"""Runs quiet jobs, which take a few microseconds and draw nothing, without seeding ``random`` and ``numpy.random``.

Seeding both for a job, and restoring the program's own states afterwards, takes longer than such a job. So once enough
jobs were quiet, the next ones run on the program's own states. After each, these are compared with what they were. If a
job has drawn all the same, or has been seen to do anything else that is not seeded, it runs again, seeded; and if it
has drawn, all later jobs are seeded. This holds for jobs in the loop's thread; those of workers are always seeded.

A job that saves a state, draws, and restores it would not be noticed. It takes longer than ``_QUIET_NS``, so it would
have to be the first one of its kind after so many quiet ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from workers import frameworks

from . import context, process_generators, seeding
from .alone import run_alone
from .context import Job
from .stream import Stream

_QUIET_JOBS = 200
_QUIET_NS = 20_000
_A_SLOW_ONE = 20  # quiet jobs that a slow one outweighs
_NEVER = -(2**62)


class Quiet:
    """The record of whether the jobs of a stream are quiet.

    Attributes:
        number: how many were, less slow ones; see :func:`count`.
    """

    __slots__ = "_loaded", "_num_modules", "_place", "_restore", "number"

    def __init__(self) -> None:
        self.number = 0
        self._place: Any = None  # of the global generators, as the program has left them
        self._restore: list[Callable[[], None]] = []  # restores the states at this place
        self._num_modules = 0
        self._loaded: tuple[bool, ...] = ()

    @property
    def is_due(self) -> bool:
        """True if the next job is to be run by :meth:`run`."""
        return self.number >= _QUIET_JOBS

    def count(self, has_drawn: bool, job_ns: int) -> None:
        """Record that a job has run in ``job_ns``. Jobs that draw are not quiet, nor is one in twenty that is slow."""
        if has_drawn:
            self.number = min(self.number, 0)
        elif self.number >= 0:
            change = 1 if job_ns < _QUIET_NS else -_A_SLOW_ONE
            self.number = max(0, min(self.number + change, 2 * _QUIET_JOBS))

    def run(self, stream: Stream, job: Job, function: Callable[[], Any]) -> Any:
        """Return ``function()``, run as ``job`` in this thread; None if it has to be run, perhaps again, by
        :func:`seeding.run_job`. The function never returns None itself."""
        current, is_new = context.current, len(sys.modules) != self._num_modules
        if is_new:  # frameworks may be among them, which run_job looks after
            self._num_modules, self._loaded = len(sys.modules), seeding.loaded_frameworks()
        if is_new or current.is_alone or current.stream is not None:
            return None
        return run_alone(self._run, stream, job, function)

    def _run(self, stream: Stream, job: Job, function: Callable[[], Any]) -> Any:
        current = context.current
        restore: list[Callable[[], None]] = []
        has_drawn = False
        try:
            stream.place = place = process_generators.place()
            if place != self._place or place is None:
                self._place, self._restore = place, process_generators.save_own()
            generators = stream.generators
            if generators is None:
                return None
            generators.begin(job.epoch)
            restore += generators.save()
            for save_framework in frameworks.answering("save"):
                restore += save_framework()
            stream.is_quiet, current.seeds_globals, current.loaded = True, True, self._loaded
            context.enter(job, stream)
            stream.begin(job.epoch, job.index)
            stream.seed_held_generators()
            for seed_framework in frameworks.answering("seed"):
                seed_framework(stream.seeds_of_globals(job.epoch, job.index)[0])
            start_ns = time.monotonic_ns()
            try:
                result = function()
                end_ns = time.monotonic_ns()
                has_drawn = process_generators.place() != place
                has_imported = len(sys.modules) != self._num_modules
                if has_drawn or (seeding.unseeded(stream) if has_imported else generators.has_grown()):
                    return None
            except BaseException as error:
                has_drawn = process_generators.place() != place
                if not (isinstance(error, seeding.RunAgain) or (has_drawn and isinstance(error, Exception))):
                    raise
                return None
            self.count(False, end_ns - start_ns)
            return result
        finally:
            context.current.job = context.current.stream = None  # first: a Ctrl-C may come in the next call
            stream.is_quiet = current.seeds_globals = False
            current.loaded = ()
            for each in restore:
                each()
            if has_drawn:
                self.number = _NEVER
                for each in self._restore:
                    each()
            context.enter(None, None)
