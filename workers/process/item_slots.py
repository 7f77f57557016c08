"""Sends the items of a stream to the workers, in slots of shared memory that are used again and again.

An item is copied into a slot when it is read, since its source may reuse the memory. It is copied out when its job
begins, so that the job may write to it, and a retry of the job finds it unchanged. Any worker may get it: each learns
of a slot with the first item in it. A slot is free again once nobody can ask for its item any more. A worker whose job
was given to another one may then still read the slot; its result is dropped.
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
    """Where an item lies, as sent to workers: PlacedItem(31, b"...", 5, None)."""

    number: int  # of the item, in its label
    layout: bytes  # a pickled Layout
    slot: int
    rest: Rest


class SentItem:
    """An item in a slot. It lives as long as somebody may ask for the item."""

    __slots__ = ("__weakref__", "message")

    def __init__(self, message: PlacedItem) -> None:
        self.message = message


class _Reference(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("slot",)
    slot: int


class ItemSlots:
    """The item slots of the consumer. :meth:`ship` runs in its thread, all else in the engine's."""

    def __init__(self) -> None:
        self._writer = SlotWriter(max_slots=1)  # each item costs one descriptor
        self._numbers = itertools.count()
        self._layouts: dict[int, bytes] = {}  # {digest: pickled Layout}, as the writer has them
        self._shipped: set[_Reference] = set()
        self._freed: deque[_Reference] = deque()  # filled when a SentItem dies, in any thread
        self.slots: dict[int, tuple[int, int]] = {}  # {slot: (bytes, descriptor)}
        self.num_gone = 0  # slots given up so far

    def ship(self, item: Any) -> SentItem | bytes:
        """Return ``item`` in a slot, or pickled if it is small.

        Raises:
            NotPicklableError: something in it cannot be sent.
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
        """Close the descriptors of all slots."""
        for _, descriptor in self.slots.values():
            os.close(descriptor)
        self.slots.clear()


class KnownSlots:
    """The item slots that one worker has been told about. Runs in: the engine's thread."""

    def __init__(self, item_slots: ItemSlots) -> None:
        self._item_slots = item_slots
        self._slots: set[int] = set()
        self._num_gone = 0

    def learn(self, shipped: SentItem, slots: list[tuple[int, int]], files: list[int]) -> None:
        """Add to the ``slots`` and ``files`` of a message what the worker needs to read an item."""
        slot = shipped.message.slot
        if slot not in self._slots:
            self._slots.add(slot)
            nbytes, descriptor = self._item_slots.slots[slot]
            slots.append((slot, nbytes))
            files.append(descriptor)

    def take_gone(self) -> list[int]:
        """Return the slots that the worker can forget."""
        if self._num_gone == self._item_slots.num_gone:
            return []
        self._num_gone = self._item_slots.num_gone
        gone = self._slots - self._item_slots.slots.keys()
        self._slots -= gone
        return list(gone)


class ItemReader:
    """The item slots, as a worker reads them."""

    def __init__(self) -> None:
        self._buffers: dict[int, Any] = {}  # {slot: its memory}
        self._layouts: dict[bytes, KnownLayout] = {}  # {pickled Layout: the layout, as read}

    def learn(self, slots: list[tuple[int, int]], gone: list[int], files: list[int]) -> None:
        """Add new slots, and forget those that are ``gone``. Closes ``files``."""
        for slot in gone:
            self._buffers.pop(slot, None)
        for (slot, nbytes), file in zip(slots, files, strict=True):
            try:
                self._buffers[slot] = shared_memory.attach(file, nbytes, writable=False)
            finally:
                os.close(file)

    def read(self, message: PlacedItem) -> Any:
        """Return a copy of the item.

        Raises:
            IntegrityError: the slot holds another item. This happens if the job was given to another worker, and the
                item released, before this worker read it; nobody waits for the result then.
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
