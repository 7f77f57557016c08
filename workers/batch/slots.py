"""Slots: the memory that batches are delivered in, its use by the worker and its lease to the consumer.

A slot belongs to the worker that made it. The worker writes a batch into it (or the job has already, see
:func:`empty`) and names it in the result; from then on it is the consumer's. The batch's arrays are views of a
*lease*, an array over the slot; numpy keeps a lease alive while any view of it lives, and its death is noted in a
list without running any Python code. The numbers of freed slots go back to the worker with its next jobs.

    worker:    take -> fill -> (result names it) ................................ released -> take ...
    consumer:                    lease -> views ... last view gone -> freed -> (jobs name it)

Each large array of a batch has a slot of its own, so that whoever keeps it (the masks of all batches, say) keeps that
array's memory and no other. Small arrays share a slot, and the consumer copies them out at once: a copy of a few
kilobytes is cheaper than a lease, and labels that are kept do not hold the images beside them.

In front of every batch lies its label (see ``label``). The reader compares it with what it expects before it delivers,
and again when a lease ends. So a slot that is reused too early, or named for another batch, is an error and never a
wrong batch.
"""

from __future__ import annotations

import os
import weakref
from typing import Any, NamedTuple

import numpy as np

from .label import words_of
from .shared_memory import PAGE, address_of, attach, create

SMALL_NBYTES = 32 << 10  # up to here a batch, or an array of one, is copied out
#: Slots of one batch: each costs a descriptor and a mapping. Where more large arrays come, some lie in one slot.
MAX_SLOTS = 128
#: In front of the arrays in a slot of their own. It holds nothing but the label. So large arrays begin with a page, as
#: they do in malloc's memory: copying 64 KB to 64 bytes past the start of a page takes 6 % longer.
HEADER_NBYTES = PAGE
BYTE = np.dtype(np.uint8)

#: What of a batch is no array: a pickle, or True where that lies behind the arrays, or the list itself where it holds
#: nothing but plain numbers and short strings.
Rest = bytes | bool | list[Any] | None


class Placed(NamedTuple):
    """Where a batch lies: Placed(0x9AE1F0334C5D2B70, [5], 4096, 4100, None)."""

    layout: int  # the digest of its Layout
    slots: list[int]
    offset: int  # of its label in the first slot; in further slots it is at 0
    nbytes: int  # of its arrays
    rest: Rest


PlainPlaced = tuple[int, list[int], int, int, Rest]  # as it travels: a Placed, or the plain tuple of one


class Slot:
    """A piece of shared memory, as its worker has it."""

    __slots__ = ("address", "buffer", "bytes", "freed", "is_out", "lease", "nbytes", "number", "used", "words")

    def __init__(self, number: int, nbytes: int, buffer: Any) -> None:
        self.number = number
        self.nbytes = nbytes
        self.buffer = buffer
        self.bytes = np.ndarray((nbytes,), BYTE, buffer)
        self.words = words_of(buffer)
        self.address = address_of(self.bytes)
        self.used = 0  # bytes from the start that are spoken for
        self.freed = 0  # when it was last given back to FreeSlots, counted there
        self.is_out = False  # it holds batches that the consumer has not released
        self.lease: weakref.ref[Lease] | None = None  # what a job's empty() arrays are views of


def new_slot(number: int, nbytes: int) -> tuple[Slot, int]:
    """A new slot for ``nbytes`` behind its header, and a descriptor of it, which is the caller's to close."""
    descriptor = create(nbytes, header_nbytes=HEADER_NBYTES)
    try:
        slot = Slot(number, HEADER_NBYTES + nbytes, attach(descriptor, nbytes, header_nbytes=HEADER_NBYTES))
    except BaseException:
        os.close(descriptor)
        raise
    slot.used = HEADER_NBYTES
    return slot, descriptor


class Lease(np.ndarray[Any, Any]):
    """All bytes of a slot. Views of it are plain arrays; while one lives, so does the lease."""
