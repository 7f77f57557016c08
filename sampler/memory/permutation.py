"""Shuffled draws without repetition, as a pure function of their number, in bounded memory.

``Draws(n, k)`` are batches of k from an endless series of permutations: *cycle* c, the draws c*n to (c+1)*n - 1, is
a permutation of all n elements, shuffled by the key (key, c). A batch that starts in one cycle and ends in the next
could contain an element twice. So the first k elements of the next cycle are reordered: those already in the batch move
after the others. Nothing else moves::

    cycle c      ... . . . . . x y z |                     the batch takes x y z and then 4 more
    cycle c + 1                      | p y q r z s t ...   the permutation
                                     | p q r s t y z ...   after reordering; here k = 7
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.job.permutation import Permutation

#: Up to this n, it pays to shuffle a whole cycle and keep it: 5 ms for 2**17 elements, or 2.5 us for 64 of them.
KEPT_UP_TO = 2**17


class Draws:
    """Random batches of k from 0 .. n-1: none comes again before all have come, and none is twice in a batch.

    A batch is a pure function of (n, k, key, first, its number), in any order of calls and from any thread. It takes
    O(k), except that up to ``sorted_up_to`` elements, a cycle (permutation) is shuffled as a whole and kept. If n < 2k,
    a batch may depend on up to k previous cycles; in ascending order, it takes O(k) all the same.

    Args:
        n: the number of elements, 1 to 2**63 - 1.
        k: the number of draws in a batch, 1 to n.
        key: integers, such as a seed. Each key has its own series.
        first: at most n elements, all different, that are drawn before the first cycle.
        kept: how many cycles to keep if they are shuffled as a whole.
        sorted_up_to: as for :class:`Permutation`.

    Example:
        >>> draws = Draws(5, 3, 7)
        >>> [draws.batch(number).tolist() for number in range(4)]
        [[3, 1, 0], [2, 4, 3], [4, 2, 1], [0, 2, 4]]
    """

    def __init__(
        self,
        n: int,
        k: int,
        *key: int,
        first: Sequence[int] | NDArray[Any] = (),
        kept: int = 4,
        sorted_up_to: int = KEPT_UP_TO,
    ) -> None:
        if not 1 <= k <= n:
            raise ValueError(f"k must be 1 to n = {n}, not {k}")
        self.n = n
        self.k = k
        self.key = tuple(map(int, key))
        self.kept = kept
        self._first = np.asarray(first, np.int64)
        self._num_first = len(self._first)
        self._permutation = Permutation(n, sorted_up_to)
        # (cycle, its first k draws) of the last cycle that was reordered. One tuple, replaced as a whole: at worst, two
        # threads compute the same.
        self._last: tuple[int, NDArray[np.int64]] | None = None
        self._cycles: dict[int, NDArray[np.int64]] = {}  # {cycle: all its draws, reordered}, e.g. {7: array([2, 0, 1])}

    def __reduce__(self) -> tuple[Any, ...]:
        options = self._first if self._num_first else (), self.kept, self._permutation.sorted_up_to
        return _draws, (self.n, self.k, self.key, *options)

    def batch(self, number: int) -> NDArray[np.int64]:
        """Return the k numbers, from 0 .. n-1, that are drawn for batch ``number``.

        Args:
            number: 0 or more, counted through all epochs.

        Returns:
            int64 (k,), all different.
        """
        drawn: NDArray[np.int64] = self.view(number).copy()
        return drawn

    def view(self, number: int) -> NDArray[np.int64]:
        """Return the k draws of batch ``number``, maybe as a view of a kept array, which must not be written to."""
        cycle, start = divmod(number * self.k - self._num_first, self.n)
        stop = start + self.k
        if stop <= self.n:
            whole = self._cycles.get(cycle)
            return self._drawn(cycle, start, stop) if whole is None else whole[start:stop]
        return np.concatenate((self._drawn(cycle, start, self.n), self._drawn(cycle + 1, 0, stop - self.n)))

    def cycle_of(self, number: int) -> tuple[int, int]:
        """Return (the cycle in which batch ``number`` starts, how many of its draws are in this cycle).

        A cycle is a permutation of all elements; the draws in ``first`` are cycle -1.
        """
        cycle, start = divmod(number * self.k - self._num_first, self.n)
        return cycle, min(self.k, self.n - start)

    def run(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return draws ``start`` to ``stop`` - 1 of the endless series, in which the batches follow one another."""
        parts, at = [], start - self._num_first
        stop -= len(self._first)
        while at < stop:
            cycle, within = divmod(at, self.n)
            end = min(self.n, within + stop - at)
            parts.append(self._drawn(cycle, within, end))
            at += end - within
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _drawn(self, cycle: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return draws ``start`` to ``stop`` - 1 of a cycle (permutation of all elements), maybe as a view."""
        if self._permutation.is_sorted and cycle >= 0:
            whole = self._cycles.get(cycle)
            if whole is None:
                whole = self._whole(cycle)
            return whole[start:stop]
        if start >= self.k or self._num_before(cycle) == 0:
            return self._permuted(cycle, start, stop)
        head = self._head(cycle)
        if stop <= self.k:
            return head[start:stop]
        return np.concatenate((head[start:], self._permuted(cycle, self.k, stop)))

    def _whole(self, cycle: int) -> NDArray[np.int64]:
        whole = self._permutation.shuffled((*self.key, cycle))
        if self._num_before(cycle):
            whole[: self.k] = self._head(cycle, whole[: self.k])
        self._cycles[cycle] = whole
        for old in list(self._cycles)[: -self.kept]:
            self._cycles.pop(old, None)  # another thread may have removed it
        return whole

    def _permuted(self, cycle: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return draws ``start`` to ``stop`` - 1 of a cycle (a permutation of all elements), before it is reordered."""
        if cycle < 0:
            before = self.n - self._num_first
            return self._first[start - before : stop - before]
        if start >= self.k and cycle in self._cycles:
            return self._cycles[cycle][start:stop]
        return self._permutation(np.arange(start, stop, dtype=np.uint64), (*self.key, cycle))

    def _num_before(self, cycle: int) -> int:
        """Return how many draws of the previous cycle (permutation) are in the batch in which this cycle starts."""
        return (cycle * self.n + self._num_first) % self.k if cycle >= 0 else 0

    def _head(self, cycle: int, permuted: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return the first k draws of a cycle (permutation), reordered so that no batch has an element twice.

        ``permuted``: these draws before reordering, if known.
        """
        last = self._last
        # If n < 2k, the end of a cycle can lie within its reordered part. Then go back to a cycle that does not depend
        # on the previous one, and come forward again.
        first = cycle
        while first > 0 and not (last and last[0] == first) and self._num_before(first) > self.n - self.k:
            first -= 1
        head = (
            last[1] if last and last[0] == first else self._reordered(first, None, permuted if first == cycle else None)
        )
        for following in range(first + 1, cycle + 1):
            head = self._reordered(following, head, permuted if following == cycle else None)
        self._last = cycle, head
        return head

    def _reordered(
        self, cycle: int, head_before: NDArray[np.int64] | None, permuted: NDArray[np.int64] | None
    ) -> NDArray[np.int64]:
        """Return the first k draws of a cycle (permutation), those last that the batch across its start already has.

        ``head_before``: the first k draws of the previous cycle, if some are in that batch. ``permuted``: the draws to
        reorder, if known.
        """
        head = self._permuted(cycle, 0, self.k) if permuted is None else permuted
        num_before = self._num_before(cycle)
        if num_before == 0:
            return head
        start = self.n - num_before
        if head_before is None:
            before = self._permuted(cycle - 1, start, self.n)
        else:
            before = np.concatenate((head_before[start:], self._permuted(cycle - 1, self.k, self.n)))
        before = np.sort(before)
        drawn = before.take(before.searchsorted(head), mode="clip") == head  # np.isin takes 60 us
        return np.concatenate((head[~drawn], head[drawn]))


def num_kept(n: int) -> int:
    """Return how many cycles (permutations) each series keeps if all draw from n elements in all: 8 MB, or two."""
    return max(2, 2**20 // n)


def _draws(n: int, k: int, key: tuple[int, ...], first: Any, kept: int, sorted_up_to: int) -> Draws:
    return Draws(n, k, *key, first=first, kept=kept, sorted_up_to=sorted_up_to)
