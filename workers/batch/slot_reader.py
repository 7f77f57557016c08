"""Rebuild batches in the consumer from the shared-memory slots that a worker has filled."""

from __future__ import annotations

import os
import pickle
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workers.errors import integrity_error

from . import shared_memory
from .label import WORD_NBYTES, check_label, words_of
from .slots import BYTE, HEADER_NBYTES, SMALL_NBYTES, Lease, PlainPlaced, Rest
from .tree import Array, ArrayPlace, copy_of, digest_of, unflattener


def put_together(build: Callable[..., Any], arrays: list[Array], rest: Rest) -> Any:
    """Rebuild a batch from its arrays and its rest, which is everything else in the batch.

    Args:
        build: the function that rebuilds batches of this structure, from :func:`unflattener`.
        arrays: the arrays of the batch, followed by its pickled rest if ``rest`` is True.
        rest: the rest as a list or pickled list; True if it is in ``arrays``, None if there is no rest.
    """
    if rest is None or type(rest) is list:
        return build(iter(arrays), iter(rest or ()))
    others = pickle.loads(arrays.pop() if rest is True else rest)  # type: ignore[arg-type]
    return build(iter(arrays), iter(others))


class KnownLayout(NamedTuple):
    """A batch layout that the reader has received, with the function that rebuilds batches of this layout."""

    digest: int
    places: tuple[ArrayPlace, ...]
    build: Callable[..., Any]
    is_large: tuple[bool, ...]  # for each array: True if it stays in its slot; a small one is copied out
    leased: frozenset[int]  # which of the batch's slots hold a large array, by index

    @classmethod
    def of(cls, pickled: bytes) -> KnownLayout:
        spec, places = pickle.loads(pickled)
        is_large = tuple([place.nbytes > SMALL_NBYTES for place in places])
        leased = frozenset([place.slot for place in places if place.nbytes > SMALL_NBYTES])
        return cls(digest_of(pickled), places, unflattener(spec), is_large, leased)


#: A batch not read yet: (its reader, its layout, its place in the worker's slots). The layout itself is kept, not its
#: digest, because the reader may have forgotten the layout by the time the batch is read.
Unread = tuple["SlotReader", KnownLayout, PlainPlaced]


class _LeaseReference(weakref.ref):  # type: ignore[type-arg]
    __slots__ = "layout", "number", "sending"
    number: int
    sending: int
    layout: int


