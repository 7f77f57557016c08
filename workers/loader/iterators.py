"""Makes iterators over a source that has only ``__iter__``, and detects sources that can be read only once.

Such a source is read in the process of the loop. Some sources, such as a generator, cannot begin again: a second pass
would find them empty, so it raises StateError instead.
"""

from __future__ import annotations

import dis
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from workers.errors import StateError
from workers.sequence.batched_iterable import Regrouped
from workers.sequence.clock import defines_hooks

logger = logging.getLogger("workers")

_BUILTIN = frozenset({"builtins", "itertools"})  # generators, zip, map, ...: nothing can reset them


def source_of(source: Any) -> Any:
    """Return the original source, whose items ``source`` may regroup into lists or shuffled windows."""
    while isinstance(source, Regrouped):
        source = source.source
    return source


class Iterators:
    """The record of the last iterator over a source: the epoch that last read it, and how many items were read.

    Some sources are iterators themselves, or return the same iterator from each ``__iter__``. A second pass over such a
    source would get only the items that the first pass left, usually none. So the second pass raises an error, unless
    the source can begin again.
    """

    def __init__(self) -> None:
        self._iterator: Callable[[], Any] = _nothing  # returns it; a weak reference if possible
        self._is_same = False  # True if an earlier pass has read the same iterator
        self._epoch = -1  # the epoch of the last pass that has read an item
        self._num_read = 0  # how many items, or chunks of items, that pass has read
        self._is_at_end = False  # True if it found no more items after them

    def __reduce__(self) -> Any:
        return Iterators, ()

    def begin(self, source: Any, epoch: int, seed: int, first: int = 0) -> tuple[Iterator[Any], int]:
        """Return (an iterator over ``source`` for a pass over ``epoch``, the index of its first item), and record it.

        Args:
            epoch, seed: those of the loop that reads.
            first: the index of the first item that is needed. A source that can begin there does; others begin at 0.

        Raises:
            StateError: the source was read before, and cannot begin again. Any error of ``__iter__``.
        """
        if isinstance(source, Regrouped):
            wanted = source.first_item(first)
            items, start = self.begin(source.source, epoch, seed, wanted)
            return source.of(items, epoch, seed), first if wanted and start == wanted else 0
        begins_anywhere = hasattr(type(source), "begin_at")
        iterator: Iterator[Any] = source.begin_at(first, epoch, seed) if begins_anywhere else iter(source)
        is_same = iterator is self._iterator() and self._num_read > 0
        if is_same and not (self._is_at_end or _can_begin_again(source, iterator, self._epoch != epoch)):
            raise self._error(f"the loop of epoch {self._epoch} has read from it")
        self._iterator, self._is_same = _reference(iterator), is_same
        return iterator, first if begins_anywhere else 0

    def release(self) -> None:
        """Release the iterator, because it will not be read again."""
        if not isinstance(self._iterator, weakref.ref):
            self._iterator = _nothing

    def read(self, number: int, epoch: int) -> None:
        """Record that the current pass, over ``epoch``, has read ``number`` items so far."""
        self._num_read, self._epoch, self._is_at_end = number, epoch, False

    def failed(self) -> None:
        """Record that the iterator has raised an error. It counts as ended, as most yield nothing after an error."""
        self._is_at_end = True

    def end(self, num_read: int) -> None:
        """Record that the iterator has ended, after the current pass has read ``num_read`` items.

        If this pass has read no items, but an earlier pass has, the source may be used up: raise or log a warning.

        Raises:
            StateError: an earlier pass has read this same iterator to its end.
        """
        if num_read or not self._num_read:
            self._is_at_end = True
        elif self._is_same:
            raise self._error(f"the loop of epoch {self._epoch} has read it to its end")
        else:
            logger.warning(
                "an epoch is empty: the source yielded nothing, after %d items in epoch %d. If its __iter__ reads an "
                "iterator that it holds (a generator, zip, an open file), it must make a new one each time",
                self._num_read,
                self._epoch,
            )

    def _error(self, why: str) -> StateError:
        return StateError(
            f"{type(self._iterator()).__name__} is an iterator, which cannot begin again, and {why}: give a factory, "
            "an object whose __iter__ makes a new iterator each time"
        )


def _nothing() -> None:
    """Return None, as a weak reference to a freed object does, to say that there is no iterator."""


def _reference(iterator: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(iterator)
    except TypeError:  # e.g. zip
        return lambda: iterator


def _can_begin_again(source: Any, iterator: Any, hooks_were_called: bool) -> bool:
    """Return True if ``iterator``, which was read before, may have been reset to its first item.

    ``iter(source)`` may have reset it or, if ``hooks_were_called``, an ``on_epoch_begin`` or ``on_epoch_end`` method.
    """
    if type(iterator).__module__ in _BUILTIN:
        return False
    if hooks_were_called and defines_hooks(source):
        return True
    code = getattr(type(source).__iter__, "__code__", None)
    if code is None:  # written in C, such as an open file or a csv.reader
        return iterator is not source
    return any(each.opname.startswith(("CALL", "STORE")) for each in dis.get_instructions(code))
