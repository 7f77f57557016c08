"""Whether two batches are the same, byte for byte, and in which leaf they are not."""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest

from workers.engine.comparison import difference


@dataclasses.dataclass
class Data:
    x: Any


@dataclasses.dataclass(eq=False)
class Plain:
    x: Any


class Pair(NamedTuple):
    x: Any
    y: Any


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x


class NoTruth:
    def __eq__(self, other: object) -> Any:
        raise ValueError("neither")

    __hash__ = None  # type: ignore[assignment]


SAME = [
    np.arange(6.0),
    np.arange(6.0).reshape(2, 3).T,
    np.array([np.nan, -0.0]),
    np.array(["a", "bc"]),
    np.array([1, "a", None, [2]], object),
    np.zeros(2, [("a", "i1"), ("b", "f8")]),
    np.zeros((0, 3)),
    np.array(3),
    np.ma.masked_array([1, 2], [False, True]),
    {"x": [1, (2.0, "c", b"d")], 1: None},
    Data(np.ones(2)),
    Plain(np.ones(2)),
    Pair(1, np.ones(2)),
    Slotted(1),
    Slotted(np.ones(2)),
    UserDict(x=np.ones(2)),
    deque([np.ones(2)]),
    NoTruth(),
    float("nan"),
    {1, 2},
    np.float32(1),
]


@pytest.mark.parametrize("value", SAME, ids=lambda value: type(value).__name__)
def test_a_copy_is_the_same(value: Any) -> None:
    assert difference(value, copy.deepcopy(value)) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "found"),
    [
        (np.ones(2), np.ones(2, np.float32), "batch is float64 of shape (2,) in the loop, but float32"),
        (np.ones(2), np.ones(3), "batch is float64 of shape (2,) in the loop"),
        (np.array([1.0, 2.0]), np.array([1.0, 3.0]), f"batch[1] is {np.float64(2.0)!r} in the loop"),
        (np.array([0.0]), np.array([-0.0]), "batch[0] is"),
        (np.array(1), np.array(2), f"batch is {np.int64(1)!r}"),
        ({"x": 1}, {"y": 1}, "batch is a container with keys ['x']"),
        ({"x": (1, 2)}, {"x": (1, 3)}, "batch['x'][1] is 2 in the loop, but 3"),
        ([1], [1, 2], "batch is of length 1"),
        (1, 1.0, "batch is a int in the loop"),
        (0.0, -0.0, "batch is 0.0 in the loop"),
        ("a", "b", "batch is 'a'"),
        (Data(1), Data(2), "batch.x is 1"),
        (Plain(np.ones(1)), Plain(np.zeros(1)), "batch.x[0] is"),
        (Pair(1, 2), Pair(1, 3), "batch.y is 2"),
        (Slotted(np.ones(2)), Slotted(np.zeros(2)), "batch.x[0] is"),
        (UserDict(x=np.ones(2)), UserDict(x=np.zeros(2)), "batch['x'][0] is"),
        (deque([1, np.ones(2)]), deque([1, np.zeros(2)]), "batch[1][0] is"),
        ({1: 2}, {True: 2}, "batch is a container with keys [1]"),
        (np.ma.masked_array([1, 2], [False, True]), np.ma.masked_array([1, 2], [True, True]), "batch.mask[0] is"),
        (np.ma.masked_array([1, 2], [False, True]), np.ma.masked_array([0, 2], [False, True]), "batch.data[0] is"),
        (np.array([1, "a"], object), np.array([1, "b"], object), "batch[1] is 'a'"),
        (None, 1, "batch is a NoneType"),
    ],
)
def test_what_differs_is_named(mine: Any, theirs: Any, found: str) -> None:
    assert (difference(mine, theirs) or "").startswith(found)
