"""Pickles the tensors of a Sequence for the workers, as the blocks of memory that hold their values.

- A torch tensor is sent as a view of its storage (its block of memory). A storage is sent only once, even if it holds
  several tensors. A large storage is sent outside the pickle, like a large array. If the tensors use only a small part
  of it, only that part is sent.
- A large TensorFlow tensor or JAX array is sent as the bytes of a numpy array over its memory.

Torch cannot mark memory as read-only, so a worker maps storages copy-on-write (``ParcelMessage.private``): what a job
writes stays in its process. Only memory from ``workers.share`` is mapped read-only: a write to it kills the worker.
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
        parts: the part to send of each storage that is not sent as a whole, {address of the storage: part}.
    """

    least_nbytes = SHARED_NBYTES  # an array of at least this size is sent outside the pickle

    def __init__(self, parts: dict[int, StoragePart] | None = None) -> None:
        self.parts_by_address = parts or {}
        self._used: dict[int, tuple[Any, Extent]] = {}  # {address: (storage, the bytes that tensors use)}

    def reduced(self, obj: Any) -> tuple[Any, str] | None:
        """Return (how a worker rebuilds tensor ``obj``, as from ``__reduce__``; the framework to import, e.g. "torch").

        Return None if ``obj`` is not a tensor, or has to be pickled as its class defines.
        """
        reduction = frameworks.first_answer("reduced", obj, self)
        return None if reduction is None else (reduction, reduction[0].__module__.rpartition(".")[2])

    def send(self, owner: Any, address: int, nbytes: int) -> Any:
        """Return what to pickle for the ``nbytes`` bytes at ``address``, which belong to the storage ``owner``.

        The result is (piece, start, nbytes) if the bytes are in shared memory already, otherwise (the bytes,).
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
        """Return {address of a storage: the part to send} for large storages, if tensors use only a small part."""
        return {
            address: StoragePart(storage, extent, ALIGNMENT)
            for address, (storage, extent) in self._used.items()
            if storage.nbytes() > MAX_SPREAD * (extent.stop - extent.start)
            and share.find_bytes(address, storage.nbytes()) is None
        }


def is_of_storage(array: Any) -> bool:
    """Return True if ``array`` is the memory of a torch storage, which workers must not map read-only."""
    owner = array.base if isinstance(array, np.ndarray) else None
    return isinstance(owner, Memory) and any(frameworks.asked("owns", owner.base))


def version(obj: Any) -> Any:
    """Return a number that changes when tensor ``obj``, or a view of it, is written to; None if it is unknown."""
    return frameworks.first_answer("version", obj)
