"""Words beside marks: as many as there is room for, so that none lies over another."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

SIZE = 8.5  # of the letters, in points
_LETTER = 0.085  # inches: what a letter of this size takes, generously
_MARGIN = 0.2  # inches, for the mark


class Place(NamedTuple):
    """Where words go: in a row, from the mark to the right or to the left."""

    row: Hashable
    is_right: bool

    @property
    def align(self) -> str:
        """As matplotlib calls it: where the mark is."""
        return "left" if self.is_right else "right"


class TextRoom:
    """Rows beside each other that fill with words.

    Args:
        inches: how wide each of them is.
    """

    def __init__(self, inches: float) -> None:
        self._inches = inches
        self._taken: dict[Hashable, list[tuple[float, float]]] = {}  # {row: parts in inches}

    def take(self, text: str, share: float, rows: Iterable[Hashable]) -> Place | None:
        """Take the place for ``text`` in the first of ``rows`` that has it; None: no row has.

        Args:
            text: one line.
            share: where its mark is, 0 to 1 of the width.
            rows: where it may go.
        """
        at, needed = share * self._inches, len(text) * _LETTER + _MARGIN
        is_right = at + needed <= self._inches
        start, end = (at, at + needed) if is_right else (at - needed, at)
        for row in rows:
            taken = self._taken.setdefault(row, [])
            if all(end <= other_start or other_end <= start for other_start, other_end in taken):
                taken.append((start, end))
                return Place(row, is_right)
        return None


def shortened(text: str, most: int) -> str:
    """One line of at most so many letters."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
