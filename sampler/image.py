"""Read image files as arrays: whole, or only a part of them, by the fastest decoder that is installed."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_bool, check_int, short
from workers.job.function_use import timed

from .decoding import (
    DECODERS,
    Box,
    CannotDecode,
    Decoder,
    by_pillow,
    decoder_named,
    ends_as_jpeg,
    is_there,
    upright_jpeg_size,
)

Image: TypeAlias = NDArray[np.uint8]
#: (top, left, height, width), in pixels, or as shares of the image's height and width.
Crop: TypeAlias = tuple[int, int, int, int] | tuple[float, float, float, float]
Backend: TypeAlias = Literal["auto", "simplejpeg", "cv2", "tensorflow", "pillow"]

_MODES = "RGB", "L", "RGBA"
_ORIENTATION = 0x0112  # of EXIF
_SCALES = 8, 4, 2  # by which a JPEG can be decoded smaller
#: {orientation of EXIF: what turns the array upright}.
_UPRIGHT: dict[int, Callable[[Any], Any]] = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}


def load_image(
    path: str | os.PathLike[str] | bytes,
    size: tuple[int, int] | None = None,
    crop: Crop | Callable[[int, int], Crop] | None = None,
    mode: Literal["RGB", "L", "RGBA"] = "RGB",
    backend: Backend = "auto",
    *,
    fast: bool = False,
) -> Image:
    """Read an image, such as a JPEG, PNG, WebP or any other that Pillow reads, and return it as an array.

    All decoders return the same pixels. JPEG files are decoded by ``backend``, all others by Pillow.

    Args:
        path: the path of the file, or its content as ``bytes``.
        size: the (height, width) in pixels to which the image, or the ``crop``, is resized (bilinear, with
            antialiasing). A JPEG that is at least twice as large is decoded at half the size or less. None to keep its
            size.
        crop: the part to return, (top, left, height, width): integers in pixels, or floats as shares of the image's
            height and width; or a function that returns this, of the image's height and width in pixels, such as
            ``functools.partial(random_resized_crop, current_rng())``. None for the whole image.
        mode: ``"RGB"``, ``"L"`` for grey, or ``"RGBA"``.
        backend: ``"simplejpeg"``, ``"cv2"`` (OpenCV), ``"tensorflow"``, which decodes little more than the crop, or
            ``"pillow"``. By default, TensorFlow for a crop if the program has loaded it; else the first one of them
            that is installed.
        fast: True to decode a JPEG with less exact arithmetic, and to resize without antialiasing, if OpenCV is
            installed: pixels differ by a few levels, and details that are finer than the new pixels by more.

    Returns:
        A uint8 array (height, width, 3), turned upright according to the EXIF data; (height, width) for ``"L"``,
        (height, width, 4) for ``"RGBA"``. For ``"RGB"``, grey is repeated in all channels and transparency is dropped.
        16-bit values are reduced to their upper 8 bits unless all are below 256.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: this is not an image, it is truncated or far too large, or the crop is not within it; the error
            names the file.
        TypeError, ValueError: another argument is wrong. ImportError: ``backend`` is not installed.

    Example:
        >>> from PIL import Image
        >>> Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save("black.png")
        >>> load_image("black.png", crop=(0, 0, 0.5, 0.5)).shape
        (24, 32, 3)
    """
    asked = _Asked(_checked_size(size), _checked_crop(crop), _checked(mode, "mode", _MODES), check_bool("fast", fast))
    decoder = decoder_named(_checked(backend, "backend", ("auto", *DECODERS, "pillow")), crop is not None)
    with timed("read"):
        content, name = _content(path)
    found: Image = _named(name, lambda: _loaded(content, asked, decoder))
    return found


def image_size(path: str | os.PathLike[str] | bytes) -> tuple[int, int]:
    """Return the (height, width) of an image in pixels, upright as :func:`load_image` returns it, without decoding it.

    Raises:
        FileNotFoundError, ValueError: as :func:`load_image`.
    """
    content, name = _content(path)
    found: tuple[int, int] = _named(name, lambda: upright_jpeg_size(content) or _size_by_pillow(content))
    return found


class _Asked(NamedTuple):
    """The arguments of :func:`load_image`."""

    size: tuple[int, int] | None
    crop: Any
    mode: str
    fast: bool


def _content(path: Any) -> tuple[bytes, str]:
    """Return (the bytes of the image, its name in error texts)."""
    if isinstance(path, (bytes, bytearray, memoryview)):
        return bytes(path), f"the image of {len(path):,} bytes"
    with open(path, "rb") as file:
        return file.read(), repr(os.fspath(path))


def _named(name: str, read: Callable[[], Any]) -> Any:
    """Return ``read()``, which reads the image called ``name``. Raise ValueError if it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        return read()
    except _NotWithinError as error:
        raise ValueError(f"{name} has {error}") from None
    except _OfFunctionError as raised:
        raise raised.error from None
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} cannot be read as an image: Pillow does not know its format") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


