"""Converts images of any dtype and layout to 8-bit pixels for drawing."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = np.ndarray[Any, Any]

NOT_FINITE = (255, 0, 255)  # magenta: NaN or infinite
_SLACK = 0.1  # tolerance around [0, 1] and [-1, 1], for resizing and a little noise
CHANNELS = (1, 3, 4)


class Pixels(NamedTuple):
    """Images ready to be drawn, as 8-bit numbers, and the numbers that they show as black and as white."""

    images: list[NDArray[np.uint8]]  # each (height, width, 1, 3 or 4)
    black: float  # the number drawn as black
    white: float  # the number drawn as white
    has_not_finite: bool


def is_number(dtype: np.dtype[Any]) -> bool:
    """Return True if ``dtype`` is an integer, float or bool, or one of ``ml_dtypes`` such as bfloat16."""
    return dtype.kind in "buif" or dtype.type.__module__.partition(".")[0] == "ml_dtypes"


def pixels_of(images: list[Array], layout: str) -> Pixels:
    """Return ``images`` as 8-bit pixels, all scaled from the same range of numbers.

    Args:
        images: images of one dtype; their sizes may differ.
        layout: the layout of each image: ``"HWC"``, ``"CHW"`` or ``"HW"``.
    """
    channels_last = [_channels_last(image, layout) for image in images]
    if all(image.dtype == np.uint8 for image in images):
        return Pixels([image.copy() for image in channels_last], 0, 255, False)
    numbers = [_as_floats(image) for image in channels_last]
    finite = [number[np.isfinite(number)] for number in numbers]
    low = min((float(number.min()) for number in finite if number.size), default=0.0)
    high = max((float(number.max()) for number in finite if number.size), default=1.0)
    black, white = _range_of(images[0].dtype, low, high)
    has_not_finite = any(number.size < each.size for number, each in zip(finite, numbers, strict=True))
    return Pixels([_scaled(number, black, white) for number in numbers], black, white, has_not_finite)


def _channels_last(image: Array, layout: str) -> Array:
    if layout == "HW":
        return image[:, :, None]
    return np.moveaxis(image, 0, -1) if layout == "CHW" else image


def _as_floats(image: Array) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return image.astype(np.float64)


def _range_of(dtype: np.dtype[Any], low: float, high: float) -> tuple[float, float]:
    """Return (the number to draw as black, the number to draw as white) for images of ``dtype``.

    ``low`` and ``high`` are the smallest and the greatest number in the images.
    """
    if dtype.kind == "b":
        return 0.0, 1.0
    if dtype == np.uint16 and high > 255:  # otherwise it holds 8-bit numbers
        return 0.0, 65535.0
    if dtype == np.uint16:
        return 0.0, 255.0
    if dtype.kind not in "ui":
        if low >= -_SLACK and high <= 1 + _SLACK:
            return 0.0, 1.0
        if low >= -1 - _SLACK and high <= 1 + _SLACK:
            return -1.0, 1.0
    return low, high


def _scaled(number: NDArray[np.float64], black: float, white: float) -> NDArray[np.uint8]:
    is_finite = np.isfinite(number)
    # Halved first, as their difference may overflow.
    span = white / 2 - black / 2
    share = (np.where(is_finite, number, black) / 2 - black / 2) / span if span > 0 else np.full(number.shape, 0.5)
    image = np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    return image if is_finite.all() else _with_marks(image, np.asarray(~is_finite.all(axis=-1)))


def _with_marks(image: NDArray[np.uint8], is_marked: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return ``image`` in colour, with the marked pixels, a (height, width) array, in the colour ``NOT_FINITE``."""
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    image[is_marked] = (*NOT_FINITE, 255)[: image.shape[-1]]
    return image