class SlotReader:
    """The reader of batches from one worker's shared-memory slots. Runs in: consumer. Blocks: never.

    Read or skip all batches of a message before calling :meth:`take_freed`: small batches share a slot, which is freed
    as a whole.
    """

    def __init__(self) -> None:
        self._buffers: dict[int, Any] = {}  # {slot: its memory}
        self._words: dict[int, memoryview] = {}  # {slot: its memory as words, for labels}
        self._layouts: dict[int, KnownLayout] = {}  # {digest: layout}, the same as in the worker
        self._leases: dict[int, _LeaseReference] = {}  # {slot: a reference to its lease}
        self._freed: deque[_LeaseReference] = deque()  # filled when leases die, in any thread
        self._copied: set[int] = set()  # slots whose batches were copied out or skipped

    def learn(
        self, slots: list[tuple[int, int]], gone: list[int], forgets: bool, layouts: list[bytes], files: list[int]
    ) -> None:
        """Record the slots and layouts that a worker's message announces.

        Call this before :meth:`unread` for the batches of that message.

        Args:
            slots: new slots, as (number, bytes).
            gone: the numbers of slots that the worker has given up.
            forgets: True if all layouts announced before are to be forgotten.
            layouts: new layouts, pickled.
            files: the file descriptors of the new slots; this method maps and closes them.
        """
        for number in gone:
            self._buffers.pop(number, None)
            self._words.pop(number, None)
        for (number, nbytes), file in zip(slots, files, strict=True):
            try:
                buffer = shared_memory.attach(file, nbytes - HEADER_NBYTES, header_nbytes=HEADER_NBYTES)
            finally:
                os.close(file)
            self._buffers[number], self._words[number] = buffer, words_of(buffer)
        if forgets:
            self._layouts.clear()
        for pickled in layouts:
            layout = KnownLayout.of(pickled)
            self._layouts[layout.digest] = layout

    def unread(self, placed: PlainPlaced) -> Unread:
        """Return what reading a batch of the last message later takes: (this reader, layout, place in the slots).

        Raises:
            IntegrityError: the worker has not announced the layout of the batch.
        """
        layout = self._layouts.get(placed[0])
        if layout is None:
            raise integrity_error(f"a result names layout {placed[0]:016x}, which its worker has not announced")
        return self, layout, placed

    def read(self, layout: KnownLayout, placed: PlainPlaced, sending: int) -> Any:
        """Return the batch of this ``layout`` that lies at ``placed`` in the worker's slots.

        Raises:
            IntegrityError: the batch is not the result of the job sent as number ``sending``, or was overwritten.
        """
        digest, places, build, is_large, leased = layout
        _, slots, offset, nbytes, rest = placed
        if nbytes <= SMALL_NBYTES or shared_memory.num_mapped() > shared_memory.MAX_MAPPED:
            self._copied.update(slots)
            buffers = [self._buffers[slot] for slot in slots]
            arrays = [
                np.ndarray(shape, dtype, buffers[at], offset + start, strides).copy("K")
                if dtype.names is None
                else copy_of(np.ndarray(shape, dtype, buffers[at], offset + start, strides))
                for dtype, shape, strides, at, start in places
            ]
        else:
            if len(leased) == len(slots):
                buffers = [self._lease(slot, sending, digest) for slot in slots]
            else:
                buffers = [
                    self._lease(slot, sending, digest) if at in leased else self._buffers[slot]
                    for at, slot in enumerate(slots)
                ]
                self._copied.update([slot for at, slot in enumerate(slots) if at not in leased])
            arrays = [
                np.ndarray(shape, dtype, buffers[at], start, strides)
                if stays
                else copy_of(np.ndarray(shape, dtype, buffers[at], start, strides))
                for stays, (dtype, shape, strides, at, start) in zip(is_large, places, strict=True)
            ]
        at = offset // WORD_NBYTES
        for slot in slots:  # after the copy, to detect a batch overwritten meanwhile
            words = self._words[slot]
            if words[at] != sending or words[at + 1] != digest:  # as in check_label, without a call if all is well
                check_label(words, at, sending, digest)
        return put_together(build, arrays, rest)

    def skip(self, placed: PlainPlaced) -> None:
        """Release the slots of a batch that is no longer wanted, without reading it."""
        _, slots, *_ = placed
        self._copied.update(slots)

    def _lease(self, number: int, sending: int, layout: int) -> Lease:
        buffer = self._buffers[number]
        if number in self._leases:
            raise integrity_error(f"slot {number} was named for sending {sending} while it holds another batch")
        lease = Lease((len(buffer),), BYTE, buffer)
        reference = self._leases[number] = _LeaseReference(lease, self._freed.append)
        reference.number, reference.sending, reference.layout = number, sending, layout
        return lease  # type: ignore[no-any-return]

    @property
    def nbytes(self) -> int:
        """The total size of the worker's shared-memory slots, in bytes."""
        return sum(map(len, self._buffers.values()))

    def take_freed(self) -> list[int]:
        """Return the numbers of the shared-memory slots that the consumer has released since the last call.

        Raises:
            IntegrityError: a batch was overwritten while the consumer held it.
        """
        freed = list(self._copied)
        self._copied.clear()
        while self._freed:
            reference = self._freed.popleft()
            number = reference.number
            check_label(self._words[number], 0, reference.sending, reference.layout)
            del self._leases[number]
            freed.append(number)
        return freed
