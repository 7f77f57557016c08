"""Computes the first batches of an epoch, with or without workers, and leaves the source as it was."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

from workers.errors import WorkerError
from workers.frameworks.keras import counted
from workers.job.task import Task
from workers.loader.loop import Loop
from workers.loader.sequence_map import SequenceMap
from workers.sequence.base import plan_of
from workers.sequence.clock import Clock
from workers.sequence.epochs import plan_of_epoch
from workers.sequence.position import Position

from .data import arrays_of, contents
from .probe import JobRecord, ProbeTask

_SEED = 0  # if the source was given none, so that none is drawn for it


class Raised(NamedTuple):
    """What came in place of a batch: the type and text of the error."""

    text: str


class CheckedLoop(Loop):
    """A loop that reads the first batches of an epoch, as often as needed. It takes no workers from other loops."""

    def _front_ends(self) -> list[Loop]:
        return [self]

    def task(self) -> Task:
        task = super().task()
        if self.sequence.is_probe:
            task.__class__ = ProbeTask
        return task

    def first(self, num_batches: int) -> Iterator[Any]:
        """Yield the first ``num_batches`` batches of the epoch, or what they raise, as a :class:`Raised`."""
        with self.lock:
            pool = self._running()
            self.clock.begin_epoch(self.sequence)  # once
            plan = plan_of_epoch(self.sequence, self.clock)
            position = Position(stride=plan.plan.world)
            places = list((plan.places(position) or ())[:num_batches])
            assembly = None if self.sequence.is_probe else plan.plan.assembly
            this_pass = self._begun(pool, plan, position, places, assembly)
        for _ in range(num_batches):
            try:
                batch = self.next(this_pass)
            except StopIteration:
                return
            except WorkerError as error:
                yield _raised(error)
                return
            except Exception as error:
                batch = _raised(error)
            yield batch


class CheckedMap(SequenceMap[Any]):
    """A front-end over ``source`` with ``nb_workers``, for a check.

    Args:
        is_probe: deliver records of the jobs in place of batches.
    """

    def __init__(self, source: Any, nb_workers: int, is_probe: bool = False) -> None:
        self.is_probe, self._nb_of_check = is_probe, nb_workers
        seed = None if plan_of(counted(source)).seeds else _SEED
        super().__init__(source, nb_workers, as_items=False, seed=seed, in_order=True)
        self._output = self._live.output = None

    def _make_live(self, clock: Clock | None = None) -> CheckedLoop:
        return CheckedLoop(self, self._nb_of_check, None, clock)

    def first(self, num_batches: int) -> Iterator[Any]:
        """Yield the first ``num_batches`` batches of the epoch; see :meth:`CheckedLoop.first`."""
        loop: CheckedLoop = self._live
        return loop.first(num_batches)

    def contents(self) -> dict[str, int]:
        """Begin the epoch, and return {path: a checksum} of the arrays that the source holds."""
        self._live.clock.begin_epoch(self)
        plan = self._plan()
        return contents(arrays_of(plan.source, plan.functions))

    def records(self, num_jobs: int) -> list[JobRecord]:
        """Return the records of the first ``num_jobs`` jobs. A job that ended its worker has none."""
        return [pickle.loads(each) for each in self.first(num_jobs) if isinstance(each, bytes)]


def _raised(error: BaseException) -> Raised:
    return Raised(f"{type(error).__name__}: {error}")
