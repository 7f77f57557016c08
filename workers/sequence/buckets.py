"""``SequenceBuckets``: batches of samples of similar length, so that padding wastes little."""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_bool, check_function, check_int, short
from workers.job.permutation import permutation

from .counting import answers_of
from .derived import check_one_each, source_length
from .display import DisplayedFact, named
from .epochs import seed_of_orders
from .groups import Groups, SequenceGroups

_OF_BUCKETS = 3  # part of the key of the random orders: other methods, such as shuffle, have other numbers
_WINDOW = 100  # batches in a window by default


class SequenceBuckets(SequenceGroups):
    """Batches of samples of similar length: see :meth:`Sequence.bucket`."""

    _is_drawn = _changes_order = _has_bounds = True

    def __init__(
        self,
        source_split: Any,
        lengths: Any,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        window: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        shuffle: bool = True,
    ) -> None:
        if batch_size is None and max_tokens is None:
            raise TypeError("bucket needs batch_size=..., max_tokens=..., or both")
        self.batch_size = None if batch_size is None else check_int("batch_size", batch_size, 1)
        self.max_tokens = None if max_tokens is None else check_int("max_tokens", max_tokens, 1)
        self.window = None if window is None else check_int("window", window, 1)
        self.shuffle_batches = check_bool("shuffle", shuffle)
        super().__init__(source_split, "put into buckets", check_function("collate_fn", collate_fn))
        if callable(lengths):
            lengths = answers_of(source_split, lengths, "put into buckets", "lengths")
        self._lengths = _checked(lengths)
        self._check_number(source_length(self))

    def _check_number(self, length: int) -> None:
        check_one_each("lengths", len(self._lengths), length, "samples", self.source_split)

    def _choice(self) -> Groups:
        return self._drawn(self._draw, None)  # type: ignore[no-any-return]

    def _draw(self) -> Groups:
        number = source_length(self)
        self._check_number(number)
        key = seed_of_orders(self, self._plan()), self.epoch, _OF_BUCKETS
        places = np.arange(number)
        if self.shuffle_batches and number:
            places = permutation(number)(places.astype(np.uint64), key)
        window = self._window()
        # Sort by (window, length): within each window, the shortest samples come first.
        places = places[_sorted(self._lengths[places], window)]
        ends = _ends(self._lengths[places], window, self.batch_size, self.max_tokens)
        sizes = np.diff(ends, prepend=0)
        if not (self.shuffle_batches and len(sizes)):
            return Groups(places, sizes)
        order = permutation(len(sizes))(np.arange(len(sizes), dtype=np.uint64), (*key, 1))
        starts, sizes = (ends - sizes)[order], sizes[order]
        within = np.arange(number) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return Groups(places[np.repeat(starts, sizes) + within], sizes)

    def _window(self) -> int:
        """Return how many samples are sorted together; with ``batch_size``, rounded up to whole batches."""
        size = self.batch_size
        if size is None:
            mean = max(1.0, float(self._lengths.mean())) if len(self._lengths) else 1.0
            size = max(1, int(self.max_tokens / mean)) if self.max_tokens is not None else 1
        window = self.window or _WINDOW * size
        return window if self.batch_size is None else -(-window // size) * size

    def _arguments(self) -> tuple[Any, ...]:
        return self.batch_size, self.max_tokens, self.window, self.shuffle_batches

    def _own_facts(self) -> Iterable[DisplayedFact]:
        if self.batch_size is not None:
            yield named("batch size", self.batch_size)
        if self.max_tokens is not None:
            yield named("max tokens", f"{self.max_tokens:,}")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lengths": None}  # not needed in workers: the user's process draws the batches


def _ends(lengths: NDArray[np.int64], window: int, batch_size: int | None, max_tokens: int | None) -> NDArray[np.int64]:
    """Return the index after each batch's last sample, for ``lengths`` that are sorted within each window.

    A batch ends where its window ends, when it has ``batch_size`` samples, or before its padded size would exceed
    ``max_tokens``. A sample longer than ``max_tokens`` is a batch of its own.
    """
    number, ends = len(lengths), []
    if max_tokens is None:
        assert batch_size is not None
        found = np.concatenate([np.arange(batch_size, number, batch_size), np.arange(window, number, window), [number]])
        return np.unique(found[found > 0]).astype(np.int64)
    most = number if batch_size is None else batch_size
    for first in range(0, number, window):
        part: list[int] = lengths[first : first + window].tolist()
        start = 0
        while start < len(part):
            # The first sample is the shortest, so the batch has at most as many samples as fit if all are as short.
            fits = min(most, len(part) - start, max(1, max_tokens // max(part[start], 1)))
            padded = functools.partial(_padded, part, start)
            start += max(1, bisect.bisect_right(range(1, fits + 1), max_tokens, key=padded))
            ends.append(first + start)
    return np.array(ends, np.int64)


def _padded(lengths: list[int], start: int, size: int) -> int:
    """Return the padded size of a batch of ``size`` samples, of these ascending ``lengths`` from ``start`` on."""
    return lengths[start + size - 1] * size


def _sorted(lengths: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """Return the places of ``lengths`` that sort each window of them, those of equal length in their order."""
    keys = lengths.astype(np.uint16) if len(lengths) and lengths.max() < 2**16 else lengths  # a radix sort of 16 bits
    whole = len(keys) // window * window
    within = keys[:whole].reshape(-1, window).argsort(axis=1, kind="stable")
    within += np.arange(0, whole, window)[:, None]
    return np.concatenate([within.ravel(), whole + keys[whole:].argsort(kind="stable")])


def _checked(lengths: Any) -> NDArray[np.int64]:
    found = np.asarray(lengths)
    if found.ndim != 1 or not (found.dtype.kind in "iu" or not found.size):
        raise TypeError(
            f"lengths must be integers, one for each sample, or a function of a sample that returns one, not "
            f"{short(lengths)}"
        )
    wrong = np.flatnonzero(found < 0)
    if len(wrong):
        raise ValueError(f"lengths must be >= 0, but number {wrong[0]} is {found[wrong[0]]}")
    return found.astype(np.int64)
