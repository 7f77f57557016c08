"""Places text labels beside marks in a picture, as far as there is room, so that no two overlap."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

SIZE = 8.5  # of the letters, in points
_LETTER = 0.085  # generous width of a letter, in inches
_MARGIN = 0.2  # inches, for the mark


class Place(NamedTuple):
    """Where to write a label: in which row, and whether to the right or to the left of its mark."""

    row: Hashable
    is_right: bool

    @property
    def align(self) -> str:
        """The horizontal alignment of a label, as matplotlib names it: the side on which its mark is."""
        return "left" if self.is_right else "right"


class TextRoom:
    """Rows of a picture in which labels take places, so that no two overlap.

    Args:
        inches: the width of each row.
    """

    def __init__(self, inches: float) -> None:
        self._inches = inches
        self._taken: dict[Hashable, list[tuple[float, float]]] = {}  # {row: [(start, end)]} in inches

    def take(self, text: str, share: float, rows: Iterable[Hashable]) -> Place | None:
        """Reserve a place for the label ``text`` in the first of ``rows`` with room for it; return None if none has.

        Args:
            text: one line.
            share: position of the mark that it labels, 0 to 1 of the width.
            rows: the rows to try.
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
    """Return ``text`` as one line of at most ``most`` characters, ended by "…" if it was longer."""
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 1] + "…"
