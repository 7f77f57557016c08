"""Define slots: pieces of shared memory that a worker fills with batches, and leases to the consumer.

A worker makes a slot, writes a batch into it (unless the job has already done so, see :func:`empty`) and names it in
the result. From then on, the consumer holds the slot. The arrays of the batch are views of a *lease*, an array over the
slot. numpy keeps a lease alive as long as any view of it exists, and the end of a lease is noted in a list without
running any Python code. The numbers of freed slots go back to the worker with its next jobs.

    worker:    take -> fill -> (result names it) ................................ released -> take ...
    consumer:                    lease -> views ... last view gone -> freed -> (jobs name it)

Each large array of a batch has its own slot. So a loop that keeps only the masks of all batches, say, does not keep the
memory of the images. Small arrays share a slot, and the consumer copies them out immediately: a copy of a few kilobytes
is cheaper than a lease, and a loop that keeps the class labels does not keep the memory of large arrays either.

Every batch starts with its label (see ``label``). The reader checks the label before delivery, and again when a lease
ends. So a slot that is reused too early, or named for another batch, causes an error and never a wrong batch.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, NamedTuple

import numpy as np

from .label import words_of
from .shared_memory import PAGE, address_of, attach, create

SMALL_NBYTES = 32 << 10  # up to this size, a batch or array is copied out of its slot; a larger one is leased
#: The maximum number of slots for one batch: each costs a descriptor and a mapping. Further large arrays share slots.
MAX_SLOTS = 128
#: The header of a slot with large arrays. It holds only the label, but takes a page, so that the first array starts at
#: a page, as in malloc's memory: copying 64 KB to 64 bytes past the start of a page takes 6 % longer.
HEADER_NBYTES = PAGE
BYTE = np.dtype(np.uint8)

#: The rest of a batch, which is everything but its arrays: a pickle, True if the pickle is stored after the arrays, or
#: the list itself if it holds only plain numbers, None and short strings; None if there is no rest.
Rest = bytes | bool | list[Any] | None


class Placed(NamedTuple):
    """The place of a batch in its worker's slots, e.g. Placed(layout=0x9AE1..., slots=[5], offset=4096, ...)."""

    layout: int  # the digest of its Layout
    slots: list[int]
    offset: int  # of the batch's label in the first slot; in further slots, the label is at 0
    nbytes: int  # of its arrays
    rest: Rest


PlainPlaced = tuple[int, list[int], int, int, Rest]  # as it is sent: a Placed, or a plain tuple of the same values


class Slot:
    """A shared-memory slot for batches, in the process that created it."""

    __slots__ = ("address", "buffer", "bytes", "freed", "is_out", "lease", "nbytes", "number", "used", "words")

    def __init__(self, number: int, nbytes: int, buffer: Any) -> None:
        self.number = number
        self.nbytes = nbytes
        self.buffer = buffer
        self.bytes = np.ndarray((nbytes,), BYTE, buffer)
        self.words = words_of(buffer)
        self.address = address_of(self.bytes)
        self.used = 0  # bytes from the start that are in use
        self.freed = 0  # the number of its last addition to FreeSlots; it grows with each addition
        self.is_out = False  # True while it holds batches that the consumer has not released
        self.lease: weakref.ref[Lease] | None = None  # its lease, if a job has empty() arrays in it


def new_slot(number: int, nbytes: int) -> tuple[Slot, int]:
    """Create a shared-memory slot with room for ``nbytes`` after its header.

    Returns:
        (the slot, its file descriptor). The caller has to close the descriptor.
    """
    descriptor = create(nbytes, header_nbytes=HEADER_NBYTES)
    try:
        slot = Slot(number, HEADER_NBYTES + nbytes, attach(descriptor, nbytes, header_nbytes=HEADER_NBYTES))
    except BaseException:
        os.close(descriptor)
        raise
    slot.used = HEADER_NBYTES
    return slot, descriptor


class Lease(np.ndarray[Any, Any]):
    """An array over all bytes of a shared-memory slot; the slot is in use as long as any view of this array exists.

    The views are plain numpy arrays, not of this class.
    """
