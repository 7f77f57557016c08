"""Pickles the tensors of a Sequence for the workers, as the blocks of memory that hold their values.

- A torch tensor is sent as a view of its storage (its block of memory). A storage is sent once, however many tensors
  lie in it. If it is large, it is sent outside the pickle, like an array; if the tensors use only a small part of it,
  only that part is sent.
- A large TensorFlow tensor or JAX array is sent as the bytes of a numpy array over its memory.

Torch has no read-only memory, so a worker maps storages copy-on-write (``ParcelMessage.private``): what a job writes
stays in its process. Memory of ``workers.share`` is the exception: a job that writes to it kills its worker.
"""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from workers import frameworks
from workers.batch import share
from workers.batch.shared_memory import address_of
from workers.batch.tree import ALIGNMENT
from workers.frameworks import Memory
from workers.frameworks.torch import Extent, StoragePart

from .arrays import MAX_SPREAD, SHARED_NBYTES


class Storages:
    """The storages (blocks of memory) of the tensors in one pickle, and how they are sent to workers.

    Args:
        parts: {address of a storage: the part to send}, for storages that are not sent as a whole.
    """

    least_nbytes = SHARED_NBYTES  # of an array that is sent outside the pickle

    def __init__(self, parts: dict[int, StoragePart] | None = None) -> None:
        self.parts_by_address = parts or {}
        self._used: dict[int, tuple[Any, Extent]] = {}  # {address: (storage, the bytes that tensors use)}

    def reduced(self, obj: Any) -> tuple[Any, str] | None:
        """Return (how a worker rebuilds ``obj``, as from ``__reduce__``; the framework that it imports for that).

        None if ``obj`` is not a tensor, or is pickled as its class defines.
        """
        reduction = frameworks.first_answer("reduced", obj, self)
        return None if reduction is None else (reduction, reduction[0].__module__.rpartition(".")[2])

    def send(self, owner: Any, address: int, nbytes: int) -> Any:
        """Return what to pickle for the ``nbytes`` bytes at ``address``, which belong to the storage ``owner``.

        This is their place, (piece, start, nbytes), if they lie in shared memory already; otherwise (the bytes,).
        """
        if not nbytes:
            return (b"",)
        found = share.find_bytes(address, nbytes)
        if found is not None:
            return found.piece, found.start, nbytes
        memory: Any = np.asarray(Memory(owner, address, nbytes))
        return (pickle.PickleBuffer(memory) if nbytes >= SHARED_NBYTES else memory.tobytes(),)

    def view(self, owner: Any, array: Any) -> pickle.PickleBuffer:
        """Return the bytes of ``array``, whose memory belongs to ``owner``, as a buffer to send outside the pickle."""
        memory: Any = np.asarray(Memory(owner, address_of(array), array.nbytes))
        return pickle.PickleBuffer(memory)

    def note(self, storage: Any, address: int, extent: Extent) -> None:
        """Record that a tensor uses the bytes ``extent`` of the ``storage`` at ``address``, if the storage is large."""
        if storage.nbytes() >= SHARED_NBYTES:
            known = self._used.get(address)
            self._used[address] = storage, extent if known is None else extent.joined(known[1])

    def parts(self) -> dict[int, StoragePart]:
        """Return {address of a storage: the part to send} for large storages that tensors use only a small part of."""
        return {
            address: StoragePart(storage, extent, ALIGNMENT)
            for address, (storage, extent) in self._used.items()
            if storage.nbytes() > MAX_SPREAD * (extent.stop - extent.start)
            and share.find_bytes(address, storage.nbytes()) is None
        }


def is_of_storage(array: Any) -> bool:
    """Return True if ``array``, which is being sent, is the memory of a torch storage: it cannot be made read-only."""
    owner = array.base if isinstance(array, np.ndarray) else None
    return isinstance(owner, Memory) and any(frameworks.asked("owns", owner.base))


def version(obj: Any) -> Any:
    """Return a number that changes when tensor ``obj``, or a view of its memory, is written to; None if unknown."""
    return frameworks.first_answer("version", obj)
