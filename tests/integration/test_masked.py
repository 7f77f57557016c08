"""Masked arrays keep their masks, as data of a SequenceArray and of samplers, whoever computes the batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS, Several, epochs_on

from sampler import ContrastiveAugmenter, MultiShotMemorySampler, SingleShotMemorySampler, select_examples
from workers import SequenceArray

# An example's number is its first value; the others are masked where the number and the column say so.
MASK = np.array([[False, at % 2 == 0, at % 3 == 0] for at in range(8)])
X = np.ma.MaskedArray(np.arange(8)[:, None] + np.zeros(3, np.int64), MASK, fill_value=-7)
LARGE = np.ma.MaskedArray(np.repeat(X.data, 7000, axis=1), np.repeat(MASK, 7000, axis=1))
COLUMN = np.ma.MaskedArray(np.arange(8), MASK[:, 1])
RAGGED = [row[: 2 + at % 2] for at, row in enumerate(X)]
Y = np.arange(8) % 2


def as_it_is(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    return x, y


def cropped(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    return np.ma.stack([each[:2] for each in x]), y


def shot(x: Any, augmenter: Any = None, load: Any = None) -> Any:
    return SingleShotMemorySampler(x, augmenter, 4, 2, load_example_fn=load, seed=1)


SEQUENCES: dict[str, Callable[[], Any]] = {
    "batches": lambda: SequenceArray({"x": X}).batch(4),
    "large": lambda: SequenceArray({"x": LARGE}).batch(4),
    "rows in a list": lambda: SequenceArray({"x": list(X)}).batch(4),
    "positions": lambda: SequenceArray({"x": X}, np.arange(8)[::-1]).batch(4),
    "shuffled": lambda: SequenceArray({"x": X}, seed=1).shuffle().batch(4),
    "uids": lambda: SequenceArray({"x": X, "uid": np.arange(8)}).subsample_uids(range(8), "uid").batch(4),
    "single shot": lambda: shot(X),
    "a list": lambda: shot(list(X)),
    "large, single shot": lambda: shot(LARGE),
    "augmenter": lambda: shot(X, as_it_is),
    "views": lambda: shot(X, ContrastiveAugmenter(np.ma.array, 2)),
    "loaded": lambda: shot(range(8), None, X.__getitem__),
    "loaded and cropped": lambda: shot(range(8), cropped, RAGGED.__getitem__),
    "classes": lambda: MultiShotMemorySampler(X, Y, 2, 2, 2, seed=1),
}


def masked_parts(batch: Any) -> list[Any]:
    x = batch["x"] if isinstance(batch, dict) else batch[0]
    return list(x) if isinstance(x, tuple) else [x]


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_masks_are_kept(nb_workers: Any, executor: str) -> None:
    sequences = Several({name: make() for name, make in SEQUENCES.items()})
    for batch in epochs_on(sequences, nb_workers, executor, epochs=1)[0]:
        for name, part in batch.items():
            for x in masked_parts(part):
                assert type(x) is np.ma.MaskedArray, name
                assert x.dtype == np.int64
                assert x.shape[0] == 4
                width = x.shape[1] // 3 or 1
                assert np.array_equal(x.data[:, 0], x.data[:, -1]), name
                expected = np.repeat(MASK[x.data[:, 0]], width, axis=1)[:, : x.shape[1]]
                assert np.array_equal(np.ma.getmaskarray(x), expected), name


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_masked_numbers(nb_workers: Any, executor: str) -> None:
    """One number a sample: with masked ones or without, a batch is of the dtype of the data."""
    sequences: dict[str, Any] = {
        "array": SequenceArray({"x": COLUMN}).batch(2),
        "list": SequenceArray({"x": list(COLUMN)}).batch(2),
        "sampler": SingleShotMemorySampler(COLUMN, None, 2, 4, seed=1),
        "loaded": SingleShotMemorySampler(range(8), None, 2, 4, load_example_fn=COLUMN.__getitem__, seed=1),
    }
    found: dict[str, list[Any]] = {name: [] for name in sequences}
    for batch in epochs_on(Several(sequences), nb_workers, executor, epochs=1)[0]:
        for name, part in batch.items():
            (x,) = masked_parts(part)
            assert x.dtype == np.int64 or (name == "loaded" and x.mask.all()), name
            found[name] += x.tolist()
    expected: list[Any] = [None if at % 2 == 0 else at for at in range(8)]
    assert found["array"] == found["list"] == expected
    assert sorted(found["sampler"], key=str) == sorted(found["loaded"], key=str) == sorted(expected, key=str)


def test_select_examples_and_slices() -> None:
    x, _ = select_examples(X, Y, seed=1)
    assert np.array_equal(np.ma.getmaskarray(x), MASK[x.data[:, 0]])
    x, _ = MultiShotMemorySampler(X, Y, seed=1).get_slice(2, 3)
    assert np.array_equal(np.ma.getmaskarray(x), MASK[2:5])
    assert x.fill_value == -7


def test_a_state_of_masked_examples_is_that_of_others() -> None:
    shot(X).load_state_dict(shot(np.zeros((8, 3))).state_dict())
