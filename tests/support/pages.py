"""A picture of a batch, read back: where on the page which image is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import workers

MARGIN, LINE = 16, 18  # of the page, and of the words above an image
STEP = 128 + 14  # from one example to the next
PHOTO = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
PHOTO[0, 0], PHOTO[0, 1] = 0, 255  # so that the least and the greatest number are known
GRAY = PHOTO[:, :, 0]


def page_of(batch: Any, tmp_path: Path, **options: Any) -> NDArray[np.uint8]:
    path = tmp_path / "batch.png"
    assert workers.preview(batch, path, **options) == path
    with Image.open(path) as page:
        assert page.format == "PNG"
        return np.asarray(page.convert("RGB"))


def at(page: NDArray[np.uint8], left: int, top: int, height: int = 32, width: int = 32) -> NDArray[np.uint8]:
    """The image there, of which each pixel was drawn as 4 x 4."""
    return page[top : top + 4 * height : 4, left : left + 4 * width : 4]


def first(page: NDArray[np.uint8], has_labels: bool = False) -> NDArray[np.uint8]:
    return at(page, MARGIN, MARGIN + LINE * has_labels)


def in_gray(image: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(image[:, :, None], 3, axis=2)


def float_of(low: float, high: float, dtype: Any = np.float32) -> NDArray[Any]:
    return (PHOTO / 255 * (high - low) + low).astype(dtype)


def objects(*items: Any) -> NDArray[Any]:
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = item
    return array
