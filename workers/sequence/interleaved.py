"""``Interleaved``: reads several items of a source at once, for ``sequence.interleave(function, cycle_length)``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from workers.checks import check_callable, check_int

if TYPE_CHECKING:
    from .base import Sequence
    from .chain import Chain

_END = object()


class Interleaved:
    """A function of several items of a source, which yields what ``function`` makes of each of them, in turn.

    Args:
        function: makes an iterable of each item.
        block_length: how many items are taken from an iterable before it is the turn of the next one.
    """

    def __init__(self, function: Callable[[Any], Iterable[Any]], block_length: int = 1) -> None:
        self.function = check_callable("function", function)
        self.block_length = check_int("block_length", block_length, 1)

    def __call__(self, items: tuple[Any, ...]) -> Iterator[Any]:
        opened = deque(iter(self.function(item)) for item in items)
        while opened:
            iterator = opened.popleft()
            for _ in range(self.block_length):
                item = next(iterator, _END)
                if item is _END:
                    break
                yield item
            else:
                opened.append(iterator)


def interleaved(sequence: Chain[Any], function: Any, cycle_length: int, block_length: int) -> Sequence[Any]:
    """Return the sequence that :meth:`Sequence.interleave` makes."""
    check_int("cycle_length", cycle_length, 1)
    made: Sequence[Any] = sequence.batch(cycle_length, collate_fn=tuple).map(Interleaved(function, block_length))
    return made
