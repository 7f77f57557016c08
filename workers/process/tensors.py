"""Tensors on their way to the workers: they are sent as their memory.

- A torch tensor is sent as a view of its storage. A storage is sent once, however many tensors lie in it, and out of
  band like an array if it is large. If the tensors take up a small part of a storage, only that part is sent.
- A TensorFlow tensor or a JAX array is sent as a numpy array over its memory.

Torch has no read-only memory, so a worker maps storages copy-on-write (``ParcelMessage.private``): what a job writes
stays in its process. Tensors over arrays of ``workers.share`` are the exception.
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
    """The memory of tensors in one pickle.

    Args:
        parts: {address of a storage: the part to send}, for storages that are not sent as a whole.
    """

    least_nbytes = SHARED_NBYTES  # of an array that is sent out of band

    def __init__(self, parts: dict[int, StoragePart] | None = None) -> None:
        self.parts_by_address = parts or {}
        self._used: dict[int, tuple[Any, Extent]] = {}  # {address: (storage, the bytes that tensors use)}

    def reduced(self, obj: Any) -> tuple[Any, str] | None:
        """Return (how to rebuild ``obj`` in a worker, the package that this imports); None: as its class defines it."""
        reduction = frameworks.first_answer("reduced", obj, self)
        return None if reduction is None else (reduction, reduction[0].__module__.rpartition(".")[2])

    def send(self, owner: Any, address: int, nbytes: int) -> Any:
        """Return what is sent for a storage: (memory,), or (piece, start, nbytes) if it lies in shared memory."""
        if not nbytes:
            return (b"",)
        found = share.find_bytes(address, nbytes)
        if found is not None:
            return found.piece, found.start, nbytes
        memory: Any = np.asarray(Memory(owner, address, nbytes))
        return (pickle.PickleBuffer(memory) if nbytes >= SHARED_NBYTES else memory.tobytes(),)

    def view(self, owner: Any, array: Any) -> pickle.PickleBuffer:
        """Return the out-of-band buffer of ``array``, which lies in the memory of ``owner``."""
        memory: Any = np.asarray(Memory(owner, address_of(array), array.nbytes))
        return pickle.PickleBuffer(memory)

    def note(self, storage: Any, address: int, extent: Extent) -> None:
        """Note that a tensor lies in ``extent`` of a storage."""
        if storage.nbytes() >= SHARED_NBYTES:
            known = self._used.get(address)
            self._used[address] = storage, extent if known is None else extent.joined(known[1])

    def parts(self) -> dict[int, StoragePart]:
        """Return the parts to send of storages that tensors use only a small part of, as arrays are sent without the
        memory around them."""
        return {
            address: StoragePart(storage, extent, ALIGNMENT)
            for address, (storage, extent) in self._used.items()
            if storage.nbytes() > MAX_SPREAD * (extent.stop - extent.start)
            and share.find_bytes(address, storage.nbytes()) is None
        }


def is_of_storage(array: Any) -> bool:
    """Return True if a sent array is the memory of an object (a torch storage) that cannot be made read-only."""
    owner = array.base if isinstance(array, np.ndarray) else None
    return isinstance(owner, Memory) and any(frameworks.asked("owns", owner.base))


def version(obj: Any) -> Any:
    """Return a number that changes when a tensor or another view of its memory is written to; None: not available."""
    return frameworks.first_answer("version", obj)
