"""Random generators that a sequence holds: where they are found, and which of them draw the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from workers.job.generators import Generators
from workers.job.stream import Stream

BITS = [np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64, np.random.MT19937]


class Holder:
    """An object with the attributes that it is given."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


def seeded(source: Any, index: int = 0) -> Generators:
    """The generators of ``source``, as job ``index`` has them."""
    found = Generators(lambda: [("source", source)])
    found.begin(0)
    stream = Stream(1, found)
    stream.begin(0, index)
    stream.seed_held()
    return found


def paths(found: Generators) -> list[str]:
    return [path for path in found._found if path.startswith("source")]


# -- bit generators


@pytest.mark.parametrize("kind", BITS)
def test_a_bare_bit_generator_is_seeded(kind: Any) -> None:
    bits = kind(5)
    found = seeded(Holder(bits=bits), 3)
    restore = found.save()
    drawn = bits.random_raw(3).tolist()
    seeded(Holder(bits=kind(6)), 3)
    assert paths(found) == ["source.bits"]
    for back in restore:
        back()
    assert bits.random_raw(3).tolist() == drawn
    other = kind(7)
    seeded(Holder(bits=other), 3)
    assert other.random_raw(3).tolist() == drawn  # wherever it stood before
    seeded(Holder(bits=other), 4)
    assert other.random_raw(3).tolist() != drawn


@pytest.mark.parametrize("kind", BITS)
@pytest.mark.parametrize("over", [np.random.Generator, np.random.RandomState])
@pytest.mark.parametrize("first", ["a_bits", "z_bits"])
def test_a_generator_over_a_bit_generator_that_is_held_too(kind: Any, over: Any, first: str) -> None:
    """It draws what it draws where its bit generator is held by nobody else."""
    alone = over(kind(5))
    seeded(Holder(m_generator=alone))
    bits = kind(5)
    generator = over(bits)
    found = seeded(Holder(**{"m_generator": generator, first: bits}))
    assert paths(found) == ["source.m_generator"]
    assert generator.normal(size=3).tolist() == alone.normal(size=3).tolist()


def test_a_bit_generator_of_the_same_seed_as_a_generator() -> None:
    """They draw the same numbers, and the generator those that it draws alone."""
    alone = np.random.default_rng(5)
    seeded(Holder(m=alone))
    generator, bits = np.random.default_rng(5), np.random.PCG64(5)
    seeded(Holder(a=bits, m=generator))
    assert np.random.Generator(bits).random(3).tolist() == generator.random(3).tolist() == alone.random(3).tolist()
