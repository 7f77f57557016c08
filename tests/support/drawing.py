"""Sequences whose batches are draws, each of another kind: {kind: a number drawn}. One module for each framework.

What is at module level is used as a user's module would: called by hand in the test, then sent to workers.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from workers import Sequence, current_rng, current_seed

LENGTH = 6
IMAGES = np.random.default_rng(0).random((4, 8, 8, 3), np.float32)

module_generator = np.random.default_rng(3)


def number(value: Any) -> float:
    """A number that any other draw changes."""
    flat = np.asarray(value, np.float64).reshape(-1)
    return float(flat @ np.sqrt(np.arange(2, len(flat) + 2)))


class Drawing(Sequence):
    def __init__(self) -> None:
        super().__init__(seed=1)

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict[str, float]:
        return {kind: number(draw()) for kind, draw in self.kinds().items()}

    def kinds(self) -> dict[str, Any]:
        raise NotImplementedError


class OfNumpy(Drawing):
    """Also generators that a sequence holds, by which a copy in each worker would repeat itself."""

    def __init__(self) -> None:
        super().__init__()
        self.held = {"deep": [np.random.default_rng(5)]}
        self.legacy = np.random.RandomState(5)
        self.python = random.Random(5)
        in_closure = np.random.default_rng(6)
        self.draw = lambda: in_closure.normal(size=3)
        self.late: Any = None

    def kinds(self) -> dict[str, Any]:
        return {
            "numpy.random": lambda: np.random.random(3),
            "random": random.random,
            "current_rng": lambda: current_rng().random(3),
            "current_seed": current_seed,
            "current_seed again": current_seed,
            "a generator held": lambda: self.held["deep"][0].random(3),
            "a RandomState held": lambda: self.legacy.random(3),
            "a random.Random held": self.python.random,
            "a generator in a closure": self.draw,
            "a generator of a module": lambda: module_generator.random(3),
            "a generator made in the first job": self._late,
        }

    def _late(self) -> Any:
        if self.late is None:
            self.late = np.random.default_rng()
        return self.late.random(3)
