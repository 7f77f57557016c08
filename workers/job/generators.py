"""Random generators that a Sequence holds, at any depth: seeded for each job, as the global ones are.

A copy of ``self.rng = np.random.default_rng(1)`` goes to every worker, and all of them would draw the same numbers; the
same is true of ``torch.Generator``, ``tf.random.Generator`` and of the ``SeedGenerator`` in each of Keras's layers that
draws. So before a job each is set to (seed, epoch, index, where it was found). Where it was found is the path of
attributes, items, closures and globals that leads to it, e.g. ``source.augmenter.layers[0].generator``: the same in
every process and every run. Generators that were made of the same seed, so that an image and its mask are flipped
alike, go on drawing the same numbers.

How they are found: see ``walk``.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .data_only import DataOnly
from .kinds import PATHS_OF_PROCESS, Kind, bits_of, kinds_loaded, of_process
from .walk import MAX_OBJECTS, Paths, walk

logger = logging.getLogger("workers")


class _Found(NamedTuple):
    generator: Any
    kind: Kind
    origin: Any
    number: int  # stands for where it was found


class Generators:
    """The generators that can be reached from what ``roots()`` returns: [(path, object)]."""

    def __init__(self, roots: Callable[[], Paths]) -> None:
        self._roots = roots
        self._found: dict[str, _Found] = {}  # {path: what is there}
        self._epoch = -1  # when was looked for them
        self._of_process: tuple[Any, ...] = ()  # see of_process(), at that time
        self._is_first_job = False  # since then
        self._data = DataOnly()

    def __reduce__(self) -> Any:
        return type(None), ()  # whoever gets a copy of the Sequence looks for its own

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def are_of_sequence(self) -> bool:
        """Whether the Sequence holds one, and not only the process."""
        return not set(PATHS_OF_PROCESS).issuperset(self._found)

    def begin(self, epoch: int) -> None:
        """A job of ``epoch`` begins: look for them, if there may be others than before."""
        if self._epoch != epoch or self._has_process_more():
            self._look()
            self._epoch = epoch
            self._is_first_job = True

    def has_grown(self) -> bool:
        """Whether the job that has just run has made some, whose draws were not seeded."""
        if self._epoch < 0 or not (self._is_first_job or self._has_process_more()):
            return False  # also after a job that seeds none of them
        self._is_first_job = False
        before = set(self._found)
        self._look()
        return not before.issuperset(self._found)

    def _has_process_more(self) -> bool:
        now = of_process()
        return any(map(operator.is_not, self._of_process, now)) or len(now) != len(self._of_process)

    def seed(self, number: Callable[[int], int]) -> None:
        """Seed each of them with ``number`` of where it was found."""
        for found in self._found.values():
            found.kind.seed(found.generator, number(found.number))

    def save(self) -> list[Callable[[], None]]:
        """Returns: what restores their states."""
        return [found.kind.save(found.generator) for found in self._found.values()]

    def _look(self) -> None:
        found: dict[str, _Found] = {}
        numbers: dict[Any, int] = {}  # {origin: number}
        kinds = kinds_loaded()
        self._of_process = of_process()
        known_ones = [each for each in zip(PATHS_OF_PROCESS, self._of_process, strict=False) if each[1] is not None]
        walked = walk(self._roots(), tuple(kinds), self._data)
        if walked.stopped_at is not None:
            _warn_of(walked.stopped_at)
        for path, generator in _without_parts([*walked.found, *known_ones]):
            kind = next(kinds[cls] for cls in type(generator).__mro__ if cls in kinds)
            known = self._found.get(path)
            # Once it is used in a job, its state tells no more what it was made of.
            origin = known.origin if known and known.generator is generator else kind.origin(generator)
            number = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "little")
            if origin is not None:
                number = numbers.setdefault((kind.family, origin), number)
            found[path] = _Found(generator, kind, origin, number)
        self._found = found


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
