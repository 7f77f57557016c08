"""Tensors on their way to the workers: as the memory that they lie in.

- A tensor of torch goes as a view of its storage, which is sent once however many tensors lie in it: a large one out of
  band, like an array. Where the tensors lie in a small part of a storage, only that part is sent.
- A tensor of TensorFlow or an array of JAX goes as the array over its memory.

Torch knows no read-only memory, so a worker maps storages in such a way that what a job writes is its own
(``ParcelMessage.private``). Tensors over arrays of ``workers.share`` are the exception.
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
        parts: {address of a storage: what is sent in its place}, of those that are not sent as a whole.
    """

    least_nbytes = SHARED_NBYTES  # of an array that goes out of band

    def __init__(self, parts: dict[int, StoragePart] | None = None) -> None:
        self.parts_by_address = parts or {}
        self._used: dict[int, tuple[Any, Extent]] = {}  # {address: (storage, what tensors lie in)}

    def reduced(self, obj: Any) -> tuple[Any, str] | None:
        """(how to make ``obj`` again in a worker, the package that is imported for it); None: as its class says."""
        reduction = frameworks.first_answer("reduced", obj, self)
        return None if reduction is None else (reduction, reduction[0].__module__.rpartition(".")[2])

    def send(self, owner: Any, address: int, nbytes: int) -> Any:
        """(memory, and where it is part of a piece, where it begins and how long it is): what goes for a storage."""
        if not nbytes:
            return (b"",)
        found = share.find_bytes(address, nbytes)
        if found is not None:
            return found.piece, found.start, nbytes
        memory: Any = np.asarray(Memory(owner, address, nbytes))
        return (pickle.PickleBuffer(memory) if nbytes >= SHARED_NBYTES else memory.tobytes(),)

    def view(self, owner: Any, array: Any) -> pickle.PickleBuffer:
        """What goes for ``array``, which lies in the memory of ``owner``."""
        memory: Any = np.asarray(Memory(owner, address_of(array), array.nbytes))
        return pickle.PickleBuffer(memory)

    def note(self, storage: Any, address: int, extent: Extent) -> None:
        """A tensor lies in ``extent`` of a storage."""
        if storage.nbytes() >= SHARED_NBYTES:
            known = self._used.get(address)
            self._used[address] = storage, extent if known is None else extent.joined(known[1])

    def parts(self) -> dict[int, StoragePart]:
        """What is to be sent of storages most of which no tensor lies in, as arrays are sent without what lies around
        them."""
        return {
            address: StoragePart(storage, extent, ALIGNMENT)
            for address, (storage, extent) in self._used.items()
            if storage.nbytes() > MAX_SPREAD * (extent.stop - extent.start)
            and share.find_bytes(address, storage.nbytes()) is None
        }


def is_of_storage(array: Any) -> bool:
    """Whether an array that is sent is the memory of something that cannot be kept from being written to."""
    owner = array.base if isinstance(array, np.ndarray) else None
    return isinstance(owner, Memory) and any(frameworks.asked("owns", owner.base))


def version(obj: Any) -> Any:
    """What changes when a tensor, or another view of its memory, is written to; None: that is not told."""
    return frameworks.first_answer("version", obj)
