"""Random generators that a Sequence holds, at any depth: seeded for each job, as the global ones are.

A copy of ``self.rng = np.random.default_rng(1)`` goes to every worker, and all of them would draw the same numbers; the
same is true of ``torch.Generator``, ``tf.random.Generator`` and of the ``SeedGenerator`` in each of Keras's layers that
draws. So before a job each is set to (seed, epoch, index, where it was found). Where it was found is the path of
attributes, items, closures and globals that leads to it, e.g. ``source.augmenter.layers[0].generator``: the same in
every process and every run.

Generators that were made of the same seed, so that an image and its mask are flipped alike, go on drawing the same
numbers. What they were made of is told when they are first seen, by the seed that they keep, or else by their states:
for a front-end's when it is made, before a hook or the loop can draw from one of them. It is kept for as long as the
same generator is at the same place, and sent to the workers.

How they are found: see ``walk``.
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
    origins: tuple[bytes, ...]  # what it was made of, see ``generator_kinds``
    place: int  # stands for where it was found
    number: int  # the place of the first that was made of the same


class Sent(NamedTuple):
    """What workers are told of the generators that they are sent."""

    origins: dict[str, tuple[bytes, ...]]  # {path: of what is there}
    stopped_at: str | None  # the path where the search stopped


class History:
    """What the looks at the generators of one sequence have found until now."""

    def __init__(self, sent: Sent | None = None) -> None:
        self.found: dict[str, _Found] = {}  # {path: what is there}
        self.has_looked = False
        self.data = DataOnly()
        self.told = self.sent = sent  # the latter until the first look
        self.stopped_at = sent and sent.stopped_at
        self.lock = threading.RLock()

    def __reduce__(self) -> Any:
        return type(None), ()


class Generators:
    """The generators that can be reached from what ``roots()`` returns: [(path, object)].

    Args:
        history: of other looks at the same.
    """

    def __init__(self, roots: Callable[[], Paths], history: History | None = None) -> None:
        self.history = history or History()
        self._roots = roots
        self._found: dict[str, _Found] = {}  # {path: what is there}
        self._epoch = -1  # when was looked for them
        self._of_process: Paths = []  # see process_generators(), at that time
        self._is_first_job = False  # since then
        self._growth: Growth | None = None  # since the last look

    def __reduce__(self) -> Any:
        return type(None), ()  # whoever gets a copy of the Sequence looks for its own

    def __bool__(self) -> bool:
        return bool(self._found)

    def begin(self, epoch: int) -> None:
        """A job of ``epoch`` begins: look for them, if there may be others than before."""
        if self._epoch != epoch or self._has_process_more():
            self.look()
            self._epoch = epoch
            self._is_first_job = True

    def has_grown(self) -> bool:
        """Whether the job that has just run has made some, whose draws were not seeded."""
        if self._epoch < 0:
            return False  # it seeds none of them
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
        """Seed each of them with ``number`` of where it was found."""
        for found in self._found.values():
            found.kind.seed(found.generator, number(found.number))

    def save(self) -> list[Callable[[], None]]:
        """Returns: what restores their states."""
        return [found.kind.save(found.generator) for found in self._found.values()]

    def look(self) -> None:
        """Look for them: what is new is told by what it is made of now."""
        with self.history.lock:
            self._found = self.history.found = self._look_at_all()
            self.history.has_looked = True

    def look_first(self) -> None:
        """Look for them, unless they were looked for: before something can draw from them."""
        if not self.history.has_looked:
            self.look()

    def to_send(self) -> Sent:
        """What workers are to be told of them, as they are now."""
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
    """Once in each process."""
    logger.warning(
        "the search for random generators has stopped at %s, after %d objects: those that lie further are not seeded, "
        "and would draw the same numbers in every worker. Draw from current_rng() instead, or hold fewer objects",
        path,
        MAX_OBJECTS,
    )


def _without_parts(found: Paths) -> Paths:
    """All but the bit generators of generators that are found too, which are seeded with these; bare ones come last."""
    of_others = {id(bits_of(generator)) for _, generator in found}
    bare = [each for each in found if isinstance(each[1], np.random.BitGenerator)]
    others = [each for each in found if not isinstance(each[1], np.random.BitGenerator)]
    return others + [each for each in bare if id(each[1]) not in of_others]
