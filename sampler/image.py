"""Read image files as arrays with Pillow, without TensorFlow, in any process or thread."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_int


def load_image(path: str | os.PathLike[str], target_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Read an image file, such as a JPEG, PNG or any other that Pillow reads, and return it as an RGB array.

    Args:
        path: the path of the file.
        target_size: the (height, width) in pixels to which the image is resized (bilinear, with antialiasing); None to
            keep its size.

    Returns:
        A uint8 array (height, width, 3), turned upright according to the EXIF data. Grey is repeated in all channels,
        transparency is dropped, and 16-bit values are reduced to their upper 8 bits unless all are below 256.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not an image, or is truncated; the error names it.
        TypeError, ValueError: ``target_size`` is not two positive integers.
    """
    from PIL import Image, ImageOps

    size = None if target_size is None else _check_size(target_size)
    try:
        with Image.open(path) as image:
            if size is not None and image.format == "JPEG":
                image.draft("RGB", (max(size), max(size)))  # decodes at half the size or less if that suffices
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # of 16 bits or more, which convert() would clip at 255
                values = np.maximum(np.asarray(upright), 0)
                surplus = -(-max(0, int(values.max()).bit_length() - 8) // 8) * 8
                upright = Image.fromarray((values >> surplus).astype(np.uint8))
            upright = upright.convert("RGB")
            if size is not None and upright.size != size:
                upright = upright.resize(size, Image.Resampling.BILINEAR)
            return np.array(upright)
    except FileNotFoundError:
        raise
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:  # Pillow's errors for files that it cannot read
        raise ValueError(f"{os.fspath(path)!r} cannot be read as an image: {error}") from error


def _check_size(target_size: Any) -> tuple[int, int]:
    """Return ``target_size``, (height, width), in Pillow's order, (width, height). Raise an error if it is wrong."""
    allowed = "target_size must be None or (height, width) in pixels"
    if not isinstance(target_size, (tuple, list)) or len(target_size) != 2:
        raise TypeError(f"{allowed}, not {target_size!r}")
    height, width = (check_int("target_size", each, 1, "None or two integers >= 1") for each in target_size)
    return width, height
