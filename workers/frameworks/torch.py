"""Support for PyTorch: handles its random generators, tensors and settings, and sends its tensors to workers."""

from __future__ import annotations

import copy
import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import Kind, NoArrayError

_MAX_GIVEN = 2**32  # a larger seed is not the program's, but 64 bits of entropy with which torch seeds itself
_MAX_SEED = 2**63 - 1


def _module() -> Any:
    return sys.modules.get("torch")


# -- random generators


def kinds() -> dict[type, Kind]:
    cls = getattr(_module(), "Generator", None)  # None while torch is being imported
    return {} if cls is None else {cls: Kind("torch", _seed_one, _save_one, _state_of, _record_of)}


def _seed_one(generator: Any, number: int) -> None:
    """Seed a generator of torch with ``number``, a hash of (seed, epoch, index, path): see ``job.generators``."""
    generator.manual_seed(number)


def _save_one(generator: Any) -> Callable[[], None]:
    return functools.partial(generator.set_state, generator.get_state())


def _state_of(generator: Any) -> Any:
    return generator.get_state().numpy().tobytes()


def _record_of(generator: Any) -> Any:
    return str(generator.device), generator.initial_seed()


def _of_process() -> list[Any]:
    """Return torch's global random generators: the default one, and those of accelerators that are in use.

    They are seeded one by one. ``torch.manual_seed`` would take 150 us, as it records a stack for each accelerator that
    is not in use.
    """
    generators = [getattr(_module(), "default_generator", None)]
    for name in ("torch.cuda", "torch.xpu"):
        accelerator = sys.modules.get(name)
        if accelerator is not None and getattr(accelerator, "is_initialized", bool)():
            generators += accelerator.default_generators
    return [generator for generator in generators if generator is not None]


def seed(number: int) -> None:
    for generator in _of_process():
        generator.manual_seed(number & _MAX_SEED)


def save() -> list[Callable[[], None]]:
    return [_save_one(generator) for generator in _of_process()]


def states() -> list[tuple[str, Any]]:
    return [(f"torch ({generator.device})", _state_of(generator)) for generator in _of_process()]


def default_generator() -> Any:
    return getattr(_module(), "default_generator", None)


def place_of_global(obj: Any) -> Any:
    return (_module(), "default_generator") if obj is not None and default_generator() is obj else None


def seed_of_program() -> Any:
    generator = default_generator()
    if generator is None or generator.initial_seed() >= _MAX_GIVEN:
        return None
    return bytes(generator.get_state().cpu().numpy())


# -- tensors as arrays, and arrays as tensors


def is_tensor(value: Any) -> bool:
    cls = getattr(_module(), "Tensor", None)
    return cls is not None and isinstance(value, cls)


def is_iterable_dataset(value: Any) -> bool:
    """Return True if ``value`` is a torch ``IterableDataset``, which has no items by index even if it has a length."""
    data = getattr(getattr(_module(), "utils", None), "data", None)
    return data is not None and isinstance(value, data.IterableDataset)


def own_copy(value: Any) -> Any:
    """Return a copy of a torch tensor that shares no memory with it; None for other values."""
    if not is_tensor(value):
        return None
    # A clone of a leaf that requires a gradient would be neither a leaf nor a Parameter.
    return copy.deepcopy(value) if value.requires_grad and value.is_leaf else value.clone()


def to_numpy(tensor: Any) -> Any:
    if not hasattr(tensor, "detach"):
        return None
    torch = sys.modules["torch"]
    if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
        kind = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else "sparse"
        raise NoArrayError(tensor, f"is {kind}: return its parts, or make it dense")
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    name = str(tensor.dtype).partition(".")[2]
    if name != "bfloat16" and not name.startswith("float8"):
        return np.asarray(tensor)
    try:
        import ml_dtypes
    except ImportError as error:
        raise NoArrayError(
            tensor, f"has the dtype {name}: numpy needs ml_dtypes for it, pip install ml_dtypes"
        ) from error
    bits = torch.uint16 if tensor.itemsize == 2 else torch.uint8
    return np.asarray(tensor.view(bits)).view(getattr(ml_dtypes, name))


def is_of_subclass(value: Any) -> bool:
    """Return True if ``value`` is a tensor of a subclass of ``torch.Tensor``, which would be lost in an array."""
    return is_tensor(value) and type(value) is not sys.modules["torch"].Tensor


class TorchTensors:
    """A maker of torch tensors from numpy arrays. It moves them to CUDA from pinned memory, in a separate stream."""

    def __init__(self, plain: Callable[[Any], Any], device: Any = None) -> None:
        import torch

        self._torch, self._plain = torch, plain
        self.device = None if device is None else self._device_of(device)
        is_cuda = self.device is not None and self.device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(self.device) if is_cuda else None  # type: ignore[no-untyped-call]

    def _device_of(self, device: Any) -> Any:
        found = self._torch.device(device)
        self._torch.empty(0, device=found)  # raises if there is no such device
        return found

    def is_elsewhere(self) -> bool:
        return self.device is not None and self.device.type != "cpu"

    def tensor(self, array: Any) -> Any:
        torch = self._torch
        if array.dtype.type.__module__ == "ml_dtypes":  # bfloat16, float8_e4m3fn, ...: torch has the same names
            dtype = getattr(torch, array.dtype.name, None)
            as_bits = array.view(f"u{array.dtype.itemsize}")
            return array if dtype is None else self.tensor(as_bits).view(dtype)
        try:
            return torch.from_numpy(self._plain(array))
        except TypeError:
            return array

    def move(self, tensors: list[Any]) -> tuple[list[Any], Callable[[], None]]:
        torch, device, stream = self._torch, self.device, self._stream
        is_tensor = torch.is_tensor
        if stream is None:
            moved = [each.to(device, non_blocking=True) if is_tensor(each) else each for each in tensors]
            return moved, lambda: None
        with torch.cuda.stream(stream):
            moved = [each.pin_memory().to(device, non_blocking=True) if is_tensor(each) else each for each in tensors]
            there = stream.record_event()

        def hand_over() -> None:
            training = torch.cuda.current_stream(device)
            training.wait_event(there)
            for each in moved:
                if is_tensor(each):
                    each.record_stream(training)  # keeps its memory until the step has used it

        return moved, hand_over


