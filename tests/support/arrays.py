"""Batches of arrays, and of tensors that are none; no framework is imported before it is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from workers import Sequence

LARGE = 50_000


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Example:
    x: Any
    name: str


class Batches(Sequence[Any]):
    def __init__(self, make: Any) -> None:
        super().__init__(seed=1)
        self.make = make

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def numbers(index: int) -> Any:
    x = np.full(LARGE, index, np.float32)
    return {"pair": Pair(x, np.full(3, index)), "all": [Example(x[:5], "a"), (None, 2.5, "text", x[0])]}


def numbers_only(index: int) -> Any:
    return np.full(LARGE, index, np.float32)


def call(make: Any) -> Any:
    return make(0)


def odd(index: int) -> Any:
    """Other byte orders, memory orders and sizes."""
    x = np.arange(24.0, dtype=np.float32).reshape(4, 6)
    return x.astype(">f4"), np.asfortranarray(x), x[:0], np.float32(3) + np.zeros(()), np.array(["2026-01-01"], "M8[s]")


def doubled(sample: Any) -> Any:
    return [sample["x"], sample["x"] + 100]


def same(sample: Any) -> Any:
    return sample


def with_index(x: Any) -> Any:
    return int(x[0]), x


class Of:
    """Makes arrays of a dtype, and a torch tensor of it where ``is_torch``."""

    def __init__(self, dtype: str, is_torch: bool) -> None:
        self.dtype, self.is_torch = dtype, is_torch

    def __call__(self, index: int) -> Any:
        if self.is_torch:
            import torch

            return torch.tensor([[0.0, 1.0], [2.0, 3.0]]).to(getattr(torch, self.dtype))
        return np.arange(4).astype(getattr(ml_dtypes, self.dtype, self.dtype)).reshape(2, 2)


class Unsteady(Batches):
    """Fails at 5."""

    def __init__(self) -> None:
        super().__init__(numbers_only)

    def __getitem__(self, index: int) -> Any:
        if index == 5:
            raise LookupError("5")
        return index, super().__getitem__(index)


class OnlyIter:
    def __iter__(self) -> Iterator[Any]:
        for index in range(9):
            if index == 7:
                raise OSError("gone")
            yield np.full(LARGE, index)


def sparse(index: int) -> Any:
    import torch

    return {"x": (1, torch.eye(3).to_sparse())}


def nested(index: int) -> Any:
    import torch

    return [torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])]


def ragged(index: int) -> Any:
    import tensorflow as tf

    return Pair(1, tf.ragged.constant([[1], [2, 3]]))


def sparse_of_tensorflow(index: int) -> Any:
    import tensorflow as tf

    return Example(tf.sparse.from_dense([[1, 0]]), "a")


def sparse_of_jax(index: int) -> Any:
    from jax.experimental import sparse

    return sparse.BCOO.fromdense(np.eye(3))


def key(index: int) -> Any:
    import jax

    return {"key": jax.random.key(0)}
