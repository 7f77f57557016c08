"""A short form of each load of ``stress.py``. The seed is printed; STRESS_SEED=n runs with that one again."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import pytest
import stress

SIZES: dict[Callable[..., Any], int] = {
    stress.kills: 15,
    stress.new_shapes: 2000,
    stress.epochs: 40,
    stress.keeping: 800,
    stress.many_workers: 16,
    stress.tiny: 20_000,
    stress.walk: 100,
}


@pytest.mark.parametrize("load", SIZES, ids=lambda load: load.__name__)
def test_load(load: Callable[..., stress.Tally]) -> None:
    seed = int(os.environ.get("STRESS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"STRESS_SEED={seed}")
    tally = load(SIZES[load], seed)
    assert tally.delivered > 0
    assert tally.lost == 0
    assert tally.faults >= (SIZES[load] if load is stress.kills else 0)
