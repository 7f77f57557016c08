"""List the files of a data set that is stored in one folder for each class, as image data sets usually are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

IMAGES = ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"


class ClassFolders(NamedTuple):
    """The files that :func:`class_folders` found, as their paths and labels, and the names of the classes.

    ``classes`` are the names of the folders, sorted. Label ``i`` (int64) stands for ``classes[i]``.
    """

    paths: list[str]
    labels: NDArray[np.int64]
    classes: list[str]


def class_folders(path: str | os.PathLike[str], suffixes: Sequence[str] = IMAGES) -> ClassFolders:
    """Return the files below ``path``, which has one folder for each class, such as ``photos/cat/1.jpg``.

    Files and classes are sorted by name, so that all machines have the same order. Folders within a class are searched
    too. Hidden files and folders are left out.

    Args:
        path: the folder that contains the folders of the classes.
        suffixes: the endings of the file names to include, in lower case.

    Raises:
        FileNotFoundError: the folder ``path`` does not exist.
        ValueError: ``path`` has no folders, or the folder of a class has no files with these suffixes.
        TypeError: ``suffixes`` is a string.

    Source: ``torchvision.datasets.ImageFolder`` for the layout and the order.

    >>> paths, labels, classes = class_folders("photos")  # doctest: +SKIP
    >>> seq = MultiShotMemorySampler(paths, labels, load_example_fn=load_image)  # doctest: +SKIP
    """
    if isinstance(suffixes, str):
        raise TypeError(f"suffixes must be several, such as ({suffixes!r},), not a string")
    root = os.fspath(path)
    with os.scandir(root) as entries:
        classes = sorted(each.name for each in entries if each.is_dir() and not each.name.startswith("."))
    if not classes:
        raise ValueError(f"{root!r} has no folders: it must have one for each class, such as {root}/cat/1.jpg")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _files(os.path.join(root, name), tuple(suffixes))
        if not found:
            raise ValueError(
                f"class {name!r} of {root!r} has no files that end in {', '.join(suffixes)}: remove its folder, or "
                "give other suffixes"
            )
        paths += found
        labels += [label] * len(found)
    return ClassFolders(paths, np.array(labels, np.int64), classes)


def _files(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    found = []
    for here, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = (name for name in sorted(files) if not name.startswith(".") and name.lower().endswith(suffixes))
        found += [os.path.join(here, name) for name in names]
    return found
