"""Sends the items of a stream (an iterable read in the consumer) to the workers, in reusable slots of shared memory.

An item is copied into a slot when it is read, since its source may reuse the memory. It is copied out when its job
begins, so that the job may write to it, and a retry of the job finds it unchanged. Any worker may get any item, so a
slot is announced to a worker together with the first item that the worker gets from it. A slot is free again once no
job can need its item any more. If a job was given to a second worker, the first one may still read the slot after that;
its result is dropped.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections import deque
from typing import Any, NamedTuple

import numpy as np

from workers.batch import shared_memory
from workers.batch.label import check_label, words_of
from workers.batch.slot_reader import KnownLayout, put_together
from workers.batch.slot_writer import SlotWriter
from workers.batch.slots import SMALL_NBYTES, Placed, Rest
from workers.batch.tree import copy_of, digest_of, dumps, flatten

from .replica import Pickled

_MAX_LAYOUTS = 256


class PlacedItem(NamedTuple):
    """The place of a stream item in shared memory: PlacedItem(number=31, layout=b"<layout>", slot=5, rest=None)."""

    number: int  # of the item, in its label
    layout: bytes  # a pickled Layout
    slot: int
    rest: Rest  # everything in the item but its arrays


class SentItem:
    """A handle to a stream item that was copied into a slot (a piece of shared memory).

    The engine holds the handle while a job may need the item. When the handle is garbage collected, the slot is free.
    """

    __slots__ = ("__weakref__", "message")

    def __init__(self, message: PlacedItem) -> None:
        self.message = message


class _Reference(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("slot",)
    slot: int


class ItemSlots:
    """The slots (pieces of shared memory) in which the consumer sends stream items to its workers.

    Runs in: the consumer's thread for :meth:`ship`, the engine's thread for all else.
    """

    def __init__(self) -> None:
        self._writer = SlotWriter(max_slots=1)  # so that each item costs only one descriptor
        self._numbers = itertools.count()
        self._layouts: dict[int, bytes] = {}  # {digest: pickled Layout}, the same as in the writer
        self._shipped: set[_Reference] = set()
        self._freed: deque[_Reference] = deque()  # filled in any thread, when a SentItem is garbage collected
        self.slots: dict[int, tuple[int, int]] = {}  # {slot: (bytes, descriptor)}
        self.num_gone = 0  # slots given up so far

    def ship(self, item: Any) -> SentItem | bytes:
        """Copy ``item`` into a slot, and return a handle to it. A small item is returned pickled instead.

        Raises:
            NotPicklableError: something in ``item`` cannot be pickled.
        """
        arrays: list[Any] = []
        flatten(item, arrays, [])
        try:
            if sum([array.nbytes for array in arrays]) <= SMALL_NBYTES:
                pickled = dumps(item)
                if len(pickled) <= SMALL_NBYTES:
                    return pickled
            self._release()
            number = next(self._numbers)
            placed = self._writer.write(item, number)
        except MemoryError:
            raise
        except Exception:
            Pickled(item, "the item")  # raises the error that names the unpicklable part
            raise
        self._note_news()
        return self._as_shipped(number, placed)

    def _as_shipped(self, number: int, placed: Placed) -> SentItem:
        (slot,) = placed.slots
        shipped = SentItem(PlacedItem(number, self._layouts[placed.layout], slot, placed.rest))
        reference = _Reference(shipped, self._freed.append)
        reference.slot = slot
        self._shipped.add(reference)
        return shipped

    def _release(self) -> None:
        free = []
        while self._freed:
            reference = self._freed.popleft()
            self._shipped.discard(reference)
            free.append(reference.slot)
        self._writer.release(free)
        self._note_news()

    def _note_news(self) -> None:
        news = self._writer.take_news()
        for (slot, nbytes), descriptor in zip(news.slots, news.descriptors, strict=True):
            self.slots[slot] = nbytes, descriptor
        for slot in news.gone:
            os.close(self.slots.pop(slot)[1])
        self.num_gone += len(news.gone)
        if news.forgets:
            self._layouts.clear()
        self._layouts.update((digest_of(pickled), pickled) for pickled in news.layouts)

    def close(self) -> None:
        """Close the file descriptors of all slots."""
        for _, descriptor in self.slots.values():
            os.close(descriptor)
        self.slots.clear()


class KnownSlots:
    """The consumer's record of the slots with stream items that have been announced to one worker.

    Runs in: the engine's thread.
    """

    def __init__(self, item_slots: ItemSlots) -> None:
        self._item_slots = item_slots
        self._slots: set[int] = set()
        self._num_gone = 0

    def learn(self, shipped: SentItem, slots: list[tuple[int, int]], files: list[int]) -> None:
        """Announce the slot of the item ``shipped`` to the worker, unless the slot was announced before.

        To do so, append (slot, nbytes) to ``slots`` and its descriptor to ``files``, which are sent with the item.
        """
        slot = shipped.message.slot
        if slot not in self._slots:
            self._slots.add(slot)
            nbytes, descriptor = self._item_slots.slots[slot]
            slots.append((slot, nbytes))
            files.append(descriptor)

    def take_gone(self) -> list[int]:
        """Return the announced slots that no longer exist, for the worker to forget. Each slot is returned once."""
        if self._num_gone == self._item_slots.num_gone:
            return []
        self._num_gone = self._item_slots.num_gone
        gone = self._slots - self._item_slots.slots.keys()
        self._slots -= gone
        return list(gone)


class ItemReader:
    """A worker's reader of the slots (pieces of shared memory) in which the consumer sends stream items."""

    def __init__(self) -> None:
        self._buffers: dict[int, Any] = {}  # {slot: its memory}
        self._layouts: dict[bytes, KnownLayout] = {}  # {pickled Layout: the layout, as read}

    def learn(self, slots: list[tuple[int, int]], gone: list[int], files: list[int]) -> None:
        """Map the new slots into memory, and forget the slots ``gone``.

        Args:
            slots: (number, nbytes) of each new slot.
            gone: the numbers of slots that no longer exist.
            files: the file descriptors of the new slots, which are closed here.
        """
        for slot in gone:
            self._buffers.pop(slot, None)
        for (slot, nbytes), file in zip(slots, files, strict=True):
            try:
                self._buffers[slot] = shared_memory.attach(file, nbytes, writable=False)
            finally:
                os.close(file)

    def read(self, message: PlacedItem) -> Any:
        """Return a copy of the stream item that is in the slot named in ``message``.

        Raises:
            IntegrityError: the slot holds another item. This happens if the job was given to another worker, and the
                item was released, before this worker read it. Nobody needs this worker's result then.
        """
        number, layout, slot, rest = message
        known = self._layouts.get(layout)
        if known is None:
            if len(self._layouts) >= _MAX_LAYOUTS:
                self._layouts.clear()
            known = self._layouts[layout] = KnownLayout.of(layout)
        digest, places, build, *_ = known
        buffer = self._buffers[slot]
        arrays = [
            copy_of(np.ndarray(shape, dtype, buffer, start, strides)) for dtype, shape, strides, _, start in places
        ]
        check_label(words_of(buffer), 0, number, digest)
        return put_together(build, arrays, rest)
