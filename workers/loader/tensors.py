"""Batches as tensors of torch, JAX or TensorFlow, on the device of the training step.

On the CPU a tensor lies where the batch does, in shared memory, and its lease is held until nobody holds the tensor.
Arrays of a dtype that the framework has no tensors for (strings, dates) stay arrays.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workers.batch.copies import SCALARS, is_immutable
from workers.batch.nodes import leaves
from workers.batch.tree import ALIGNMENT, Array, flatten, unflattener
from workers.checks import check_choice

logger = logging.getLogger("workers")


class Moved(NamedTuple):
    """A batch that is on its way to the device."""

    batch: Any
    hand_over: Callable[[], None]  # to be called when the loop gets it


class Tensors(ABC):
    """What makes tensors of the arrays of a batch. ``device``: None for where the framework has them by itself."""

    def __init__(self, device: Any = None, depth: int = 0) -> None:
        self.device = self.device_of(device) if device is not None else None
        self._moves = self.is_elsewhere()
        self.depth = depth if self._moves else 0  # batches that are moved ahead of the loop
        self._known: set[type] = {*SCALARS}  # of what is no array in batches before
        self._named: set[type] = set()  # of leaves that were said to be delivered as they are

    def __call__(self, batch: Any) -> Moved:
        """``batch`` with tensors in the place of arrays."""
        arrays: list[Array] = []
        rest: list[Any] = []
        spec = flatten(batch, arrays, rest)
        if not self._known.issuperset(map(type, rest)):
            self._known.update(map(type, rest))
            self._name_leaves(batch, rest)
        tensors = [self.tensor(array) for array in arrays]
        moved, hand_over = self.move(tensors) if self._moves else (tensors, _nothing)
        return Moved(_builder(spec)(iter(moved), iter(rest)), hand_over)

    def _name_leaves(self, batch: Any, rest: list[Any]) -> None:
        """Warn, once for each type, of what is delivered as it is although there may be arrays in it."""
        ids = {id(leaf) for leaf in rest if type(leaf) is not np.ndarray and not is_immutable(leaf)}
        for path, leaf in leaves(batch, lambda part: id(part) in ids):
            kind = type(leaf)
            if id(leaf) not in ids or kind in self._named:
                continue
            self._named.add(kind)
            logger.warning(
                "batch%s is a %s.%s, which is delivered as it is: no tensor is made of it or of what is in it; return "
                "arrays, in tuples, lists, dicts or dataclasses",
                path,
                kind.__module__,
                kind.__qualname__,
            )

    @abstractmethod
    def device_of(self, device: Any) -> Any:
        """``device`` as the framework has it. Raises what the framework does, where there is none."""

    @abstractmethod
    def is_elsewhere(self) -> bool:
        """Whether the device has other memory than the batches have."""

    @abstractmethod
    def tensor(self, array: Array) -> Any:
        """``array`` as a tensor over the same memory, or as it is."""

    @abstractmethod
    def move(self, tensors: list[Any]) -> tuple[list[Any], Callable[[], None]]:
        """(``tensors`` on the device, what to call when the loop gets them). Does not wait for them to be there."""


class TorchTensors(Tensors):
    """Of torch. To a CUDA device they are copied from pinned memory, in a stream of their own."""

    def __init__(self, device: Any = None, depth: int = 0) -> None:
        import torch

        self._torch = torch
        super().__init__(device, depth)
        is_cuda = self.device is not None and self.device.type == "cuda"
        self._stream: Any = torch.cuda.Stream(self.device) if is_cuda else None  # type: ignore[no-untyped-call]

    def device_of(self, device: Any) -> Any:
        found = self._torch.device(device)
        self._torch.empty(0, device=found)  # raises here, if there is none
        return found

    def is_elsewhere(self) -> bool:
        return self.device is not None and self.device.type != "cpu"

    def tensor(self, array: Array) -> Any:
        torch = self._torch
        if array.dtype.type.__module__ == "ml_dtypes":  # bfloat16, float8_e4m3fn, ...: by these names in torch too
            dtype = getattr(torch, array.dtype.name, None)
            as_bits = array.view(f"u{array.dtype.itemsize}")
            return array if dtype is None else self.tensor(as_bits).view(dtype)
        try:
            return torch.from_numpy(_plain(array))
        except TypeError:
            return array

    def move(self, tensors: list[Any]) -> tuple[list[Any], Callable[[], None]]:
        torch, device, stream = self._torch, self.device, self._stream
        is_tensor = torch.is_tensor
        if stream is None:
            return [each.to(device, non_blocking=True) if is_tensor(each) else each for each in tensors], _nothing
        with torch.cuda.stream(stream):
            moved = [each.pin_memory().to(device, non_blocking=True) if is_tensor(each) else each for each in tensors]
            there = stream.record_event()

        def hand_over() -> None:
            training = torch.cuda.current_stream(device)
            training.wait_event(there)
            for each in moved:
                if is_tensor(each):
                    each.record_stream(training)  # its memory is not used again before the step is done with it

        return moved, hand_over


class JaxArrays(Tensors):
    """Of JAX: on its default device, or where ``device`` says: a name ("cpu", "gpu"), a device or a sharding."""

    def __init__(self, device: Any = None, depth: int = 0) -> None:
        import jax

        self._jax = jax
        super().__init__(device, depth)

    def device_of(self, device: Any) -> Any:
        return self._jax.devices(device)[0] if isinstance(device, str) else device

    def is_elsewhere(self) -> bool:
        return self.device is not None and self.device != self._jax.devices("cpu")[0]

    def tensor(self, array: Array) -> Any:
        try:
            return self._jax.device_put(_plain(array), self.device)
        except TypeError:
            return array

    def move(self, tensors: list[Any]) -> tuple[list[Any], Callable[[], None]]:
        return tensors, _nothing  # they were put there, and JAX waits for them where it needs them


class TensorFlowTensors(Tensors):
    """Of TensorFlow. ``device``: its name, such as "/GPU:0"."""

    def __init__(self, device: Any = None, depth: int = 0) -> None:
        import tensorflow as tf

        self._tf = tf
        super().__init__(device, depth)

    def device_of(self, device: Any) -> Any:
        with self._tf.device(device):
            self._tf.identity(0)  # raises here, if there is none
        return device

    def is_elsewhere(self) -> bool:
        return self.device is not None and "CPU" not in str(self.device).upper()

    def tensor(self, array: Array) -> Any:
        tf, address = self._tf, array.__array_interface__["data"][0]
        if address % ALIGNMENT == 0 and array.flags.c_contiguous and array.flags.writeable:  # else TensorFlow aborts
            with contextlib.suppress(BufferError):
                return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        try:
            return tf.convert_to_tensor(_plain(array))
        except (TypeError, ValueError):
            return array

    def move(self, tensors: list[Any]) -> tuple[list[Any], Callable[[], None]]:
        with self._tf.device(self.device):
            return [self._tf.identity(each) if self._tf.is_tensor(each) else each for each in tensors], _nothing


_KINDS: dict[str, type[Tensors]] = {"torch": TorchTensors, "jax": JaxArrays, "tf": TensorFlowTensors}
OUTPUTS = tuple(_KINDS)


class Output:
    """What a loop gets in the place of arrays: tensors of ``name``, one of ``OUTPUTS``.

    It may be part of what is sent to workers, which need neither the framework nor the device: they get the name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tensors: Tensors | None = None

    @property
    def tensors(self) -> Tensors:
        """What makes them. Imports the framework."""
        if self._tensors is None:
            self._tensors = _KINDS[self.name]()
        return self._tensors

    def on(self, device: Any, depth: int) -> Output:
        """The same on a device."""
        there = Output(self.name)
        there._tensors = _KINDS[self.name](device, depth)
        return there

    def __reduce__(self) -> Any:
        return Output, (self.name,)

    def __deepcopy__(self, memo: Any) -> Output:
        return self


def checked_output(name: str | None) -> Output | None:
    """What ``output`` of a front-end names; None: it says nothing. Imports the framework, or raises."""
    if name is None:
        return None
    output = Output(check_choice("output", name, (None, *OUTPUTS)))
    output.tensors  # noqa: B018
    return output


def _plain(array: Array) -> Array:
    """``array``, or a copy of it: writable, with positive strides and bytes in this machine's order."""
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.writeable and all(step >= 0 for step in array.strides) else array.copy()


@functools.lru_cache(64)
def _builder(spec: tuple[Any, ...]) -> Callable[..., Any]:
    return unflattener(spec)


def _nothing() -> None:
    pass
