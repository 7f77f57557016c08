"""Photos for ``photos``: JPEG files made from those that scikit-image and scikit-learn ship; how each is cropped."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 64
SIZE = 224


def make_photos(folder: str, number: int) -> None:
    """Write ``number`` JPEG files of about 90 KB, and a tar file of them, into ``folder``."""
    import tarfile

    import cv2
    import skimage.data
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    of_skimage: Any = skimage.data
    photos = [of_skimage.astronaut(), of_skimage.chelsea(), of_skimage.coffee(), *load_sample_images()["images"]]
    paths = []
    for at in range(number):
        photo = photos[at % len(photos)]
        width, height = int(rng.integers(560, 720)), int(rng.integers(420, 540))
        pixels: Any = cv2.resize(photo[:, :, ::-1], (width, height), interpolation=cv2.INTER_CUBIC)
        pixels = np.clip(pixels + rng.normal(0, 7, pixels.shape), 0, 255).astype(np.uint8)
        paths.append(os.path.join(folder, f"{at:06d}.jpg"))
        cv2.imwrite(paths[-1], pixels, [cv2.IMWRITE_JPEG_QUALITY, 87])
    Path(folder, "paths.json").write_text(json.dumps(paths))
    for shard in range(8):
        with tarfile.open(os.path.join(folder, f"shard-{shard}.tar"), "w") as tar:
            for path in paths[shard::8]:
                tar.add(path, os.path.basename(path))


def paths_in(folder: str) -> list[str]:
    found: list[str] = json.loads(Path(folder, "paths.json").read_text())
    return found


@functools.lru_cache(maxsize=100_000)
def crop_of(index: int, height: int, width: int) -> tuple[tuple[int, int, int, int], bool]:
    """Return (the part of photo ``index`` as (top, left, height, width); whether it is mirrored): the same always."""
    from sampler import random_resized_crop

    rng = np.random.default_rng(index)
    return random_resized_crop(rng, height, width), bool(rng.random() < 0.5)


def decoded(path: str) -> Any:

    with open(path, "rb") as file:
        return decoded_bytes(file.read())


def decoded_bytes(content: bytes) -> Any:
    import cv2

    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)


def finished(photo: Any, index: int) -> Any:
    """Return the part of ``photo`` that :func:`crop_of` names, resized and perhaps mirrored."""
    import cv2

    (top, left, height, width), is_mirrored = crop_of(index, *photo.shape[:2])
    resized = cv2.resize(photo[top : top + height, left : left + width], (SIZE, SIZE))
    return resized[:, ::-1] if is_mirrored else resized


def plain(path: str, index: int) -> Any:
    return finished(decoded(path), index)


def with_load_image(path: str, index: int, fast: bool = False, backend: Any = "auto") -> Any:
    """Return the same as :func:`plain`, by ``load_image(crop=...)``, which may decode less."""
    import cv2

    from sampler import load_image

    is_mirrored = False

    def crop(height: int, width: int) -> tuple[int, int, int, int]:
        nonlocal is_mirrored
        box, is_mirrored = crop_of(index, height, width)
        return box

    size = (SIZE, SIZE)
    resized: Any = (
        load_image(path, size, crop, backend=backend, fast=True)
        if fast
        else cv2.resize(load_image(path, crop=crop, backend=backend), size)
    )
    return resized[:, ::-1] if is_mirrored else resized


def only_one_thread() -> None:
    """Keep OpenCV from starting threads of its own, in this process: a worker has one core."""
    import cv2

    cv2.setNumThreads(0)
