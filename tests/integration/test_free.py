"""A loop over free data: one batch, again and again; the report says what the loader costs."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest

from workers import Sequence, SequenceArray, prefetch

LENGTH = 30


class Slow(Sequence[Any]):
    """Batches that take a while."""

    def __init__(self) -> None:
        super().__init__(seed=1)

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.002)
        return np.full((4, 8), index, np.float32), np.arange(4)


def read(batches: Any) -> list[Any]:
    found = []
    for batch in batches:
        found.append(batch)
        time.sleep(0.001)
    return found


@pytest.mark.parametrize("nb_workers", [0, 1, "auto"])
def test_the_report_says_what_the_loader_costs(nb_workers: Any) -> None:
    with Slow().prefetch(nb_workers) as batches:
        free = batches.free()
        assert len(free) == LENGTH
        assert batches.report().cost is None
        assert "data are free" in free.report().verdict
        state = batches.state_dict()
        delivered = read(free)
        assert len(delivered) == LENGTH
        assert len({id(x) for x, _ in delivered}) == 1
        assert np.array_equal(delivered[0][0], np.zeros((4, 8)))
        assert batches.state_dict() == state  # it has not moved
        assert batches.report().cost is None  # nothing to compare with yet
        read(batches)
        told, other = batches.report(), free.report()
        assert told.cost is not None
        assert told.cost == pytest.approx(other.cost)
        paid, gratis = (made._live.figures.loop.copy().interval for made in (batches, free))
        assert told.cost == pytest.approx(max(0.0, 1 - gratis / paid))
        for verdict in (told.verdict, other.verdict):
            assert re.search(r"The loader costs [\d.]+ % of an epoch: a batch takes .* if data were free", verdict), (
                verdict
            )


@pytest.mark.needs("torch")
def test_what_a_front_end_does_in_the_loop_is_free_too() -> None:
    import torch

    calls: list[int] = []

    def collate(batch: Any, source: Any) -> Any:
        calls.append(1)
        return batch[0]

    with Slow().prefetch(0, output="torch") as tensors, Slow().map(None, 0, collate_fn=collate) as collated:
        assert all(isinstance(x, torch.Tensor) for x, _ in read(tensors.free()))
        assert {x.shape for x in read(collated.free())} == {(4, 8)}
        assert len(calls) == 1


@pytest.mark.needs("keras")
def test_in_fit() -> None:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with Slow().prefetch(1) as batches:
        free = batches.free()
        for data in (batches, free):
            model.fit(data, epochs=1, verbose=0)
        assert batches.report().cost == pytest.approx(free.report().cost)


def test_jobs_that_deliver_several_batches() -> None:
    with prefetch([1, 2, 3], 0, seed=1).map(lambda row: [np.zeros(row), np.ones(row)]).prefetch(0) as batches:
        with pytest.raises(TypeError, match=r"any number of batches.*free\(batch\)"):
            batches.free()
        with pytest.raises(ValueError, match="length must be"):
            batches.free(np.ones(2), 0)


def test_what_cannot_be_read_by_index() -> None:
    with prefetch(iter([np.zeros(2)] * 3), 0) as batches:
        with pytest.raises(TypeError, match=r"free\(batch\)"):
            batches.free()
        with pytest.raises(TypeError, match=r"free\(batch, length=...\)"):
            batches.free(np.ones(2))
        assert [batch.tolist() for batch in batches.free(np.ones(2), 3)] == [[1, 1]] * 3


def test_without_batches_there_is_none_to_deliver() -> None:
    with prefetch(SequenceArray({"x": np.zeros(0)}, seed=1), 0) as batches:
        with pytest.raises(IndexError, match="has no batches"):
            batches.free()
        assert list(batches.free(np.ones(2))) == []
