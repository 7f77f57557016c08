"""Numbers of a batch as colours of its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from pages import GRAY, PHOTO, first, float_of, in_gray, page_of

MAGENTA = (255, 0, 255)


@pytest.mark.parametrize(
    ("image", "off"),
    [
        (PHOTO, 0),
        (PHOTO.astype(np.uint16) * 257, 0),
        (PHOTO.astype(np.uint16), 0),
        (PHOTO.astype(np.int64), 0),
        (PHOTO.astype(np.int16) - 128, 0),
        (float_of(0, 1), 0),
        (float_of(0, 1, np.float16), 1),
        (float_of(0, 1, ml_dtypes.bfloat16), 1),
        (float_of(-1, 1), 0),
        (float_of(-1, 1, ml_dtypes.bfloat16), 1),
        (float_of(-1, 1, ml_dtypes.float8_e4m3fn), 10),
        (float_of(0, 255), 0),
        (float_of(-2.1, 2.6), 0),
        (float_of(-1, 1, np.float64) * 1e308, 0),
    ],
    ids=lambda value: f"{value.dtype}, {value.min()} to {value.max()}" if isinstance(value, np.ndarray) else "",
)
def test_numbers(image: NDArray[Any], off: int, tmp_path: Path) -> None:
    drawn = first(page_of(image[None], tmp_path))
    assert np.abs(drawn.astype(int) - PHOTO).max() <= off


def test_bool(tmp_path: Path) -> None:
    assert (first(page_of((GRAY > 127)[None], tmp_path)) == in_gray((GRAY > 127) * 255)).all()


def test_what_noise_adds_to_0_and_1_is_cut_off(tmp_path: Path) -> None:
    image = float_of(0, 1)
    image[5, 5], image[6, 6] = -0.05, 1.05
    drawn = first(page_of(image[None], tmp_path)).astype(int)
    assert drawn[5, 5].tolist() == [0] * 3
    assert drawn[6, 6].tolist() == [255] * 3
    assert np.abs(drawn[10:] - PHOTO[10:]).max() == 0


@pytest.mark.parametrize("low", [-3.0, 0.0])
def test_not_finite_is_magenta(low: float, tmp_path: Path) -> None:
    image = float_of(low, 1)
    image[3, 4, 1], image[7, 8] = np.nan, np.inf
    drawn = first(page_of(image[None], tmp_path))
    is_magenta = (drawn == MAGENTA).all(-1)
    assert np.argwhere(is_magenta).tolist() == [[3, 4], [7, 8]]
    assert (drawn[~is_magenta] == PHOTO[~is_magenta]).all()  # the range is of the others
    assert (first(page_of(image[None, :, :, 0], tmp_path))[7, 8] == MAGENTA).all()


def test_nothing_but_nan_and_nothing_but_one_number(tmp_path: Path) -> None:
    assert (first(page_of(np.full((1, 32, 32), np.nan), tmp_path)) == MAGENTA).all()
    assert (first(page_of(np.full((1, 32, 32), 7.5), tmp_path)) == 128).all()


def test_what_is_transparent_shows_squares(tmp_path: Path) -> None:
    image = np.dstack([PHOTO, np.zeros((32, 32), np.uint8)])
    image[16:, :, 3] = 255
    drawn = first(page_of(image[None], tmp_path))
    assert (drawn[16:] == PHOTO[16:]).all()
    assert {tuple(pixel) for pixel in drawn[:16].reshape(-1, 3).tolist()} == {(255,) * 3, (215,) * 3}


def test_a_range_is_of_those_that_are_drawn(tmp_path: Path) -> None:
    two = np.stack([float_of(0, 2), float_of(0, 2000)])
    assert (first(page_of(two, tmp_path, max_examples=1)) == PHOTO).all()
