"""``normalize``: images become floats where they are stacked; the right values, on any workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from any_workers import WORKERS, epochs_on
from shapes import exactly

from workers import normalize, prefetch

IMAGES = np.random.default_rng(0).integers(0, 256, (24, 20, 30, 3), np.uint8)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WANTED = ((IMAGES / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32)


def sample(index: int) -> Any:
    return {"image": IMAGES[index][:, ::-1], "mask": IMAGES[index][..., 0], "label": index, "name": f"n{index}"}


@pytest.mark.parametrize("channels_first", [False, True])
@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_values_on_any_workers(channels_first: bool, nb_workers: Any, executor: str) -> None:
    made = prefetch(list(range(24)), 0, seed=1).map(sample).batch(8, collate_fn=normalize(MEAN, STD, channels_first))
    found = epochs_on(made, nb_workers, executor, 1)[0]
    assert exactly(found) == exactly(epochs_on(made, 0, "process", 1)[0])
    for number, batch in enumerate(found):
        rows = slice(8 * number, 8 * number + 8)
        wanted = WANTED[rows, :, ::-1]
        image = batch["image"].transpose(0, 2, 3, 1) if channels_first else batch["image"]
        assert batch["image"].dtype == np.float32
        assert batch["image"].flags.c_contiguous
        assert np.allclose(image, wanted, atol=1e-6)
        assert np.array_equal(batch["mask"], IMAGES[rows, ..., 0])
        assert batch["label"].tolist() == list(range(24))[rows]
        assert batch["name"] == [f"n{index}" for index in range(24)[rows]]


@pytest.mark.needs("torch")
def test_grey_images_and_tensors() -> None:
    import torch

    grey = [np.full((4, 5, 1), value, np.uint8) for value in (0, 255)]
    assert normalize()(grey)[:, 0, 0, 0].tolist() == [0.0, 1.0]
    assert normalize(0.5, 0.25)(grey).shape == (2, 4, 5, 1)
    assert np.array_equal(normalize()([torch.from_numpy(each) for each in grey]), normalize()(grey))
    floats = [np.ones((4, 5, 3)), np.zeros((4, 5, 3))]
    assert np.array_equal(normalize(0.5)(floats), np.stack(floats))  # they are no images of uint8
    images, labels = normalize()([(each, at) for at, each in enumerate(grey)])
    assert images.dtype == np.float32
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"mean": "grey"}, TypeError),
        ({"mean": [[1.0]]}, TypeError),
        ({"mean": [0.1] * 5}, TypeError),
        ({"mean": float("nan")}, ValueError),
        ({"std": 0}, ValueError),
        ({"mean": (0.1, 0.2), "std": (1, 1, 1)}, ValueError),
        ({"channels_first": 1}, ValueError),
    ],
)
def test_wrong_arguments(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        normalize(**given)


def test_samples_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="3 channels"):
        normalize((0.1, 0.2), (1, 1))(list(IMAGES[:2]))
    with pytest.raises(ValueError, match="different shapes"):
        normalize()([IMAGES[0], IMAGES[1][:5]])
    with pytest.raises(ValueError, match="no samples"):
        normalize()([])
