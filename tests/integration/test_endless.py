"""A PyDataset whose ``num_batches`` is None has no end: neither has a loop over it."""

from __future__ import annotations

import itertools
from typing import Any

import keras
import numpy as np
import pytest

from workers import current_rng, prefetch


class Noise(keras.utils.PyDataset):  # type: ignore[misc]
    @property
    def num_batches(self) -> None:
        return None

    def __getitem__(self, index: int) -> Any:
        return np.array([index, current_rng().random()])


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_an_endless_dataset_is_a_stream(nb_workers: int) -> None:
    with prefetch(Noise(), nb_workers, seed=1) as batches:
        got = [batch.tolist() for batch in itertools.islice(batches, 500)]
        assert [index for index, _ in got] == list(range(500))
        iterator = iter(batches)  # the next epoch
        next(iterator)
        state = batches.state_dict()
        following = next(iterator).tolist()
        with pytest.raises(TypeError, match="does not end"):
            len(batches)
    with prefetch(Noise(), 0, seed=1) as batches:
        assert [batch.tolist() for batch in itertools.islice(batches, 500)] == got
        batches.load_state_dict(state)
        assert next(batches).tolist() == following
