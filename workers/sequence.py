"""The Keras-style base class ``Sequence``, and the chain that is built from it.

A Sequence is a function of the index: ``sequence[index]`` computes batch ``index`` of the current epoch from
scratch. Whoever iterates moves the epoch on; a pass that was left in the middle ends its epoch when the next begins.
"""

from __future__ import annotations

import functools
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from . import seeding
from .errors import ClosedError, check_index, check_int
from .layout import own

if TYPE_CHECKING:
    from typing_extensions import Self

    from .sequence_map import SequenceMap

logger = logging.getLogger(__name__)


class _Progress:
    """Where a Sequence stands. Not part of what is pickled: a replica learns its epoch from each job."""

    def __init__(self) -> None:
        self.epoch = 0
        self.is_begun = False  # something of this epoch was read
        self.is_closed = False

    def __reduce__(self) -> Any:
        return _Progress, ()


class Sequence:
    """Base of all sequences of batches.

    A subclass defines ``__len__`` (batches in an epoch) and ``__getitem__``. Random draws in them come from
    ``current_rng()`` or from ``random`` and ``numpy.random``, which are seeded for the batch before; so
    ``sequence[index]`` is the same batch whenever it is computed in the same epoch.

    Args:
        seed: what all random draws depend on; None: drawn once, kept in ``seed``, and logged.

    Source: ``keras.utils.Sequence`` for what a subclass defines, ``trw.train.Sequence`` for the chain.
    """

    def __init__(self, *, seed: int | None = None) -> None:
        seed = seeding.check_seed(seed)
        if seed is not None:
            self._seed = seed

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__getitem__" in cls.__dict__:
            cls.__getitem__ = _as_job(cls.__dict__["__getitem__"])  # type: ignore[method-assign]

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define __len__")

    def __getitem__(self, index: int) -> Any:
        """Batch ``index`` of the current epoch."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def on_epoch_end(self) -> None:
        """Called in the consumer's process after each epoch. What it changes here is seen by all of the next."""

    # -- where it stands

    # As class attributes with lazy values, so that a subclass need not call our __init__.
    _seed: int
    _position: _Progress

    @property
    def _progress(self) -> _Progress:
        try:
            return self._position
        except AttributeError:
            self._position = _Progress()
            return self._position

    @property
    def seed(self) -> int:
        """What all random draws depend on."""
        try:
            return self._seed
        except AttributeError:
            self._seed = seeding.draw_seed()
            logger.info("%s draws from seed %d", type(self).__name__, self._seed)
            return self._seed

    @property
    def epoch(self) -> int:
        """The current epoch, from 0. Inside a job: the job's."""
        job = seeding.current_job()
        return self._progress.epoch if job is None else job.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._progress.epoch = check_int("epoch", epoch, 0)
        self._progress.is_begun = False

    def __iter__(self) -> Iterator[Any]:
        """One pass over the batches of an epoch."""
        self._check_open()
        self._end_abandoned_epoch()
        return self._pass()

    def _pass(self) -> Iterator[Any]:
        epoch = self._progress.epoch
        for index in range(len(self)):
            self._check_open()
            self._progress.is_begun = True
            yield self[index]
        self._end_epoch(epoch)

    def _end_abandoned_epoch(self) -> None:
        if self._progress.is_begun:
            self._end_epoch(self._progress.epoch)

    def _end_epoch(self, epoch: int) -> None:
        """Epoch ``epoch`` is over, unless it was already."""
        if self._progress.epoch != epoch:
            return
        job = seeding.Job(epoch, seeding.EPOCH_END)
        seeding.run_job(seeding.Stream(self.seed), job, self.on_epoch_end)
        self._progress.epoch = epoch + 1
        self._progress.is_begun = False

    # -- the chain

    def map(self, function_to_run: Any, nb_workers: int = 0, **kwargs: Any) -> SequenceMap:
        """The batches that ``function_to_run`` makes of this sequence's, in ``nb_workers`` worker processes.

        Args:
            function_to_run: a function of a batch, or a list of functions applied one after the other. One that
                returns a *list* yields its items one by one.
            nb_workers: worker processes; 0: in this process, when asked.
            **kwargs: as for :class:`workers.SequenceMap`.
        """
        from .sequence_map import SequenceMap

        return SequenceMap(self, nb_workers, function_to_run, **kwargs)

    def prefetch(self, nb_workers: int | None = None, max_queue_size: int | None = None, **kwargs: Any) -> SequenceMap:
        """This sequence, computed ahead in the background: see :func:`workers.prefetch`."""
        from .sequence_map import prefetch

        return prefetch(self, nb_workers, max_queue_size, **kwargs)

    def batch(self, batch_size: int, discard_batch_not_full: bool = False) -> Sequence:
        """Batches of ``batch_size`` consecutive samples, stacked (dicts of arrays stay dicts of arrays).

        Args:
            discard_batch_not_full: leave out the last batch where samples are missing for it.
        """
        from .sequence_array import SequenceBatch

        return SequenceBatch(self, batch_size, discard_batch_not_full)

    def subsample(self, nb_samples: int) -> Sequence:
        """A sequence of ``nb_samples`` samples, chosen at random (by ``seed``) and then fixed."""
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence:
        """A sequence of the samples whose array ``uids_name`` holds one of ``uids``, in the order of ``uids``."""
        raise TypeError(f"{type(self).__name__} has no samples to choose from; SequenceArray has")

    # -- the end

    def close(self) -> None:
        """Let go of everything. May be repeated; what comes after raises ClosedError."""
        self._progress.is_closed = True

    def _check_open(self) -> None:
        if self._progress.is_closed:
            raise ClosedError(f"this {type(self).__name__} was closed; make a new one")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _as_job(getitem: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``__getitem__`` of a subclass, such that a call from outside of a job is one."""

    @functools.wraps(getitem)
    def __getitem__(self: Sequence, index: Any) -> Any:
        if seeding.current_job() is not None:
            return getitem(self, index)
        self._check_open()
        index = check_index(index, self)
        job = seeding.Job(self._progress.epoch, index)
        return seeding.run_job(seeding.Stream(self.seed), job, lambda: own(getitem(self, index)))

    return __getitem__


class SequenceDerived(Sequence):
    """A sequence made from another one, whose seed and epoch it shares."""

    def __init__(self, source_split: Any) -> None:
        super().__init__()
        self.source_split = source_split
        if isinstance(source_split, Sequence):
            source_split._check_open()

    @property
    def _progress(self) -> _Progress:
        if isinstance(self.source_split, Sequence):
            return self.source_split._progress
        return super()._progress

    @property
    def seed(self) -> int:
        """The source's."""
        if isinstance(self.source_split, Sequence):
            return self.source_split.seed
        return super().seed

    def on_epoch_end(self) -> None:
        """The source's."""
        if hasattr(self.source_split, "on_epoch_end"):
            self.source_split.on_epoch_end()
