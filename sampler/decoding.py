"""Decode images, whole or in part, by the libraries that are installed: the same pixels by any of them."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

_BEGIN, _END, _EXIF = b"\xff\xd8", b"\xff\xd9", b"Exif\0\0"  # of a JPEG
_MARGIN = 8  # pixels around a crop, on which the upsampled colours of its border depend


class Box(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Any) -> Any:
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


class CannotDecode(Exception):
    """Raised by a decoder for an image that it does not know, or that is damaged."""


#: A function of (content of a JPEG, its (height, width), scale, fast, the part that is needed). It returns the pixels
#: (height, width, 3), and the part that they show; None for the whole image.
Decoder: TypeAlias = Callable[[bytes, tuple[int, int], int, bool, "Box | None"], "tuple[Any, Box | None]"]


def ends_as_jpeg(content: bytes) -> bool:
    """Return True if a JPEG is there to its end: OpenCV would return grey for what is missing."""
    return _END in content[-64:]


def upright_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Return the (height, width) of a JPEG in colour or grey without EXIF data, without the help of Pillow, which takes
    40 us. Return None for anything else, and if the size is unknown, or is so large that Pillow would warn of it."""
    if content[:2] != _BEGIN or not ends_as_jpeg(content) or _EXIF in content or not is_there("simplejpeg"):
        return None
    import simplejpeg
    from PIL import Image

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    is_usual = colours in ("YCbCr", "Gray") and height * width <= (Image.MAX_IMAGE_PIXELS or np.inf)
    return (height, width) if is_usual else None


def by_pillow(image: Any, scale: int) -> Any:
    """Return the pixels of an image that Pillow has opened, in the mode RGB, RGBA or L, not turned upright."""
    if scale > 1:
        image.draft("RGB", tuple(length // scale for length in image.size))
    if image.mode.startswith("I"):  # of 16 bits or more, which convert() would clip at 255
        values = np.maximum(np.asarray(image), 0)
        surplus = -(-max(0, int(values.max()).bit_length() - 8) // 8) * 8
        return np.repeat((values >> surplus).astype(np.uint8)[..., None], 3, 2)
    has_alpha = image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


def _by_simplejpeg(content: bytes, size: tuple[int, int], scale: int, fast: bool, part: Box | None) -> tuple[Any, None]:
    import simplejpeg

    try:
        least = dict(zip(("min_height", "min_width"), (-(-each // scale) for each in size), strict=True))
        return simplejpeg.decode_jpeg(content, "RGB", fast, fast, **(least if scale > 1 else {})), None
    except ValueError as error:
        raise CannotDecode from error


def _by_cv2(content: bytes, size: tuple[int, int], scale: int, fast: bool, part: Box | None) -> tuple[Any, None]:
    import cv2

    flag = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4}.get(
        scale, cv2.IMREAD_REDUCED_GRAYSCALE_8
    )
    colour = getattr(cv2, "IMREAD_COLOR_RGB", None)
    flags = flag | (cv2.IMREAD_COLOR if colour is None else colour) | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None:
        raise CannotDecode
    return (pixels[:, :, ::-1] if colour is None else pixels), None


def _by_tensorflow(
    content: bytes, size: tuple[int, int], scale: int, fast: bool, part: Box | None
) -> tuple[Any, Box | None]:
    import tensorflow as tf

    how: Any = {"channels": 3, "ratio": scale, "dct_method": "INTEGER_FAST" if fast else "INTEGER_ACCURATE"}
    how |= {"fancy_upscaling": not fast}
    try:
        if part is None:
            return _array(tf.raw_ops.DecodeJpeg(contents=content, **how)), None
        height, width = size
        top, left = max(0, part.top - _MARGIN), max(0, part.left - _MARGIN)
        bottom = min(height, part.top + part.height + _MARGIN)
        right = min(width, part.left + part.width + _MARGIN)
        part = Box(top, left, bottom - top, right - left)
        return _array(tf.raw_ops.DecodeAndCropJpeg(contents=content, crop_window=part, **how)), part
    except tf.errors.InvalidArgumentError as error:
        raise CannotDecode from error


def _array(tensor: Any) -> Any:
    """Return a read-only array over the memory of a TensorFlow tensor."""
    return np.asarray(memoryview(tensor))


DECODERS: dict[str, Decoder] = {"simplejpeg": _by_simplejpeg, "cv2": _by_cv2, "tensorflow": _by_tensorflow}


def decoder_named(name: str, has_crop: bool) -> Decoder | None:
    """Return the decoder of JPEG files called ``name``; None for Pillow."""
    if name != "auto":
        if name != "pillow" and not is_there(name):
            raise ImportError(f"backend={name!r} is not installed: pip install {_PACKAGES[name]}, or leave it out")
        return DECODERS.get(name)
    if has_crop and hasattr(sys.modules.get("tensorflow"), "raw_ops"):
        return _by_tensorflow
    return next((DECODERS[each] for each in ("simplejpeg", "cv2") if is_there(each)), None)


@functools.cache
def is_there(package: str) -> bool:
    """Return True if ``package`` can be imported."""
    return importlib.util.find_spec(package) is not None


_PACKAGES = {"simplejpeg": "simplejpeg", "cv2": "opencv-python-headless", "tensorflow": "tensorflow"}
