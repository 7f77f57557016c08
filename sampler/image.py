"""Image files as arrays, by Pillow: no TensorFlow, in any process or thread."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_int


def load_image(path: str | os.PathLike[str], target_size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """A JPEG or PNG file, or another one that Pillow reads, as an RGB image.

    Args:
        path: of the file.
        target_size: (height, width) in pixels to which it is resized (bilinear, with antialiasing); None: as it is.

    Returns:
        uint8 (height, width, 3), 0 to 255, as the camera was held. Gray is repeated, transparency left out, and of
        16 bits the upper 8 are kept.

    Raises:
        FileNotFoundError: there is no such file. ValueError: it is no image, or cut short; names the file.
        TypeError, ValueError: ``target_size`` is not two positive integers.
    """
    from PIL import Image, ImageOps

    size = None if target_size is None else _check_size(target_size)
    try:
        with Image.open(path) as image:
            if size is not None and image.format == "JPEG":
                image.draft("RGB", (max(size), max(size)))  # decodes at a half or less where that is enough
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits, of which convert() would cut off the upper ones
                values = np.asarray(upright)
                upright = Image.fromarray((values >> 8 if values.max() > 255 else values).astype(np.uint8))
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
    ) as error:  # what Pillow raises of files that it cannot read
        raise ValueError(f"{os.fspath(path)!r} cannot be read as an image: {error}") from error


def _check_size(target_size: Any) -> tuple[int, int]:
    """(width, height), as Pillow has it."""
    allowed = "target_size must be None or (height, width) in pixels"
    if not isinstance(target_size, (tuple, list)) or len(target_size) != 2:
        raise TypeError(f"{allowed}, not {target_size!r}")
    height, width = (check_int("target_size", each, 1, "None or two integers >= 1") for each in target_size)
    return width, height
