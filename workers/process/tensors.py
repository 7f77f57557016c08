"""Tensors of PyTorch, TensorFlow and JAX on their way to the workers: as the memory that they lie in.

- A tensor of torch goes as a view of its storage, which is sent once however many tensors lie in it: a large one out of
  band, like an array. Where the tensors lie in a small part of a storage, only that part is sent (:class:`Extent`).
- A tensor of TensorFlow or an array of JAX goes as the array over its memory.

Torch knows no read-only memory, so a worker maps storages in such a way that what a job writes is its own
(:attr:`workers.process.replica.ParcelMessage.private`). Tensors over arrays of ``workers.share`` are the exception.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import warnings
from typing import Any, NamedTuple

import numpy as np

from workers.batch import share
from workers.batch.shared_memory import address_of
from workers.batch.tree import ALIGNMENT

from .arrays import MAX_SPREAD, SHARED_NBYTES, Memory

_AS_BITS = "bfloat16"  # which DLPack does not take from numpy


class Extent(NamedTuple):
    """Bytes of a storage, from the first to the last one that tensors lie in: Extent(128, 4096)."""

    start: int
    stop: int

    def joined(self, other: Extent) -> Extent:
        return Extent(min(self.start, other.start), max(self.stop, other.stop))


class Reduced(NamedTuple):
    """How to make a tensor again."""

    reduction: Any  # as __reduce__ returns it
    package: str  # that is imported for that: "torch"


class Part:
    """The part of a storage that is sent in its place."""

    def __init__(self, storage: Any, extent: Extent) -> None:
        self.storage = storage
        self.start = extent.start // ALIGNMENT * ALIGNMENT  # of items of any size
        self.nbytes = extent.stop - self.start


class Storages:
    """The storages of torch in one pickle.

    Args:
        parts: {address of a storage: what is sent in its place}, of those that are not sent as a whole.
    """

    def __init__(self, parts: dict[int, Part] | None = None) -> None:
        self._parts = parts or {}
        self._used: dict[int, tuple[Any, Extent]] = {}  # {address: (storage, what tensors lie in)}

    def reduced(self, obj: Any) -> Reduced | None:
        """How to make ``obj`` again in a worker; None: as its class says."""
        kind = type(obj)
        package = str(kind.__module__).partition(".")[0]
        reduction = None
        if kind is Part:
            package, reduction = "torch", _reduced_memory(obj.storage, obj.storage.data_ptr() + obj.start, obj.nbytes)
        elif package == "torch":
            reduction = self._reduced_torch(obj, kind, sys.modules["torch"])
        elif package == "tensorflow" and kind.__name__ == "EagerTensor":
            reduction = _reduced_eager(obj)
        elif package == "jaxlib" and kind.__name__ == "ArrayImpl":
            package, reduction = "jax", _reduced_jax(obj)
        return None if reduction is None else Reduced(reduction, package)

    def _reduced_torch(self, obj: Any, kind: type, torch: Any) -> Any:
        if kind is torch.Tensor:
            return self._reduced_tensor(obj, torch)
        if kind is torch.UntypedStorage and obj.device.type == "cpu":
            return _reduced_memory(obj, obj.data_ptr(), obj.nbytes())
        if kind is torch.TypedStorage:
            return _typed_storage, (obj._untyped_storage, obj.dtype)
        return None

    def _reduced_tensor(self, tensor: Any, torch: Any) -> Any:
        """None: torch itself makes it of its storage."""
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            return None
        if tensor.is_conj() or tensor.is_neg() or tensor._backward_hooks or vars(tensor):
            return None
        if any(getattr(tensor, "names", ())):  # torch says that it does not pickle these
            return None
        storage, itemsize, shape, strides = (
            tensor.untyped_storage(),
            tensor.element_size(),
            tensor.shape,
            tensor.stride(),
        )
        address, offset = storage.data_ptr(), tensor.storage_offset()
        if 0 not in shape and storage.nbytes() >= SHARED_NBYTES:
            num_items = 1 + sum(step * (length - 1) for step, length in zip(strides, shape, strict=True))
            extent = Extent(offset * itemsize, (offset + num_items) * itemsize)
            known = self._used.get(address)
            self._used[address] = storage, extent if known is None else extent.joined(known[1])
        part = self._parts.get(address)
        if part is not None:
            offset -= part.start // itemsize
        where = storage if part is None else part
        return _tensor, (where, tensor.dtype, offset, tuple(shape), strides, tensor.requires_grad)

    def parts(self) -> dict[int, Part]:
        """What is to be sent of storages most of which no tensor lies in, as arrays are sent without what lies around
        them."""
        return {
            address: Part(storage, extent)
            for address, (storage, extent) in self._used.items()
            if storage.nbytes() > MAX_SPREAD * (extent.stop - extent.start)
            and share.find_bytes(address, storage.nbytes()) is None
        }


def _reduced_memory(storage: Any, address: int, nbytes: int) -> Any:
    if not nbytes:
        return _storage, (b"",)
    found = share.find_bytes(address, nbytes)
    if found is not None:
        return _storage, (found.piece, found.start, nbytes)
    memory: Any = np.asarray(Memory(storage, address, nbytes))
    return _storage, (pickle.PickleBuffer(memory) if nbytes >= SHARED_NBYTES else memory.tobytes(),)


def is_of_storage(array: Any) -> bool:
    """Whether an array that is sent is the memory of a storage of torch."""
    owner = array.base if isinstance(array, np.ndarray) else None
    return isinstance(owner, Memory) and type(owner.base).__module__.partition(".")[0] == "torch"


def version(obj: Any) -> Any:
    """What changes when a tensor of torch, or another view of its memory, is written to; None for anything else."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(obj, torch.Tensor) or obj.is_inference():
        return None
    return obj._version


