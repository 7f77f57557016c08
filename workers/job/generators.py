"""Finds the random generators that a Sequence holds, at any depth, and seeds them for each job.

Every worker gets a copy of a generator such as ``self.rng = np.random.default_rng(1)``. If nothing were done, all
copies would draw the same numbers. The same is true of ``torch.Generator``, ``tf.random.Generator``, and the
``SeedGenerator`` of each Keras layer that draws. So before a job (the computation of a batch), each generator is seeded
by (seed, epoch, index, path). The path names the attributes, items, closures and globals that lead to the generator,
e.g. ``source.augmenter.layers[0].generator``, and is the same in every process and run.

Generators that were made from the same seed, for example to flip an image and its mask alike, keep drawing the same
numbers. Such a common origin shows in the seeds that the generators keep and, until they are drawn from, in their
states. So it is determined when the generators are first found: for a front-end (the result of ``.prefetch()`` or
``.map()``), when that is created, before ``on_epoch_begin`` or the loop can draw. The origin is remembered as long as
the same generator stays at the same path, and is sent to the workers.

The module ``walk`` searches for the generators.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workers.frameworks import Kind, answering, process_generators

from .data_only import DataOnly
from .generator_kinds import bits_of, kinds_loaded, origins
from .growth import Growth, may_grow
from .walk import MAX_OBJECTS, Paths, walk

logger = logging.getLogger("workers")


class _Found(NamedTuple):
    generator: Any
    kind: Kind
    origins: tuple[bytes, ...]  # digests of what it was made from, see ``generator_kinds``
    place: int  # a hash of its path
    number: int  # the place of the first generator of the same origin


class Sent(NamedTuple):
    """The message to workers about the random generators in a sequence: their origins, and where the search stopped."""

    origins: dict[str, tuple[bytes, ...]]  # {path: origins of the generator there}
    stopped_at: str | None  # the path at which the search stopped; None if it was complete


class History:
    """The findings of all searches for the random generators in one sequence so far."""

    def __init__(self, sent: Sent | None = None) -> None:
        self.found: dict[str, _Found] = {}  # {path: generator there}
        self.has_looked = False
        self.data = DataOnly()
        self.told = self.sent = sent  # the first search uses up ``sent``, while ``told`` stays
        self.stopped_at = sent and sent.stopped_at
        self.lock = threading.RLock()

    def __reduce__(self) -> Any:
        return type(None), ()


class Generators:
    """The random generators that can be reached from given objects, the roots. They are seeded for each job.

    Args:
        roots: a function that returns the roots, as [(path, object)], e.g. [("source", sequence)].
        history: the findings of other searches from the same roots.
    """

    def __init__(self, roots: Callable[[], Paths], history: History | None = None) -> None:
        self.history = history or History()
        self._roots = roots
        self._found: dict[str, _Found] = {}  # {path: generator there}
        self._epoch = -1  # the epoch of the last search for a job
        self._of_process: Paths = []  # process_generators() at the last search
        self._is_first_job = False  # True from that search until its first job has run
        self._growth: Growth | None = None  # detects generators that jobs have added since the last search

    def __reduce__(self) -> Any:
        return type(None), ()  # a copy of the Sequence searches for its own

    def __bool__(self) -> bool:
        return bool(self._found)

    def begin(self, epoch: int) -> None:
        """Prepare for a job of ``epoch``: search for generators if the epoch is new, or new global generators exist."""
        if self._epoch != epoch or self._has_process_more():
            self.look()
            self._epoch = epoch
            self._is_first_job = True

    def has_grown(self) -> bool:
        """Return True if the job that has just run has created random generators that later jobs can reach.
        They were not seeded before the job drew from them, so the job has to run again."""
        if self._epoch < 0:
            return False  # begin() was not called: these jobs seed no held generators
        has_more = self._is_first_job or self._has_process_more()
        self._is_first_job = False
        if not (has_more or (self._growth is not None and self._growth.is_there())):
            return False
        before = set(self._found)
        self.look()
        return not before.issuperset(self._found)

    def _has_process_more(self) -> bool:
        if not (self._of_process or answering("process_generators")):
            return False
        before, now = self._of_process, process_generators()
        return len(now) != len(before) or any(one[1] is not other[1] for one, other in zip(before, now, strict=True))

    def _paths_of_process(self) -> set[str]:
        return {path for path, _ in self._of_process}

    def seed(self, number: Callable[[int], int]) -> None:
        """Seed each random generator with ``number(place)``, where ``place`` is a hash of the generator's path.
        Generators of the same origin all use the place of the first one, so they draw the same numbers."""
        for found in self._found.values():
            found.kind.seed(found.generator, number(found.number))

    def states(self) -> list[tuple[str, Any]]:
        """Return [(path, state)] of the random generators, to find out whether a job has drawn from them."""
        return [(path, found.kind.state(found.generator)) for path, found in self._found.items()]

    def save(self) -> list[Callable[[], None]]:
        """Return functions that restore the present states of the random generators."""
        return [found.kind.save(found.generator) for found in self._found.values()]

    def look(self) -> None:
        """Search for random generators, and keep them for :meth:`seed`.
        Determine the origins of new generators now, from the seeds that they keep and from their present states."""
        with self.history.lock:
            self._found = self.history.found = self._look_at_all()
            self.history.has_looked = True

    def look_first(self) -> None:
        """Search for random generators unless that was done before. Call this before anything can draw from them."""
        if not self.history.has_looked:
            self.look()

    def to_send(self) -> Sent:
        """Search for random generators, and return the message to workers about those that the sequence holds."""
        self.look()
        of_process = self._paths_of_process()
        of_sequence = {path: each.origins for path, each in self._found.items() if path not in of_process}
        return Sent(of_sequence, self.history.stopped_at)

    def _look_at_all(self) -> dict[str, _Found]:
        history, kinds = self.history, kinds_loaded()
        self._of_process = process_generators()
        known_ones = [each for each in self._of_process if each[1] is not None]
        walked = walk(self._roots(), tuple(kinds), history.data)
        if walked.stopped_at is not None and history.stopped_at is None:
            history.stopped_at = walked.stopped_at
            _warn_of(walked.stopped_at)
        self._growth = Growth(walked, tuple(kinds)) if may_grow(walked) else None
        sent, history.sent = history.sent, None
        found: dict[str, _Found] = {}
        numbers: dict[bytes, int] = {}  # {origin: number}
        for path, generator in _without_parts([*walked.found, *known_ones]):
            known = history.found.get(path)
            if known is None or known.generator is not generator:
                kind = next(kinds[cls] for cls in type(generator).__mro__ if cls in kinds)
                made_of = sent.origins.get(path) if sent else None
                place = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
                known = _Found(generator, kind, made_of or origins(kind, generator), place, place)
            number = next((numbers[origin] for origin in known.origins if origin in numbers), known.place)
            for origin in known.origins:
                numbers.setdefault(origin, number)
            found[path] = known if known.number == number else known._replace(number=number)
        return found


@functools.cache
def _warn_of(path: str) -> None:
    """Warn that the search for random generators reached its limit at ``path``. Each path is reported only once."""
    logger.warning(
        "the search for random generators stopped at %s, after %d objects. Generators beyond it are not seeded, and "
        "may draw the same numbers in every worker. Draw from current_rng() instead, or hold fewer objects",
        path,
        MAX_OBJECTS,
    )


def _without_parts(found: Paths) -> Paths:
    """Return ``found``, [(path, generator)], without bit generators from which another generator in ``found`` draws.
    Such a bit generator is seeded together with the other generator. The bit generators that remain come last."""
    of_others = {id(bits_of(generator)) for _, generator in found}
    bare = [each for each in found if isinstance(each[1], np.random.BitGenerator)]
    others = [each for each in found if not isinstance(each[1], np.random.BitGenerator)]
    return others + [each for each in bare if id(each[1]) not in of_others]
