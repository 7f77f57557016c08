"""Iterators of a source that is read here: one that cannot begin again is read once, and says so the second time."""

from __future__ import annotations

import dis
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from workers.errors import StateError
from workers.sequence.batched_stream import Chunks
from workers.sequence.clock import defines_hooks

logger = logging.getLogger("workers")

_BUILTIN = frozenset({"builtins", "itertools"})  # generators, zip, map, ...: nobody can set them back


def source_of(source: Any) -> Any:
    """What is read for ``source``, which may be chunks of it."""
    while isinstance(source, Chunks):
        source = source.source
    return source


class Iterators:
    """What is known of the last iterator over a source.

    Some sources are iterators themselves, or return one and the same from each ``__iter__``. A second pass over such a
    source would get what the first one has left, most often nothing. So it raises, unless the source can begin again.
    """

    def __init__(self) -> None:
        self._iterator: Callable[[], Any] = _nothing  # over the source, without chunks; held weakly where it can be
        self._is_same = False  # it is that of an earlier pass
        self._epoch = -1  # of the last pass that has read something
        self._num_read = 0  # items, or chunks, that this pass has read
        self._is_at_end = False  # these were all

    def __reduce__(self) -> Any:
        return Iterators, ()

    def begin(self, source: Any, epoch: int) -> Iterator[Any]:
        """An iterator over ``source`` for a new pass.

        Raises:
            StateError: it cannot begin again. What ``__iter__`` raises.
        """
        if isinstance(source, Chunks):
            return source.of(self.begin(source.source, epoch))
        iterator: Iterator[Any] = iter(source)
        is_same = iterator is self._iterator() and self._num_read > 0
        if is_same and not (self._is_at_end or _can_begin_again(source, iterator, self._epoch != epoch)):
            raise self._error(f"the loop of epoch {self._epoch} has read from it")
        self._iterator, self._is_same = _reference(iterator), is_same
        return iterator

    def release(self) -> None:
        """Let go of the iterator, of which no more is read."""
        if not isinstance(self._iterator, weakref.ref):
            self._iterator = _nothing

    def read(self, number: int, epoch: int) -> None:
        """The current pass has read an item, the ``number``-th, from 1."""
        self._num_read, self._epoch, self._is_at_end = number, epoch, False

    def failed(self) -> None:
        """The iterator has raised, which is the end of most."""
        self._is_at_end = True

    def end(self, num_read: int) -> None:
        """The current pass is at the end, and has read ``num_read`` items.

        Raises:
            StateError: none, since an earlier pass has read all of its iterator.
        """
        if num_read or not self._num_read:
            self._is_at_end = True
        elif self._is_same:
            raise self._error(f"the loop of epoch {self._epoch} has read it to its end")
        else:
            logger.warning(
                "an epoch is empty: the source gives nothing now, and gave %d items in epoch %d. If its __iter__ reads "
                "an iterator that it holds (a generator, zip, an open file), it must make a new one each time",
                self._num_read,
                self._epoch,
            )

    def _error(self, why: str) -> StateError:
        return StateError(
            f"{type(self._iterator()).__name__} is an iterator, which cannot begin again, and {why}: give a factory, "
            "that is an object whose __iter__ makes a new iterator each time"
        )


def _nothing() -> None:
    """Stands for no iterator."""


def _reference(iterator: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(iterator)
    except TypeError:  # such as zip
        return lambda: iterator


def _can_begin_again(source: Any, iterator: Any, hooks_were_called: bool) -> bool:
    """Whether ``iter(source)``, or a hook of it, may have set ``iterator`` back to its first item."""
    if type(iterator).__module__ in _BUILTIN:
        return False
    if hooks_were_called and defines_hooks(source):
        return True
    code = getattr(type(source).__iter__, "__code__", None)
    if code is None:  # of C code, such as an open file, a csv.reader
        return iterator is not source
    return any(each.opname.startswith(("CALL", "STORE")) for each in dis.get_instructions(code))