def _reduced_eager(tensor: Any) -> Any:
    """None: as TensorFlow does it, which copies."""
    if "CPU" not in tensor.device:
        return None
    array = tensor._numpy()
    dtype, name = array.dtype, tensor.dtype.name
    if array.nbytes < SHARED_NBYTES or (dtype.kind not in "biufc" and name != _AS_BITS):
        return None
    # The array was made just now; the tensor stays, and by it the watch knows the memory again.
    memory: Any = np.asarray(Memory(tensor, address_of(array), array.nbytes))
    return _eager, (pickle.PickleBuffer(memory), dtype, array.shape, name)


def _reduced_jax(array: Any) -> Any:
    """None: as JAX does it, which copies."""
    is_here = array.is_fully_addressable and {device.platform for device in array.devices()} == {"cpu"}
    if not is_here or len(array.devices()) > 1 or array.weak_type or array.nbytes < SHARED_NBYTES:
        return None
    there = np.asarray(array)
    if not there.flags.c_contiguous:
        return None
    memory: Any = np.asarray(Memory(array, address_of(there), there.nbytes))
    return _jax_array, (pickle.PickleBuffer(memory), there.dtype, there.shape)


# -- in a worker


def _storage(memory: Any, start: int = 0, nbytes: int | None = None) -> Any:
    torch = importlib.import_module("torch")
    if not len(memory):
        return torch.UntypedStorage(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is read-only
        count = len(memory) - start if nbytes is None else nbytes
        items = torch.frombuffer(memory, dtype=torch.uint8, count=count, offset=start)
    return (items.clone() if isinstance(memory, bytes) else items).untyped_storage()


def _typed_storage(storage: Any, dtype: Any) -> Any:
    return importlib.import_module("torch").TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def _tensor(storage: Any, dtype: Any, offset: int, shape: Any, strides: Any, requires_grad: bool) -> Any:
    torch = importlib.import_module("torch")
    tensor = torch.empty(0, dtype=dtype, device="cpu").set_(storage, offset, shape, strides)
    return tensor.requires_grad_() if requires_grad else tensor


def _eager(memory: Any, dtype: Any, shape: Any, name: str) -> Any:
    tf: Any = importlib.import_module("tensorflow")
    address = address_of(memory)
    if address % ALIGNMENT:  # TensorFlow would abort
        return tf.convert_to_tensor(np.ndarray(shape, dtype, memory), name)
    # Nothing writes to a tensor of TensorFlow; but DLPack takes only what could be written to.
    items = np.asarray(Memory(memory, address, len(memory), is_writable=True))
    array = items.view(np.uint16 if name == _AS_BITS else dtype).reshape(shape)
    tensor = tf.experimental.dlpack.from_dlpack(array.__dlpack__())
    return tf.bitcast(tensor, name) if name == _AS_BITS else tensor


def _jax_array(memory: Any, dtype: Any, shape: Any) -> Any:
    return importlib.import_module("jax").device_put(np.ndarray(shape, dtype, memory))