class _NotWithinError(Exception):
    """Raised if a crop is not within the image."""


class _OfFunctionError(Exception):
    """Raised if the user's function ``crop`` raises ``error``, or returns no crop."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _orientation_of(image: Any) -> int:
    return int(image.getexif().get(_ORIENTATION, 1))


def _size_of(image: Any, orientation: int) -> tuple[int, int]:
    width, height = image.size
    return (width, height) if orientation >= 5 else (height, width)


def _size_by_pillow(content: bytes) -> tuple[int, int]:
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return _size_of(image, _orientation_of(image))


def _loaded(content: bytes, asked: _Asked, decoder: Decoder | None) -> Image:
    """Return what was ``asked`` for of the image whose bytes are ``content``."""
    size = None if decoder is None else upright_jpeg_size(content)
    if decoder is not None and size is not None:
        asked = asked._replace(crop=_crop_of(asked, size))
        box = None if asked.crop is None else _box_of(asked.crop, size)
        scale = _scale_of(box or Box(0, 0, *size), asked)
        try:
            with timed("decode"):
                pixels, shown = decoder(content, size, scale, asked.fast, box if scale == 1 else None)
        except CannotDecode:
            pass  # Pillow then says why, or can
        else:
            return _finished(pixels, _within(box, shown), scale, asked)
    from PIL import Image

    with Image.open(io.BytesIO(content)) as image:
        return _by_pillow_first(content, image, asked, decoder)


def _by_pillow_first(content: bytes, image: Any, asked: _Asked, decoder: Decoder | None) -> Image:
    """Return what was ``asked`` for of ``image``, which Pillow has opened, and whose bytes are ``content``."""
    orientation, is_jpeg = _orientation_of(image), image.format in ("JPEG", "MPO")
    size = _size_of(image, orientation)
    asked = asked._replace(crop=_crop_of(asked, size))
    box = None if asked.crop is None else _box_of(asked.crop, size)
    scale = _scale_of(box or Box(0, 0, *size), asked) if is_jpeg and (box is None or orientation == 1) else 1
    pixels = None
    if decoder is not None and is_jpeg and image.mode in ("RGB", "L") and ends_as_jpeg(content):
        part = box if orientation == scale == 1 else None
        with contextlib.suppress(CannotDecode):
            with timed("decode"):
                pixels, shown = decoder(content, image.size[::-1], scale, asked.fast, part)
            box = _within(box, shown)
    if pixels is None:
        with timed("decode"):
            pixels = by_pillow(image, scale)
    if orientation in _UPRIGHT:
        pixels = _UPRIGHT[orientation](pixels)
    return _finished(pixels, box, scale, asked)


def _crop_of(asked: _Asked, size: tuple[int, int]) -> Any:
    if not callable(asked.crop):
        return asked.crop
    try:
        return _checked_crop(asked.crop(*size))
    except Exception as error:
        raise _OfFunctionError(error) from error


def _within(box: Box | None, shown: Box | None) -> Box | None:
    """Return ``box``, a part of an image, as a part of the part ``shown``."""
    if box is None or shown is None:
        return box
    return Box(box.top - shown.top, box.left - shown.left, box.height, box.width)


def _box_of(crop: Crop, size: tuple[int, int]) -> Box:
    """Return ``crop`` in pixels of an image of (height, width) ``size``."""
    height, width = size
    if isinstance(crop[0], float):
        ends = (crop[0] + crop[2]) * height, (crop[1] + crop[3]) * width
        top, left = round(crop[0] * height), round(crop[1] * width)
        top, left = min(top, height - 1), min(left, width - 1)
        return Box(top, left, max(1, round(ends[0]) - top), max(1, round(ends[1]) - left))
    box = Box(*(int(each) for each in crop))
    if box.top + box.height > height or box.left + box.width > width:
        raise _NotWithinError(f"{height} x {width} pixels, and so not the crop (top, left, height, width) = {crop}")
    return box


def _scale_of(box: Box, asked: _Asked) -> int:
    """Return how many times smaller a JPEG is to be decoded: 1, 2, 4 or 8."""
    if asked.size is None:
        return 1
    longest = max(asked.size) if asked.crop is None else 0
    height, width = (max(each, longest) for each in asked.size)
    return next((scale for scale in _SCALES if box.height // scale >= height and box.width // scale >= width), 1)


def _finished(pixels: Any, box: Box | None, scale: int, asked: _Asked) -> Image:
    """Return ``pixels``, decoded ``scale`` times smaller, cropped to ``box``, resized and in the mode asked for."""
    with timed("crop" if asked.size is None else "resize"):
        return _in_mode(_cut(pixels, box, scale, asked), asked.mode)


def _cut(pixels: Any, box: Box | None, scale: int, asked: _Asked) -> Any:
    if asked.size is not None:
        return _resized(pixels, box, scale, asked)
    return pixels if box is None else box.cut(pixels)


def _in_mode(pixels: Any, mode: str) -> Image:
    if mode == "RGB" and pixels.ndim == 3 and pixels.shape[2] == 3:
        is_own = pixels.flags.c_contiguous and pixels.flags.writeable
        return pixels if is_own else np.array(pixels, order="C")
    from PIL import Image

    return np.array(Image.fromarray(np.ascontiguousarray(pixels)).convert(mode))


def _resized(pixels: Any, box: Box | None, scale: int, asked: _Asked) -> Any:
    assert asked.size is not None
    height, width = asked.size
    box = box or Box(0, 0, *(length * scale for length in pixels.shape[:2]))
    if asked.fast and is_there("cv2"):
        return _resized_fast(pixels, box, scale, height, width)
    if (height, width) == pixels.shape[:2] and box == (0, 0, height, width):
        return pixels
    from PIL import Image

    corners = box.left, box.top, box.left + box.width, box.top + box.height
    within = tuple(min(corner / scale, length) for corner, length in zip(corners, pixels.shape[1::-1] * 2, strict=True))
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=within))


def _resized_fast(pixels: Any, box: Box, scale: int, height: int, width: int) -> Any:
    """Return ``box`` of ``pixels``, which are ``scale`` times smaller, resized without antialiasing."""
    import cv2

    if any(each % scale for each in box):  # the box begins or ends within a pixel
        down, right = box.height / height / scale, box.width / width / scale
        start = (box.left / scale + right / 2 - 0.5, box.top / scale + down / 2 - 0.5)
        matrix = np.array([[right, 0, start[0]], [0, down, start[1]]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(pixels, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    part = Box(*(each // scale for each in box)).cut(pixels)
    return cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR)


# -- the arguments


def _checked(value: Any, name: str, allowed: tuple[str, ...]) -> Any:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {short(value)}")
    return value


def _checked_size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"size must be None or (height, width) in pixels, not {short(size)}")
    height, width = (check_int("size", each, 1, "None or two integers >= 1") for each in size)
    return height, width


def _checked_crop(crop: Any) -> Any:
    if crop is None or callable(crop):
        return crop
    allowed = "(top, left, height, width), four integers in pixels, four floats between 0 and 1, or a function"
    if isinstance(crop, np.ndarray):
        crop = crop.tolist()
    if not isinstance(crop, (tuple, list)) or len(crop) != 4:
        raise TypeError(f"crop must be None or {allowed}, not {short(crop)}")
    if all(hasattr(type(each), "__index__") and not isinstance(each, bool) for each in crop):
        found = tuple(int(each) for each in crop)
        if min(found) < 0 or min(found[2:]) < 1:
            raise ValueError(f"crop must be {allowed}, with a height and width of at least 1, not {short(crop)}")
        return found
    if not all(isinstance(each, (float, int, np.floating)) and not isinstance(each, bool) for each in crop):
        raise TypeError(f"crop must be None or {allowed}, not {short(crop)}")
    shares = list(map(float, crop))
    top, left, height, width = shares
    is_within = top >= 0 and left >= 0 and height > 0 and width > 0 and top + height <= _ONE and left + width <= _ONE
    if not is_within:
        raise ValueError(f"crop must be {allowed}, within the image, not {short(crop)}")
    return top, left, height, width


_ONE = 1 + 1e-9
