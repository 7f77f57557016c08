"""Formats numbers for people: durations, sizes, percentages and counts."""

from __future__ import annotations


def seconds(value: float) -> str:
    """Format a duration in seconds, with its unit: ``2.1 s``, ``21 ms``, ``450 us``."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= 0.9995 * scale:
            return f"{_three(value / scale)} {unit}"
    return f"{_three(value * 1e9)} ns" if value else "0 s"


def nbytes(value: float) -> str:
    """Format a number of bytes as a size, with its unit: ``38.5 MB``, ``4.1 KB``, ``12 bytes``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if value >= 0.9995 * scale:
            return f"{_three(value / scale)} {unit}"
    return f"{value:.0f} bytes"


def share(value: float) -> str:
    """Format a fraction (0 to 1) as a percentage: ``37 %``, ``0.4 %``."""
    percent = 100 * value
    return f"{percent:.1f} %" if 0.05 <= percent < 9.95 else f"{percent:.0f} %"


def count(number: float, one: str, many: str | None = None) -> str:
    """Format a number with its noun, singular or plural: ``1 worker``, ``6 workers``.

    ``many`` is the plural; by default, ``one`` with an s.
    """
    return f"{number:,.0f} {one if number == 1 else many or one + 's'}"


def rate(value: float) -> str:
    """Format how many come in a second: ``13,730``, ``52``, ``0.4``."""
    return _three(value)


def _three(value: float) -> str:
    """Format a number with three significant digits: 38.5, 1,200, 0.4."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