Tensors = TorchTensors


# -- settings of the program


def settings() -> dict[str, dict[str, Any]]:
    torch = _module()
    if torch is None or torch.get_default_dtype() == torch.float32:
        return {}
    return {"torch": {"default_dtype": str(torch.get_default_dtype()).partition(".")[2]}}


def apply(_: str, values: dict[str, Any]) -> bool:
    torch = _module()
    if not hasattr(torch, "set_default_dtype"):  # still being imported
        return False
    torch.set_default_dtype(getattr(torch, values["default_dtype"]))
    return True


# -- tensors on their way to workers


class Extent(NamedTuple):
    """The part of a storage (memory of torch tensors) that is used: its bytes ``start`` to ``stop`` - 1."""

    start: int
    stop: int

    def joined(self, other: Extent) -> Extent:
        return Extent(min(self.start, other.start), max(self.stop, other.stop))


class StoragePart:
    """The part of a storage (memory of torch tensors) that is sent to workers instead of the whole storage.
    It begins at a multiple of ``alignment`` bytes, which suits items of any size."""

    def __init__(self, storage: Any, extent: Extent, alignment: int) -> None:
        self.storage = storage
        self.start = extent.start // alignment * alignment
        self.nbytes = extent.stop - self.start


def reduced(obj: Any, memory: Any) -> Any:
    kind = type(obj)
    if kind is StoragePart:
        return _storage, memory.send(obj.storage, obj.storage.data_ptr() + obj.start, obj.nbytes)
    if str(kind.__module__).partition(".")[0] != "torch":
        return None
    torch = sys.modules["torch"]
    if kind is torch.Tensor:
        return _reduced_tensor(obj, torch, memory)
    if kind is torch.UntypedStorage and obj.device.type == "cpu":
        return _storage, memory.send(obj, obj.data_ptr(), obj.nbytes())
    if kind is torch.TypedStorage:
        return _typed_storage, (obj._untyped_storage, obj.dtype)
    return None


def _reduced_tensor(tensor: Any, torch: Any, memory: Any) -> Any:
    """Return how a worker rebuilds ``tensor`` from its storage, as ``__reduce__`` does.
    Return None for a tensor that torch itself has to pickle."""
    if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        return None
    if tensor.is_conj() or tensor.is_neg() or tensor._backward_hooks or vars(tensor):
        return None
    if any(getattr(tensor, "names", ())):  # named tensors: torch reports that it does not pickle these
        return None
    storage, itemsize, shape, strides = tensor.untyped_storage(), tensor.element_size(), tensor.shape, tensor.stride()
    address, offset = storage.data_ptr(), tensor.storage_offset()
    if 0 not in shape:
        num_items = 1 + sum(step * (length - 1) for step, length in zip(strides, shape, strict=True))
        memory.note(storage, address, Extent(offset * itemsize, (offset + num_items) * itemsize))
    part = memory.parts_by_address.get(address)
    if part is not None:
        offset -= part.start // itemsize
    where = storage if part is None else part
    return _tensor, (where, tensor.dtype, offset, tuple(shape), strides, tensor.requires_grad)


def owns(obj: Any) -> bool:
    """Return True if ``obj`` is a torch storage (memory of tensors), which cannot be write-protected."""
    return type(obj).__module__.partition(".")[0] == "torch"


def version(obj: Any) -> Any:
    """Return a number that changes when a tensor, or another view of its memory, is written to; None if unknown."""
    return obj._version if is_tensor(obj) and not obj.is_inference() else None


def _storage(memory: Any, start: int = 0, nbytes: int | None = None) -> Any:
    torch = importlib.import_module("torch")
    if not len(memory):
        return torch.UntypedStorage(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the memory is read-only
        count = len(memory) - start if nbytes is None else nbytes
        items = torch.frombuffer(memory, dtype=torch.uint8, count=count, offset=start)
    return (items.clone() if isinstance(memory, bytes) else items).untyped_storage()


def _typed_storage(storage: Any, dtype: Any) -> Any:
    return importlib.import_module("torch").TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)


def _tensor(storage: Any, dtype: Any, offset: int, shape: Any, strides: Any, requires_grad: bool) -> Any:
    torch = importlib.import_module("torch")
    tensor = torch.empty(0, dtype=dtype, device="cpu").set_(storage, offset, shape, strides)
    return tensor.requires_grad_() if requires_grad else tensor
