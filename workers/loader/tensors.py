"""Turns batches of arrays into batches of torch, JAX or TensorFlow tensors, on the device of the training step.

On the CPU, a tensor uses the shared memory of its batch, which is not reused as long as the tensor lives. Arrays whose
dtype the framework does not have (strings, dates) stay arrays.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from workers import frameworks
from workers.batch.copies import SCALARS, is_immutable
from workers.batch.nodes import leaves
from workers.batch.tree import Array, flatten, unflattener
from workers.checks import check_choice

logger = logging.getLogger("workers")


class Moved(NamedTuple):
    """A batch of tensors that are being moved to the device, and a function to call before the loop uses them."""

    batch: Any
    hand_over: Callable[[], None]  # called when the loop gets the batch


class TensorMaker:
    """A converter of the arrays in batches to tensors of one framework. It also moves the tensors to a device.

    Args:
        output: the framework: "torch", "jax" or "tf".
        device: where to put the tensors; None for the framework's default.
        depth: how many batches to move ahead of the loop, if the device has its own memory.
    """

    def __init__(self, output: str, device: Any = None, depth: int = 0) -> None:
        self._of_framework = frameworks.file_of(frameworks.OUTPUTS[output]).Tensors(_plain, device)
        self._moves = self._of_framework.is_elsewhere()
        self.depth = depth if self._moves else 0
        self._known: set[type] = {*SCALARS}  # types of objects, other than arrays, in earlier batches
        self._named: set[type] = set()  # those that a warning has named

    @property
    def device(self) -> Any:
        return self._of_framework.device

    def tensor(self, array: Array) -> Any:
        """Return a tensor over the memory of ``array``; the array itself if the framework does not have its dtype."""
        return self._of_framework.tensor(array)

    def __call__(self, batch: Any) -> Moved:
        """Return ``batch`` with tensors instead of arrays. Start moving them if the device has its own memory."""
        arrays: list[Array] = []
        rest: list[Any] = []
        spec = flatten(batch, arrays, rest)
        if not self._known.issuperset(map(type, rest)):
            self._known.update(map(type, rest))
            self._name_leaves(batch, rest)
        tensors = list(map(self._of_framework.tensor, arrays))
        moved, hand_over = self._of_framework.move(tensors) if self._moves else (tensors, _nothing)
        return Moved(_builder(spec)(iter(moved), iter(rest)), hand_over)

    def _name_leaves(self, batch: Any, rest: list[Any]) -> None:
        """Warn, once per type, about objects in ``rest`` that stay in ``batch`` unchanged but may hold arrays."""
        ids = {id(leaf) for leaf in rest if type(leaf) is not np.ndarray and not is_immutable(leaf)}
        for path, leaf in leaves(batch, lambda part: id(part) in ids):
            kind = type(leaf)
            if id(leaf) not in ids or kind in self._named:
                continue
            self._named.add(kind)
            logger.warning(
                "batch%s is a %s.%s, which is delivered as it is: neither it nor its contents become tensors. Return "
                "arrays, in tuples, lists, dicts or dataclasses",
                path,
                kind.__module__,
                kind.__qualname__,
            )


class Output:
    """The framework whose tensors a loop gets instead of arrays: ``name`` is "torch", "jax" or "tf".

    Workers that are sent such an object get only the name, so they need neither the framework nor the device.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tensors: TensorMaker | None = None

    @property
    def tensors(self) -> TensorMaker:
        """The converter of arrays to tensors of this framework. The first use imports the framework."""
        if self._tensors is None:
            self._tensors = TensorMaker(self.name)
        return self._tensors

    def on(self, device: Any, depth: int) -> Output:
        """Return an Output of this framework that moves tensors to ``device``, ``depth`` batches ahead of the loop."""
        there = Output(self.name)
        there._tensors = TensorMaker(self.name, device, depth)
        return there

    def __reduce__(self) -> Any:
        return Output, (self.name,)

    def __deepcopy__(self, memo: Any) -> Output:
        return self


def checked_output(name: str | None) -> Output | None:
    """Import the framework for ``name`` ("torch", "jax" or "tf"), and return its Output; None if ``name`` is None.

    Raise ValueError for any other name, or the error of the import.
    """
    if name is None:
        return None
    output = Output(check_choice("output", name, (None, *frameworks.OUTPUTS)))
    output.tensors  # noqa: B018
    return output


def _plain(array: Array) -> Array:
    """Return ``array`` if it is writable, in native byte order and without negative strides; else a copy that is."""
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.writeable and all(step >= 0 for step in array.strides) else array.copy()


@functools.lru_cache(64)
def _builder(spec: tuple[Any, ...]) -> Callable[..., Any]:
    return unflattener(spec)


def _nothing() -> None:
    pass
