"""A loop that keeps one array of each batch keeps the memory of that array, and of no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS, epochs_on

import workers
from workers import Sequence, SequenceArray, prefetch

IMAGES = 400_000  # bytes
MASKS = 50_000


class Pairs(Sequence[Any]):
    """Images, labels and masks of each batch."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        masks = workers.empty(MASKS, np.uint8) if index % 2 else np.empty(MASKS, np.uint8)
        masks[:] = index
        return np.full(IMAGES, index, np.uint8), np.full(64, index), {"masks": masks}


def held_nbytes(array: Any) -> int:
    """The memory that ``array`` keeps from being used again."""
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return int(memoryview(array).nbytes) if not isinstance(array, np.ndarray) else array.nbytes


def arrays_of(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return arrays_of(list(batch.values()))
    return [array for part in batch for array in arrays_of(part)] if isinstance(batch, (list, tuple)) else [batch]


def stream() -> Any:
    return iter([Pairs()[index] for index in range(12)])


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_no_array_keeps_another(nb_workers: Any, executor: str) -> None:
    samples = {"x": np.zeros((480, 100, 100), np.uint8), "y": np.arange(480)}
    sequences: list[Any] = [Pairs(), SequenceArray(samples).batch(40)]
    if nb_workers != "auto":
        sequences.append(prefetch(stream(), 0))
    for sequence in sequences:
        (epoch,) = epochs_on(sequence, nb_workers, executor, 1)
        for array in arrays_of(epoch):
            assert held_nbytes(array) <= (2 * array.nbytes + 8192 if array.nbytes > 32768 else array.nbytes)


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_what_is_kept_is_as_it_was_delivered(nb_workers: Any, executor: str) -> None:
    """While the rest of each batch is used again: images of one batch, labels of the next, masks of the third."""
    kept = []
    with Pairs().prefetch(nb_workers=nb_workers, executor=executor) as batches:
        for _ in range(4):
            kept += [arrays_of(batch)[index % 3] for index, batch in enumerate(batches)]
    assert [set(array.tolist()) for array in kept] == 4 * [{index} for index in range(12)]
