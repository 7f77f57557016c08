"""The Keras-style base class ``Sequence``, and the chain that is built from it.

A Sequence is a function of the index: ``sequence[index]`` computes batch ``index`` of the current epoch from
scratch. Whoever iterates moves the epoch on; a pass that was left in the middle ends its epoch when the next begins.
"""

from __future__ import annotations

import functools
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

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
        with seeding.job_context(seeding.Stream(self.seed), job):
            self.on_epoch_end()
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
        with seeding.job_context(seeding.Stream(self.seed), seeding.Job(self._progress.epoch, index)):
            return own(getitem(self, index))

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


class SequenceBatch(SequenceDerived):
    """Batches of consecutive samples of another sequence."""

    def __init__(self, source_split: Sequence, batch_size: int, discard_batch_not_full: bool = False) -> None:
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.discard_batch_not_full = discard_batch_not_full
        super().__init__(source_split)

    def __len__(self) -> int:
        samples = len(self.source_split)
        return samples // self.batch_size if self.discard_batch_not_full else -(-samples // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        start = index * self.batch_size
        stop = min(start + self.batch_size, len(self.source_split))
        if isinstance(self.source_split, SequenceArray):
            return self.source_split.take(slice(start, stop))
        return stack([self.source_split[at] for at in range(start, stop)])

    def subsample(self, nb_samples: int) -> Sequence:
        return SequenceBatch(self.source_split.subsample(nb_samples), self.batch_size, self.discard_batch_not_full)

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence:
        source = self.source_split.subsample_uids(uids, uids_name, new_sampler)
        return SequenceBatch(source, self.batch_size, self.discard_batch_not_full)


def stack(samples: list[Any]) -> Any:
    """One batch of many samples: arrays and numbers stacked along a new first axis, the rest as lists."""
    first = samples[0]
    if isinstance(first, Mapping):
        return {key: stack([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple):
        parts = [stack(list(part)) for part in zip(*samples, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
    if isinstance(first, list):
        return [stack(list(part)) for part in zip(*samples, strict=True)]
    if first is None or isinstance(first, (str, bytes)):
        return samples
    return np.stack([np.asarray(sample) for sample in samples])


class SequenceArray(Sequence):
    """Equally long arrays as a sequence of samples: sample ``i`` is a dict of the ``i``-th item of each.

    Args:
        arrays: {name: array or list}, all of the same length.
        sampler: the order of the samples. None: as they are. Positions (integers): these, in this order. A
            function of the number of samples that returns positions, such as ``np.random.permutation``: called
            anew for each epoch, with the generators seeded by (seed, epoch).
        seed: as for :class:`Sequence`.

    >>> for batch in SequenceArray({"x": np.arange(4)}).batch(3):
    ...     print(batch["x"])
    [0 1 2]
    [3]

    Source: ``trw.train.SequenceArray``.
    """

    def __init__(self, arrays: Mapping[str, Any], sampler: Any = None, *, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        if not isinstance(arrays, Mapping) or not arrays:
            raise TypeError(f"arrays must be a dict of at least one array, not {arrays!r:.200}")
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays must be of equal lengths, not {lengths}")
        self.arrays = {name: _as_array(array) for name, array in arrays.items()}
        self.nb_samples = next(iter(lengths.values()))
        if sampler is not None and not callable(sampler):
            sampler = self._check_positions(sampler)
        self.sampler = sampler
        self._order: tuple[int, Any] = (-1, None)  # (epoch, positions) of the last epoch asked for

    def _check_positions(self, positions: Any) -> np.ndarray[Any, Any]:
        checked = np.asarray(positions)
        if checked.ndim != 1 or not (checked.size == 0 or np.issubdtype(checked.dtype, np.integer)):
            raise TypeError(f"sampler must be None, integer positions or a function, not {positions!r:.200}")
        if checked.size and not (-self.nb_samples <= checked.min() and checked.max() < self.nb_samples):
            raise ValueError(
                f"sampler has positions {checked.min()} to {checked.max()}, allowed are 0 to {self.nb_samples - 1}"
            )
        return checked.astype(np.int64)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_order": (-1, None)}

    def _positions(self) -> Any:
        if not callable(self.sampler):
            return self.sampler
        epoch = self.epoch
        known, positions = self._order
        if known != epoch:
            with seeding.job_context(seeding.Stream(self.seed), seeding.Job(epoch, seeding.EPOCH_START)):
                positions = self._check_positions(self.sampler(self.nb_samples))
            self._order = (epoch, positions)
        return positions

    def __len__(self) -> int:
        positions = self._positions()
        return self.nb_samples if positions is None else len(positions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {name: part[0] for name, part in self.take(slice(index, index + 1)).items()}

    def take(self, where: slice) -> dict[str, Any]:
        """The samples of a slice of the order, as a dict of arrays."""
        positions = self._positions()
        return {
            name: array[where] if positions is None else array[positions[where]] for name, array in self.arrays.items()
        }

    def subsample(self, nb_samples: int) -> SequenceArray:
        nb_samples = check_int("nb_samples", nb_samples, 1)
        if nb_samples > self.nb_samples:
            raise ValueError(f"nb_samples must be at most the {self.nb_samples} samples there are, not {nb_samples}")
        rng = np.random.default_rng(self.seed)
        return self._at(np.sort(rng.choice(self.nb_samples, nb_samples, replace=False)), None)

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> SequenceArray:
        if uids_name not in self.arrays:
            raise ValueError(f"uids_name must be one of {sorted(self.arrays)}, not {uids_name!r}")
        where: dict[Any, list[int]] = {}
        for at, uid in enumerate(self.arrays[uids_name].tolist()):
            where.setdefault(uid, []).append(at)
        wanted: Iterable[Any] = np.asarray(uids).tolist() if isinstance(uids, np.ndarray) else uids
        kept = [at for uid in dict.fromkeys(wanted) for at in where.get(uid, ())]
        return self._at(np.array(kept, np.int64), new_sampler)

    def _at(self, positions: Any, sampler: Any) -> SequenceArray:
        return SequenceArray({name: a[positions] for name, a in self.arrays.items()}, sampler, seed=self.seed)


def _as_array(values: Any) -> Any:
    if isinstance(values, np.ndarray):
        return values
    try:
        return np.asarray(values)
    except ValueError:  # items of different shapes: an array of objects
        ragged = np.empty(len(values), object)
        ragged[:] = values
        return ragged
