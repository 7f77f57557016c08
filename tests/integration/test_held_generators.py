"""Generators that a sequence holds draw the same on any number of workers, and after a resume."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scripted import scripted

from workers import Sequence

LENGTH = 6


def read(make: Any, nb_workers: Any, epochs: int = 2) -> list[Any]:
    """The batches of ``epochs``; with "auto", the loop and its workers take turns."""
    with make().prefetch(nb_workers) as batches:
        if nb_workers == "auto":
            scripted(batches, lambda look: (None, None, 2, None, None, 0)[look % 6])
        return [batch for _ in range(epochs) for batch in batches]


class BareBits(Sequence[Any]):
    """Bit generators, and a generator over one of them."""

    def __init__(self) -> None:
        super().__init__(seed=1)
        kinds = np.random.PCG64, np.random.Philox, np.random.SFC64, np.random.MT19937
        self.bits = {kind.__name__: kind(5) for kind in kinds}
        self.shared = np.random.PCG64(6)
        self.over = np.random.Generator(self.shared)
        self.legacy = np.random.RandomState(np.random.Philox(7))
        self.draw = np.random.SFC64(8).random_raw

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        drawn = [bits.random_raw() for bits in self.bits.values()]
        return [*drawn, self.over.random(), self.shared.random_raw(), self.legacy.normal(), self.draw()]


@pytest.mark.parametrize("nb_workers", [1, 2, "auto"])
def test_bare_bit_generators(nb_workers: Any) -> None:
    serial = read(BareBits, 0)
    assert [len(set(column)) for column in zip(*serial, strict=True)] == [2 * LENGTH] * len(serial[0])
    assert read(BareBits, nb_workers) == serial
