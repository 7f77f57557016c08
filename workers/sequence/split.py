"""``.split()`` divides a sequence into disjoint parts, such as one for training and one for validation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_int, short
from workers.job.task import chain_of

from .apportion import Turns
from .base import plan_of
from .chosen import check_order_is_fixed
from .derived import check_indexed
from .labels import label_array
from .repeat import SequenceRepeat


def split(sequence: Any, share: Any, by: Any, stratify: Any, seed: int) -> list[NDArray[np.int64]]:
    """Return, for each part of ``sequence``, the places of the part's samples: see :meth:`Sequence.split`."""
    shares = _checked_shares(share)
    if by is not None and stratify is not None:
        raise TypeError("give either by=... or stratify=...: groups that stay together cannot be cut by class")
    name = type(sequence).__name__
    check_indexed(name, plan_of(sequence).origin, "split", "split the files or keys that it reads")
    check_order_is_fixed(sequence, "split")
    if any(isinstance(each, SequenceRepeat) for each in chain_of(sequence)):
        raise TypeError("a sample of what is repeated could come in both parts of a split: split before .repeat()")
    length = len(sequence)
    rng = np.random.default_rng(check_int("seed", seed, 0))
    if by is not None:
        which = _by_group(_labels("by", by, sequence, length), shares, rng)
    elif stratify is not None:
        which = _stratified(_labels("stratify", stratify, sequence, length), shares, rng)
    else:
        which = _cut(length, shares, rng)
    parts = [np.flatnonzero(which == part) for part in range(len(shares))]
    for part, places in enumerate(parts):
        if not len(places):
            raise ValueError(
                f"part {part} of the split, a share of {shares[part]:g}, would be empty: {name} has only {length} "
                f"{sequence._item_names[1]}{' in few groups' if by is not None else ''}"
            )
    return parts


def _labels(name: str, labels: Any, sequence: Any, length: int) -> NDArray[Any]:
    found = label_array(name, labels, sequence)
    if len(found) != length:
        raise ValueError(f"{name} has {len(found)} labels for {length} {sequence._item_names[1]}: give one for each")
    return found


def _checked_shares(share: Any) -> NDArray[np.float64]:
    try:
        shares = np.atleast_1d(np.asarray(share, np.float64))
    except (TypeError, ValueError):
        shares = np.zeros(0)
    if shares.ndim != 1 or not len(shares) or not ((shares > 0) & (shares < 1)).all():
        raise ValueError(f"the share must be a number between 0 and 1, such as 0.9, or a list of them: {short(share)}")
    if len(shares) == 1:
        shares = np.array([shares[0], round(1 - shares[0], 12)])
    if abs(shares.sum() - 1) > 1e-6:
        raise ValueError(f"the shares {short(share)} add up to {shares.sum():g}, not to 1")
    return shares


def _cut(length: int, shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return, for each of ``length`` samples, the number of its part, drawn at random with these ``shares``."""
    return rng.permutation(Turns(shares.tolist()).at(np.arange(length))[0])


def _stratified(labels: NDArray[Any], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return, for each sample, the number of its part. The samples of each label are divided by ``shares``."""
    _, numbers = np.unique(labels, return_inverse=True)
    order = rng.permutation(len(labels))
    order = order[np.argsort(numbers[order], kind="stable")]  # label after label, in random order within each
    which = np.empty(len(labels), np.int64)
    which[order] = Turns(shares.tolist()).at(np.arange(len(labels)))[0]
    return which


def _by_group(groups: NDArray[Any], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return, for each sample, the number of its part. All samples of a group are in the same part.

    Each group, the largest first, goes to the part that is then missing the most samples.
    """
    _, numbers, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order], kind="stable")]
    lacks, part_of = shares * len(groups), np.empty(len(counts), np.int64)
    for group in order.tolist():
        part = int(lacks.argmax())
        part_of[group], lacks[part] = part, lacks[part] - counts[group]
    return part_of[numbers]
