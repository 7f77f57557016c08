"""Shuffled draws as a pure function of their number, whatever was drawn before, in memory that has a bound.

``Draws(n, k)`` are batches of k out of an endless series of permutations: *cycle* c, the draws c*n to
(c+1)*n - 1, has the key (key, c). A batch that begins in one cycle and ends in the next could hold an element
twice. So the first k elements of the next cycle are reordered: those that the batch has already go behind
the others. Nothing else ever moves::

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

#: Up to here too, if the cycle is kept for the batches to come: 5 ms for 2**17 elements, 2.5 us for each 64 of them.
KEPT_UP_TO = 2**17


class Draws:
    """Batches of k from 0 .. n-1: nothing comes again before all came, and never twice in a batch.

    A pure function of (n, k, key, first, number of the batch), for any order of asking and from any thread. O(k), but
    that up to ``sorted_up_to`` elements a cycle is shuffled as a whole and kept for the batches to come. Only where n <
    2k a batch may hang on the cycles before it, up to k of them; asked for in ascending order it is O(k) there too.

    Args:
        n: how many elements there are, 1 to 2**63 - 1.
        k: how many a batch takes, 1 to n.
        key: integers, such as a seed. Each key has a series of its own.
        first: elements, all different, that are drawn before the first cycle begins, at most n.
        kept: how many cycles to keep, where they are shuffled as a whole.
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
        # (cycle, its first k draws) of the last one reordered. One object, replaced as a whole: threads may
        # at worst compute the same twice.
        self._last: tuple[int, NDArray[np.int64]] | None = None
        self._cycles: dict[int, NDArray[np.int64]] = {}  # whole ones, reordered

    def __reduce__(self) -> tuple[Any, ...]:
        options = self._first if self._num_first else (), self.kept, self._permutation.sorted_up_to
        return _draws, (self.n, self.k, self.key, *options)

    def batch(self, number: int) -> NDArray[np.int64]:
        """The draws of batch ``number``.

        Args:
            number: >= 0, counted through all epochs.

        Returns:
            int64 (k,), all different.
        """
        drawn: NDArray[np.int64] = self.view(number).copy()
        return drawn

    def view(self, number: int) -> NDArray[np.int64]:
        """As :meth:`batch`, but perhaps a view of what is kept: not to be written to."""
        cycle, start = divmod(number * self.k - self._num_first, self.n)
        stop = start + self.k
        if stop <= self.n:  # a whole batch within a reordered head would have begun with it
            whole = self._cycles.get(cycle)
            return self._drawn(cycle, start, stop) if whole is None else whole[start:stop]
        return np.concatenate((self._drawn(cycle, start, self.n), self._drawn(cycle + 1, 0, stop - self.n)))

    def cycle_of(self, number: int) -> tuple[int, int]:
        """(the cycle in which batch ``number`` begins, how many of its draws are from that one); ``first`` is -1."""
        cycle, start = divmod(number * self.k - self._num_first, self.n)
        return cycle, min(self.k, self.n - start)

    def run(self, start: int, stop: int) -> NDArray[np.int64]:
        """The draws ``start`` to ``stop`` - 1, counted through all batches."""
        parts, at = [], start - self._num_first
        stop -= len(self._first)
        while at < stop:
            cycle, within = divmod(at, self.n)
            end = min(self.n, within + stop - at)
            parts.append(self._drawn(cycle, within, end))
            at += end - within
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _drawn(self, cycle: int, start: int, stop: int) -> NDArray[np.int64]:
        """The draws from ``start`` up to ``stop`` of a cycle; perhaps a view of what is kept."""
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
            self._cycles.pop(old, None)  # another thread may have
        return whole

    def _permuted(self, cycle: int, start: int, stop: int) -> NDArray[np.int64]:
        """The same before any reordering."""
        if cycle < 0:
            before = self.n - self._num_first
            return self._first[start - before : stop - before]
        if start >= self.k and cycle in self._cycles:
            return self._cycles[cycle][start:stop]
        return self._permutation(np.arange(start, stop, dtype=np.uint64), (*self.key, cycle))

    def _num_before(self, cycle: int) -> int:
        """How many draws of the cycle before are in the batch in which this cycle begins."""
        return (cycle * self.n + self._num_first) % self.k if cycle >= 0 else 0

    def _head(self, cycle: int, permuted: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The first k draws of a cycle; ``permuted``: before reordering, if they are known."""
        last = self._last
        # Where n < 2k, the end of a cycle can lie within its own reordered part: then go back to one that
        # does not hang on the one before, and come forward again.
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
        """The first k draws of a cycle, given those of the cycle before where its end lies within them."""
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
    """How many cycles to keep of each of the series that draw from n elements in all: 8 MB, or two cycles."""
    return max(2, 2**20 // n)


def _draws(n: int, k: int, key: tuple[int, ...], first: Any, kept: int, sorted_up_to: int) -> Draws:
    return Draws(n, k, *key, first=first, kept=kept, sorted_up_to=sorted_up_to)
