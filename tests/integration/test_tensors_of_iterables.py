"""Tensors of a source that has only ``__iter__`` reach functions as those of a map-style dataset do."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from workers import SequenceMap, prefetch

Pair = namedtuple("Pair", "x y")  # noqa: PYI024
COUNT = 5


class Own(torch.Tensor):
    """A class of the user's."""


def item(number: int, framework: str) -> Any:
    if framework == "jax":
        jnp = pytest.importorskip("jax.numpy")
        return {"x": jnp.full(3, number, jnp.float32), "pair": Pair([jnp.ones((), jnp.int32)], "name"), "z": np.ones(2)}
    if framework == "tf":
        tf = pytest.importorskip("tensorflow")
        return {"x": tf.fill([3], float(number)), "s": tf.constant(["a", "bc"]), "pair": Pair([tf.ones(())], "name")}
    if framework == "few":
        return {"x": torch.full((3,), float(number)), "array": np.full(2, number)}
    return {
        "x": torch.full((3,), float(number)),
        "pair": Pair([torch.tensor(number)], "name"),
        "bits": torch.ones(2, dtype=torch.bfloat16),
        "own": torch.full((2,), number).as_subclass(Own),  # type: ignore[attr-defined]
        "large": torch.full((300, 100), float(number)),
        "empty": torch.zeros(0, 3),
        "array": np.full(2, number),
        "dtype": torch.float16,
        "none": None,
    }


class Map(Dataset[Any]):
    def __init__(self, framework: str = "torch") -> None:
        self.framework = framework

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        return item(index, self.framework)


class Stream(IterableDataset[Any]):
    def __init__(self, framework: str = "torch") -> None:
        self.framework = framework

    def __iter__(self) -> Any:
        return (item(number, self.framework) for number in range(COUNT))


def told(value: Any) -> str:
    """What there is of a sample or of several, with all types."""
    if isinstance(value, dict):
        return repr({key: told(part) for key, part in value.items()})
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__}{[told(part) for part in value]}"
    if isinstance(value, torch.Tensor):
        return f"{type(value).__name__} {value.dtype} {value.tolist()}"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{type(value).__name__} {value.dtype} {value.shape} {np.asarray(value).tolist()}"
    return repr(value)


MAKERS: dict[str, Callable[..., Any]] = {
    "function": lambda source, workers: SequenceMap(source, workers, told),
    "collate_fn": lambda source, workers: prefetch(source, workers, batch_size=2, collate_fn=told),
    "batch": lambda source, workers: SequenceMap(source, workers, told).batch(2),
    "without batch_size": lambda source, workers: prefetch(source, workers, collate_fn=told),
}


@pytest.mark.parametrize(("workers", "name"), [(1, "collate_fn"), (1, "function"), *((0, name) for name in MAKERS)])
def test_functions_get_tensors(workers: int, name: str) -> None:
    make = MAKERS[name]
    with make(Map(), 0) as batches:
        expected = list(batches)
    assert "Tensor torch.float32" in str(expected)
    assert "Own torch.int64" in str(expected)
    with make(Stream(), workers) as batches:
        for _ in range(2):
            assert list(batches) == expected
    if name == "function" and workers == 0:
        with SequenceMap(Stream(), 1, told, executor="thread") as batches:
            assert list(batches) == expected


@pytest.mark.parametrize("framework", ["jax", "tf"])
def test_tensors_of_other_frameworks(framework: str) -> None:
    with MAKERS["collate_fn"](Map(framework), 0) as batches:
        expected = list(batches)
    with MAKERS["collate_fn"](Stream(framework), 0) as batches:
        assert list(batches) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_without_functions_they_are_arrays(workers: int) -> None:
    """As they are of a map-style dataset; no worker needs the framework."""

    def value(batch: Any) -> Any:
        return {key: (type(batch[key]), batch[key].tolist()) for key in ("x", "array")}

    for batch_size in (None, 2):
        with prefetch(Map("few"), 0, batch_size=batch_size) as batches:
            expected = [value(batch) for batch in batches]
        with prefetch(Stream("few"), workers, batch_size=batch_size) as batches:
            assert not batches._live.keeps_tensors()
            assert [value(batch) for batch in batches] == expected


def test_a_tensor_that_cannot_travel() -> None:
    class Sparse:
        def __iter__(self) -> Any:
            yield {"x": [torch.zeros(2).to_sparse()]}

    with SequenceMap(Sparse(), 0, told) as batches, pytest.raises(TypeError, match=r"batch\['x'\]\[0\].*sparse"):
        next(batches)
