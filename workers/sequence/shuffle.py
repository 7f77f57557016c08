"""``SequenceShuffle``: the batches of a sequence in a new random order in each epoch.

``order.Permuted`` computes the order. Shuffles within windows are in ``batched_iterable``.
"""

from __future__ import annotations

from typing import Any

from workers.frameworks.keras import Endless
from workers.job import seeding

from .base import Sequence, plan_of
from .derived import SequenceDerived, check_indexed
from .plan import Plan


class SequenceShuffle(SequenceDerived):
    """The batches of another sequence, in an order drawn by (seed, epoch): see :meth:`Sequence.shuffle`.

    Args:
        source_split: anything with ``__len__`` and ``__getitem__``.
        seed: the seed of the order; None for the seed of the chain, which is drawn once if none was given.
    """

    _changes_order = True

    def __init__(self, source_split: Any, *, seed: int | None = None) -> None:
        self._own_seed = seeding.check_seed(seed)
        plan, name = plan_of(source_split), type(source_split).__name__
        check_indexed(
            name, plan.origin, "shuffled", "write .shuffle(window=4096), which shuffles them as they are read"
        )
        if isinstance(source_split, Endless):
            raise TypeError(
                f"{source_split.dataset_name} has no end (its num_batches is None), so it cannot be shuffled: draw "
                "the samples of a batch in its __getitem__, with current_rng()"
            )
        super().__init__(source_split)
        if plan.is_stream:
            raise TypeError(f"{name} is read in an order of its own, which is shuffled already: leave .shuffle() out")
        self.seed  # noqa: B018  # a missing seed is drawn now, so that workers do not each draw their own

    def _plan(self) -> Plan:
        return plan_of(self.source_split).shuffled(self._own_seed)

    def subsample(self, nb_samples: int) -> Sequence:
        return SequenceShuffle(self.source_split.subsample(nb_samples), seed=self._own_seed)

    def subsample_uids(self, uids: Any, uids_name: str, new_sampler: Any = None) -> Sequence:
        return SequenceShuffle(self.source_split.subsample_uids(uids, uids_name, new_sampler), seed=self._own_seed)
