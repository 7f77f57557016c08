"""``mix`` takes batches from several sequences in turn, in proportion to their weights."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as ListOf
from typing import Any, Literal, NamedTuple

import numpy as np

from workers.checks import check_int, short
from workers.frameworks.keras import ENDLESS

from .apportion import Turns
from .base import Sequence
from .chosen import check_nothing_is_drawn
from .of_epoch import of_epoch
from .parts import SequenceOfParts


class _MixOfEpoch(NamedTuple):
    """The values that all jobs of a mix share in one epoch.

    Attributes:
        length: the number of batches of the mix.
        used: the numbers of the sources that are read, i.e. are not empty and have a weight above 0.
        turns: which of the used sources each batch of the mix comes from; None if no source is used.
        lengths: the number of batches of each source.
        counts: how many batches of the mix come from each used source.
    """

    length: int
    used: list[int]
    turns: Any
    lengths: list[int]
    counts: list[int]


class SequenceMix(SequenceOfParts):
    """The batches of several sequences, taken in turn in proportion to their weights: see :func:`workers.mix`."""

    _changes_order = True

    def __init__(self, sources: Any, weights: Any, until: Any, seed: int | None) -> None:
        self.until = until if until in ("longest", "shortest") else check_int("until", until, 1, _UNTIL)
        names = list(sources) if isinstance(sources, Mapping) else None
        super().__init__(sources, seed)
        for part in self.parts:
            check_nothing_is_drawn(part, "mixed", "mix before it")
        self._weights = _checked_weights(weights, names, len(self.parts))
        self._turns: tuple[list[int], Turns] | None = None  # the last (sources used, their turns)
        if self._is_length_at_hand() and not len(self):
            raise ValueError("the sources of a mix, or those with a weight, are empty: a loop over it would do nothing")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._of_epoch().length

    def _of_epoch(self) -> _MixOfEpoch:
        lengths = self._lengths()
        used = [part for part, length in enumerate(lengths) if length and self._weights[part]]
        if not used:
            return _MixOfEpoch(0, [], None, lengths, [])
        if self._turns is None or self._turns[0] != used:
            self._turns = used, Turns([self._weights[part] for part in used])
        turns = self._turns[1]
        if self.until == "longest":
            length = max(turns.place_of(at, lengths[part] - 1) + 1 for at, part in enumerate(used))
        elif self.until == "shortest":
            length = min(turns.place_of(at, lengths[part]) for at, part in enumerate(used))
        else:
            length = self.until
        length = min(length, ENDLESS)
        return _MixOfEpoch(length, used, turns, lengths, turns.before(length))

    def _turn(self, index: int) -> tuple[int, int, int]:
        _, used, turns, lengths, counts = of_epoch(self, "turns", self._of_epoch)
        at, turn = turns.of(index)
        part = used[at]
        # Each source continues in this epoch where it stopped in the last one.
        epoch, place = divmod(self.epoch * counts[at] + turn, lengths[part])
        return part, epoch, place

    def _arguments(self) -> tuple[Any, ...]:
        return self._weights, self.until


_UNTIL = '"longest", "shortest", or the number of batches in an epoch, an integer >= 1'


def _checked_weights(weights: Any, names: list[Any] | None, number: int) -> list[float]:
    if weights is None:
        return [1] * number
    if isinstance(weights, Mapping):
        if names is None:
            raise TypeError("weights by name need sources by name: give the sources as a dict")
        if set(weights) != set(names):
            raise ValueError(f"weights has the names {list(weights)}, but the sources have {names}")
        weights = [weights[name] for name in names]
    found = np.asarray(weights)
    if found.shape != (number,) or found.dtype.kind not in "biuf":
        raise TypeError(f"weights must be {number} numbers, one for each source, not {short(weights)}")
    if not np.isfinite(found).all() or (found < 0).any() or not found.any():
        raise ValueError(f"weights must be finite numbers >= 0, and not all 0, not {short(weights)}")
    kept: list[float] = found.tolist()
    return kept


def mix(
    sources: ListOf[Any] | Mapping[str, Any],
    weights: ListOf[float] | Mapping[str, float] | None = None,
    until: Literal["longest", "shortest"] | int = "longest",
    *,
    seed: int | None = None,
) -> Sequence[Any]:
    """Return a sequence that takes batches (or samples, before ``.batch()``) from several sources, by ``weights``.

    At any point of an epoch, the number of batches from a source is less than one off its exact share. Each source
    keeps its own order, and continues in the next epoch where it stopped. At its end, a source starts its own next
    epoch, in a new order if it is shuffled. To mix whole batches, mix sources that are batched already.

    Args:
        sources: a list or dict of anything with ``__len__`` and ``__getitem__``. Empty sources are left out.
        weights: one number for each source, or {name: number}; None for equal weights. Only proportions matter; 0
            leaves a source out. Weights with a period of over a million turns are rounded to a millionth of their sum.
        until: when an epoch ends: ``"longest"``, when each source has delivered all of its items at least once;
            ``"shortest"``, before any source would have to start again; or the number of batches, an integer.
        seed: the seed of all random draws, except of shuffles that were given their own; None for the first source's.

    Raises:
        TypeError, ValueError: an argument is wrong, or a source has no indices.

    Source: ``tf.data.Dataset.sample_from_datasets`` for ``sources`` and ``weights``, ``datasets.interleave_datasets``
    for ``until``.

    >>> list(mix([[1, 2, 3, 4], [-1, -2]], weights=[2, 1]))
    [1, 2, -1, 3, 4, -2]
    """
    return SequenceMix(sources, weights, until, seed)
