"""Rows of arrays of any memory order, and of mapped files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import SequenceArray
from workers.sequence.gather import gather

ORDERS: dict[str, Callable[[Any], Any]] = {
    "C": lambda x: x,
    "Fortran": np.asfortranarray,
    "channels last": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 1)), 1, -1),
    "slice": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "every other": lambda x: np.repeat(x, 2, axis=0)[::2],
    "backwards": lambda x: x[::-1].copy()[::-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "big-endian": lambda x: x.astype(">f8"),
    "masked": np.ma.MaskedArray,
    "objects": lambda x: x.astype(object),
}
X = np.random.default_rng(0).random((50, 4, 6, 3))


@pytest.mark.parametrize("order", ORDERS)
def test_any_memory_order(order: str) -> None:
    x = ORDERS[order](X)
    for positions in (np.array([3, 3, 49, 0]), np.array([], np.int64), np.array([-1])):
        got = gather(x, positions)
        assert type(got) is type(x)
        assert got.dtype == x.dtype
        assert not np.shares_memory(got, x)
        assert np.array_equal(got, x[positions])
    samples = SequenceArray({"x": x}, sampler=[5, 2]).batch(2)[0]["x"]
    assert np.array_equal(samples, x[[5, 2]])


@pytest.mark.parametrize("order", ["Fortran", "channels last", "slice"])
def test_samplers_do_not_go_through_the_whole_array(order: str) -> None:
    """A batch of a large array takes the memory of its rows."""
    x = ORDERS[order](np.zeros((4000, 16, 16, 3)))
    y = np.arange(4000) % 10
    single = SingleShotMemorySampler(x, None, class_per_batch=8, seed=1)
    multi = MultiShotMemorySampler(x, y, 4, 2, seed=1)
    single[0], multi[0]
    tracemalloc.start()
    try:
        for at in range(5):
            single[at], multi[at]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < x.nbytes / 10


@pytest.mark.parametrize("offset", [0, 24, 4096])
def test_memmap(tmp_path: Path, offset: int) -> None:
    """Whole, a part of it, and behind an offset: the rows are asked for at the right place."""
    with open(tmp_path / "x", "wb") as file:
        file.write(b"-" * offset + X.tobytes())
    x: Any = np.memmap(tmp_path / "x", X.dtype, "r", offset=offset, shape=X.shape)
    positions = np.array([49, 0, 7, -2])
    for part, expected in [(x, X), (x[10:], X[10:]), (x[::2], X[::2]), (x[:, 1:], X[:, 1:])]:
        got = gather(part, positions % len(part))
        assert type(got) is np.ndarray
        assert np.array_equal(got, expected[positions % len(part)])
    assert np.array_equal(gather(x, positions), X[positions])


def test_a_state_loads_no_example() -> None:
    """The one that it would be may be gone, or take its time."""
    loaded: list[int] = []

    def load(item: int) -> Any:
        loaded.append(item)
        return np.full(3, item)

    for seq in (
        SingleShotMemorySampler(range(10), None, 2, load_example_fn=load, seed=1),
        MultiShotMemorySampler(range(10), np.arange(10) % 5, load_example_fn=load, seed=1),
    ):
        seq.load_state_dict(seq.state_dict())
        assert not loaded
        assert seq.example_shape == (3,)
        loaded.clear()
