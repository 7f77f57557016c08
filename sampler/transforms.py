"""Random transforms of images: pure functions of a generator, such as ``workers.current_rng()``, and an image.

An image is a uint8 array (height, width, 3) in RGB. No function writes into its argument. OpenCV does the work: the
extra ``photos`` installs it.

Source: torchvision.transforms for the arguments and their defaults, "A Simple Framework for Contrastive Learning of
Visual Representations" (Chen et al., 2020, appendix A) for the order of the colour jitter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_int

Image = NDArray[np.uint8]
Rng = np.random.Generator

_ATTEMPTS = 10
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
_MAX_LEVEL = 10  # of a magnitude in rand_augment


def random_resized_crop(
    rng: Rng,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tuple[int, int, int, int]:
    """Return a random part of an image of ``height`` x ``width`` pixels, as (top, left, height, width) in pixels.

    It is what :func:`load_image` takes as ``crop``, so that no more than this part is decoded.

    Args:
        scale: the least and greatest share of the image's area.
        ratio: the least and greatest ratio of width to height; its logarithm is drawn uniformly.

    Source: ``torchvision.transforms.RandomResizedCrop``.

    >>> random_resized_crop(np.random.default_rng(0), 480, 640)
    (32, 212, 448, 396)
    """
    height, width = check_int("height", height, 1), check_int("width", width, 1)
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_ATTEMPTS):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*log_ratio))
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            return int(rng.integers(height - high + 1)), int(rng.integers(width - wide + 1)), high, wide
    aspect = min(max(width / height, ratio[0]), ratio[1])  # the largest part in the middle
    wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
    return (height - high) // 2, (width - wide) // 2, high, wide


def random_flip(rng: Rng, image: Image, probability: float = 0.5) -> Image:
    """Return ``image`` mirrored left to right with this ``probability``, else as it is."""
    return image[:, ::-1] if rng.random() < probability else image


def color_jitter(
    rng: Rng,
    image: Image,
    brightness: float = 0.8,
    contrast: float = 0.8,
    saturation: float = 0.8,
    hue: float = 0.2,
) -> Image:
    """Return ``image`` with random brightness, contrast, saturation and hue, changed in a random order.

    Args:
        brightness, contrast, saturation: each is multiplied by a number between 1 - this and 1 + this, at least 0.
        hue: the most by which the hue is turned, as a share of the full circle, 0 to 0.5.
    """
    factors = [rng.uniform(max(0.0, 1 - each), 1 + each) for each in (brightness, contrast, saturation)]
    turn = rng.uniform(-hue, hue)
    changes: list[Callable[[Image], Image]] = [
        lambda image: _blended(image, 0.0, factors[0]),
        lambda image: _blended(image, round(float((image.reshape(-1, 3).mean(0) * _GREY).sum())), factors[1]),
        lambda image: _blended(image, _luminance(image)[..., None], factors[2]),
        lambda image: _turned(image, turn),
    ]
    for number in rng.permutation(len(changes)).tolist():
        image = changes[number](image)
    return image


def grayscale(image: Image) -> Image:
    """Return ``image`` without colours, still with three channels."""
    return np.repeat(_rounded(_luminance(image))[..., None], 3, 2)


def solarize(image: Image, threshold: int = 128) -> Image:
    """Return ``image`` with all values of ``threshold`` and more inverted."""
    return np.where(image < threshold, image, 255 - image).astype(np.uint8)


def gaussian_blur(image: Image, sigma: float, kernel_size: int | None = None) -> Image:
    """Return ``image`` blurred with a standard deviation of ``sigma`` pixels.

    ``kernel_size``: the width of the kernel in pixels, rounded up to an odd number; None for a tenth of the height.
    """
    size = max(1, image.shape[0] // 10 if kernel_size is None else kernel_size) | 1
    found: Image = _cv2().GaussianBlur(np.ascontiguousarray(image), (size, size), sigma)
    return found


def resize(image: Image, size: tuple[int, int]) -> Image:
    """Return ``image`` resized to (height, width) ``size``: bilinear, without antialiasing."""
    if image.shape[:2] == tuple(size):
        return image
    cv2 = _cv2()
    found: Image = cv2.resize(np.ascontiguousarray(image), tuple(size)[::-1], interpolation=cv2.INTER_LINEAR)
    return found


def rand_augment(rng: Rng, image: Image, num_layers: int = 2, magnitude: float = 9.0) -> Image:
    """Return ``image`` after ``num_layers`` transforms, each drawn from fourteen.

    Args:
        magnitude: how strong they are, 0 to 10.

    Source: "RandAugment" (Cubuk et al., 2019), section 3.
    """
    for number in rng.integers(len(_LAYERS), size=check_int("num_layers", num_layers, 0)).tolist():
        sign = -1.0 if rng.random() < 0.5 else 1.0
        image = _LAYERS[number](image, magnitude / _MAX_LEVEL, sign)
    return image


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "this transform needs OpenCV: pip install opencv-python-headless, or the extra photos"
        ) from error
    return cv2


def _rounded(values: Any) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)  # type: ignore[no-any-return]


def _luminance(image: Image) -> NDArray[np.float32]:
    return image.astype(np.float32) @ _GREY


def _blended(image: Image, other: Any, factor: float) -> Image:
    """Return ``other`` + (``image`` - ``other``) * ``factor``."""
    return _rounded(image * np.float32(factor) + np.float32(1 - factor) * other)


def _turned(image: Image, turn: float) -> Image:
    cv2 = _cv2()
    hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2HSV_FULL)
    hsv[..., 0] += np.uint8(round(turn * 256) % 256)  # 256 steps are the full circle
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL)  # type: ignore[no-any-return]


def _moved(image: Image, matrix: list[list[float]]) -> Image:
    """Return ``image`` moved by an affine ``matrix``, 2 x 3; what comes in from outside is grey."""
    cv2 = _cv2()
    height, width = image.shape[:2]
    moved: Image = cv2.warpAffine(
        np.ascontiguousarray(image), np.array(matrix, np.float64), (width, height), borderValue=(128, 128, 128)
    )
    return moved


def _rotated(image: Image, level: float, sign: float) -> Image:
    height, width = image.shape[:2]
    return _moved(image, _cv2().getRotationMatrix2D((width / 2, height / 2), 30 * level * sign, 1))


def _stretched(image: Image) -> Image:
    """Return ``image`` with the values of each channel stretched to 0 to 255."""
    low, high = image.min((0, 1)).astype(np.float32), image.max((0, 1)).astype(np.float32)
    span = np.where(high > low, high - low, 255)
    return _rounded((image - np.where(high > low, low, 0)) * (255 / span))


def _equalized(image: Image) -> Image:
    cv2 = _cv2()
    return np.stack([cv2.equalizeHist(np.ascontiguousarray(image[..., at])) for at in range(3)], -1)


def _sharpened(image: Image, level: float, sign: float) -> Image:
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
    smooth = _cv2().filter2D(np.ascontiguousarray(image), -1, kernel)
    return _blended(image, smooth, 1 + 0.9 * level * sign)


#: Functions of (an image, the level from 0 to 1, the sign: 1 or -1).
_LAYERS: tuple[Callable[[Image, float, float], Image], ...] = (
    lambda image, level, sign: image,
    lambda image, level, sign: _stretched(image),
    lambda image, level, sign: _equalized(image),
    _rotated,
    lambda image, level, sign: solarize(image, round(256 * (1 - level))),
    lambda image, level, sign: image & np.uint8(0xFF << round(4 * level) & 0xFF),  # fewer bits
    lambda image, level, sign: _blended(image, _luminance(image)[..., None], 1 + 0.9 * level * sign),
    lambda image, level, sign: _blended(image, round(float(_luminance(image).mean())), 1 + 0.9 * level * sign),
    lambda image, level, sign: _blended(image, 0.0, 1 + 0.9 * level * sign),
    _sharpened,
    lambda image, level, sign: _moved(image, [[1, 0.3 * level * sign, 0], [0, 1, 0]]),
    lambda image, level, sign: _moved(image, [[1, 0, 0], [0.3 * level * sign, 1, 0]]),
    lambda image, level, sign: _moved(image, [[1, 0, 0.45 * level * sign * image.shape[1]], [0, 1, 0]]),
    lambda image, level, sign: _moved(image, [[1, 0, 0], [0, 1, 0.45 * level * sign * image.shape[0]]]),
)
