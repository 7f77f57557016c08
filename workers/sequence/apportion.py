"""Schedules turns among several parts by weight, e.g. the sources of a mix; none is ever a whole turn off its share."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

_MOST_TURNS = 1_000_000  # in a period; weights that need a longer period are rounded to a millionth of their sum


class Turns:
    """A periodic schedule that gives each place (0, 1, 2, ...) to one of several parts, in proportion to their weights.

    After any ``k`` places, each part is less than one turn off its share of the ``k`` turns.

    Args:
        weights: the weight of each part, an integer or float > 0. A float counts as printed: 0.1 is exactly 1/10.

    Source: Baruah et al., "Proportionate progress" (1996), for the windows and earliest deadlines; Tijdeman's theorem
    on the chairman assignment problem (1980), which says that no part is a whole turn off at any place.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        counts = _whole(weights)
        self.counts = np.array(counts, np.int64)  # the turns of each part in a period
        self.parts = np.array(_scheduled(counts), np.int16)
        # The number of turns that the part at each place of a period has had before, in the same period.
        order = np.argsort(self.parts, kind="stable")
        first = np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        self.ranks = np.empty(len(order), np.int64)
        self.ranks[order] = np.arange(len(order)) - first

    def at(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return two arrays: the part whose turn it is at each of ``places``, and how many turns it had before."""
        period, within = np.divmod(places, len(self.parts))
        parts = self.parts[within].astype(np.int64)
        return parts, period * self.counts[parts] + self.ranks[within]

    def of(self, place: int) -> tuple[int, int]:
        """Return (the part whose turn it is at ``place``, how many turns that part had before)."""
        period, within = divmod(place, len(self.parts))
        part = int(self.parts[within])
        return part, period * int(self.counts[part]) + int(self.ranks[within])

    def before(self, place: int) -> list[int]:
        """Return a list of how many turns each part has had before ``place``."""
        period, within = divmod(place, len(self.parts))
        counts: list[int] = (
            period * self.counts + np.bincount(self.parts[:within], minlength=len(self.counts))
        ).tolist()
        return counts

    def place_of(self, part: int, turn: int) -> int:
        """Return the place of turn number ``turn`` (from 0) of ``part``."""
        period, rank = divmod(turn, int(self.counts[part]))
        within = int(np.flatnonzero(self.parts == part)[rank])
        return period * len(self.parts) + within


def _whole(weights: Sequence[float]) -> list[int]:
    """Return the smallest integers in proportion to ``weights``; rounded if their sum would exceed ``_MOST_TURNS``."""
    exact = [Fraction(str(float(weight))) for weight in weights]
    scale = math.lcm(*(each.denominator for each in exact))
    counts = [int(each * scale) for each in exact]
    divisor = math.gcd(*counts)
    counts = [count // divisor for count in counts]
    total = sum(counts)
    if total <= _MOST_TURNS:
        return counts
    return [max(1, round(count * _MOST_TURNS / total)) for count in counts]


def _scheduled(counts: list[int]) -> list[int]:
    """Return the part whose turn it is at each place of a period, scheduled by "earliest deadline first".

    If a part has ``c`` of the ``total`` turns, its turn ``j`` (from 0) is allowed from place ``j * total / c`` (rounded
    down) on, and due before place ``(j + 1) * total / c`` (rounded up). Each place gets the allowed turn due first.
    """
    total, waiting = sum(counts), [(0, part, 0) for part in range(len(counts))]
    ready: list[tuple[int, int, int]] = []
    found = []
    for place in range(total):
        while waiting and waiting[0][0] <= place:
            _, part, turn = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(turn + 1) * total // counts[part]), part, turn))
        _, part, turn = heapq.heappop(ready)
        found.append(part)
        if turn + 1 < counts[part]:
            heapq.heappush(waiting, ((turn + 1) * total // counts[part], part, turn + 1))
    return found
