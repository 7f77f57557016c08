"""The batches of a sequence in an order of their own in each epoch."""

from __future__ import annotations

from collections.abc import Sequence as OrderOf
from typing import Any

import numpy as np

from workers.for_keras.endless import Endless
from workers.job import seeding
from workers.job.task import chain_of

from .base import Sequence
from .chain import makes
from .derived import SequenceDerived, job_indices_of, job_of, jobs_of
from .indexed import check_indexed
from .order import Permuted


@makes("shuffle")
class SequenceShuffle(SequenceDerived):
    """The batches of another sequence, permuted by (seed, epoch). Made by :meth:`Sequence.shuffle`.

    Args:
        source_split: anything with ``__len__`` and ``__getitem__``.
        seed: what the order depends on; None: the seed of ``source_split``, or one drawn once.
    """

    _has_places_of_source = False

    def __init__(self, source_split: Any, *, seed: int | None = None) -> None:
        check_indexed(source_split, "shuffled", "shuffle where they are read, such as in __iter__")
        if isinstance(source_split, Endless):
            raise TypeError(
                f"{source_split.dataset_name} has no end (its num_batches is None), so it cannot be shuffled: draw "
                "what a batch holds in its __getitem__, by current_rng()"
            )
        if isinstance(source_split, Sequence) and source_split._stride > 1:
            raise TypeError("shuffle before sharding, so that all ranks agree: sequence.shuffle().shard(rank, world)")
        super().__init__(source_split)
        if self.is_stream:
            raise TypeError(f"{type(source_split).__name__} is read in an order of its own, which is shuffled already")
        self._own_seed = seeding.check_seed(seed)
        self._level = sum(isinstance(each, SequenceShuffle) for each in chain_of(source_split))
        self.seed  # noqa: B018  # drawn now, where it is not given: no two workers may draw it for themselves

    def __len__(self) -> int:
        return self._source_length()

    def __getitem__(self, index: int) -> Any:
        return self.source_split[self._permuted(self.epoch)([index])[0]]

    def _permuted(self, epoch: int) -> Permuted:
        return Permuted(self._source_length(), self.seed, epoch, self._level)

    def _jobs(self) -> Any:
        return jobs_of(self.source_split)

    def _job_of(self, index: int, epoch: int) -> int:
        return job_of(self.source_split, self._permuted(epoch)([index])[0], epoch)

    def _jobs_of(self, indices: OrderOf[int], epoch: int) -> list[int]:
        return job_indices_of(self.source_split, list(self._permuted(epoch)(indices)), epoch)

    def _permutations(self, epoch: int) -> tuple[Permuted, ...]:
        return self._permuted(epoch), *super()._permutations(epoch)

    def _groups(self) -> Any:
        return self.source_split._groups() if isinstance(self.source_split, Sequence) else None

    def _samples_at(self, places: Any) -> Any:
        if not isinstance(self.source_split, Sequence):
            return None
        return self.source_split._samples_at(np.array(self._permuted(self.epoch)(places)))

    def subsample(self, nb_samples: int) -> Sequence:
        return SequenceShuffle(self.source_split.subsample(nb_samples), seed=self._own_seed)

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence:
        return SequenceShuffle(self.source_split.subsample_uids(uids, uids_name, new_sampler), seed=self._own_seed)
