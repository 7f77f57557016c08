"""Arrays as a sequence of samples, and samples as a sequence of batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from workers.checks import check_int
from workers.job import seeding
from workers.job.generators import Generators

from .base import Sequence, SequenceDerived


class SequenceBatch(SequenceDerived):
    """Batches of consecutive samples of another sequence."""

    def __init__(self, source_split: Sequence, batch_size: int, discard_batch_not_full: bool = False) -> None:
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.discard_batch_not_full = discard_batch_not_full
        super().__init__(source_split)
        if isinstance(source_split, SequenceDerived):
            from .shard import check_not_sharded

            check_not_sharded(source_split)

    def _unit(self) -> tuple[Any, ...]:
        return (*super()._unit(), (self.batch_size, self.discard_batch_not_full))

    def _described(self) -> list[Any]:
        return [*super()._described(), self.batch_size, self.discard_batch_not_full]

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

    def _described(self) -> list[Any]:
        return [*super()._described(), self.nb_samples, sorted(map(str, self.arrays))]

    def _positions(self) -> Any:
        if not callable(self.sampler):
            return self.sampler
        epoch = self.epoch
        known, positions = self._order
        if known != epoch:
            job, sampler = seeding.Job(epoch, seeding.EPOCH_START), self.sampler
            stream = seeding.Stream(self.seed, Generators(lambda: [("sampler", sampler)]))
            drawn = seeding.run_job(stream, job, lambda: sampler(self.nb_samples))
            positions = self._check_positions(drawn)
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
