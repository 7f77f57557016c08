"""Finds the images in a batch by their shapes, and their labels by shape and by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from workers.batch.nodes import node_of

from .pixels import CHANNELS, Array, is_number

#: The layouts of a batch of images, or of one image.
LAYOUTS = ("NHWC", "NCHW", "NHW", "HWC", "CHW", "HW")
_LABELS = ("label", "labels", "y", "target", "targets", "class", "classes")


class Leaf(NamedTuple):
    """An array in a batch: Leaf("[0]['image']", "image", array). Images of different sizes form one object array."""

    place: str
    name: str  # its key in a dict or its field; "": none
    array: Array

    def __str__(self) -> str:
        return f"batch{self.place}: {self.array.dtype} {self.array.shape}"


class Images(NamedTuple):
    """The images in one array of a batch, one for each example: Images(Leaf(...), [image, image, ...], "HWC")."""

    leaf: Leaf
    images: list[Array]
    layout: str  # of a single image


def leaves_of(batch: Any, place: str = "", name: str = "") -> Iterator[Leaf]:
    """Yield the arrays in ``batch``, in order. Tensors must be converted to arrays before.

    A list or tuple of numbers or strings, or of single images, is one array.

    Args:
        place: the path of ``batch`` itself, with which all paths begin, e.g. ``[0]['image']``.
        name: its key or the name of its field; "": none.
    """
    if isinstance(batch, np.ndarray):
        yield Leaf(place, name, batch)
        return
    if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
        if batch and all(isinstance(part, (bool, int, float, str, bytes, np.generic)) for part in batch):
            yield Leaf(place, name, np.array(batch))
            return
        if _are_examples(batch):
            yield Leaf(place, name, _as_objects(batch))
            return
    node = node_of(batch)
    if node is not None:
        for key, step, part in zip(node.keys, node.steps(), node.parts, strict=True):
            yield from leaves_of(
                part, place + step, name if type(key) is int and not node.form.is_mapping else str(key)
            )


def _are_examples(parts: tuple[Any, ...] | list[Any]) -> bool:
    """Return True if each item of ``parts`` is one image. In a tuple, (3, h, w) may be a batch of 3 gray images."""
    layouts = {_layout_of_one(part) for part in parts}
    return layouts == {"HWC"} or (layouts == {"CHW"} and isinstance(parts, list))


def images_of(leaves: list[Leaf], layout: str | None) -> list[Images]:
    """Return those of ``leaves``, the arrays of a batch, that hold images, all of the same number of examples.

    Args:
        leaves: the arrays of a batch.
        layout: the layout of the images, one of :data:`LAYOUTS`; None: guessed, and arrays of four axes then take
            precedence over those of three.

    Raises:
        TypeError: no array holds images; names the arrays.
    """
    if layout is not None:
        found = [images for leaf in leaves if (images := _as_images(leaf, layout))]
    else:
        guesses = [(leaf, _guess(leaf.array)) for leaf in leaves]
        most = max((len(guess) for _, guess in guesses if guess), default=0)
        # Gray images of the same size as the others are their masks.
        sizes = {_size(leaf.array, guess) for leaf, guess in guesses if guess and len(guess) == most}
        mine = [(leaf, guess) for leaf, guess in guesses if guess and _size(leaf.array, guess) in sizes]
        found = [images for leaf, guess in mine if (images := _as_images(leaf, guess))]
    if not found:
        of = "" if layout is None else f" of layout {layout!r}"
        there = "; ".join(map(str, leaves)) or "no arrays"
        raise TypeError(f"batch must hold images{of}, with {_shown(CHANNELS)} channels, but it holds {there}")
    return [images for images in found if len(images.images) == len(found[0].images)]


def labels_of(leaves: list[Leaf], images: list[Images]) -> list[str] | None:
    """Return the label of each example as text, from the arrays of a batch that hold no images; None: there are none.

    Arrays with the name of a label, such as "label" or "y", take precedence.
    """
    num = len(images[0].images)
    others = [leaf for leaf in leaves if not any(leaf is each.leaf for each in images)]
    named = [leaf for leaf in others if leaf.name.lower() in _LABELS]
    return next((found for leaf in [*named, *others] if (found := _labels(leaf.array, num))), None)


def _labels(array: Array, num: int) -> list[str] | None:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.shape[1] > 1 and is_number(array.dtype) and _is_one_hot(array):
        array = array.argmax(axis=1)
    return [_label(value) for value in array] if array.shape == (num,) else None


def _is_one_hot(array: Array) -> bool:
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def _label(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return f"{value:.3g}" if isinstance(value, (float, np.floating)) else str(value)


def _guess(array: Array) -> str | None:
    """Return the likely layout of the images in ``array``, e.g. "NHWC"; None: they cannot be images."""
    if array.dtype.hasobject:
        layouts = {_layout_of_one(item) for item in array} if array.ndim == 1 and len(array) else {None}
        layout = layouts.pop()
        return None if layout is None or layouts else f"N{layout}"
    if not is_number(array.dtype) or 0 in array.shape[1:]:
        return None
    if array.ndim == 4 and CHANNELS.count(array.shape[3]):
        return "NHWC"
    if array.ndim == 4 and CHANNELS.count(array.shape[1]):
        return "NCHW"
    if array.ndim == 3:
        return "HWC" if _layout_of_one(array) == "HWC" else "NHW"
    return None


def _layout_of_one(image: Any) -> str | None:
    """Return the likely layout of a single image, e.g. "HWC"; None if ``image`` cannot be one."""
    if not isinstance(image, np.ndarray) or not is_number(image.dtype) or 0 in image.shape:
        return None
    if image.ndim == 3 and image.shape[2] in CHANNELS:
        return "HWC"
    if image.ndim == 3 and image.shape[0] in CHANNELS:
        return "CHW"
    return "HW" if image.ndim == 2 else None


def _size(array: Array, layout: str) -> tuple[int, ...] | None:
    """Return (number, height, width) of the images in ``array``; (number,) if their sizes may differ."""
    if array.dtype.hasobject:
        return (len(array),)
    axes = dict(zip(layout, array.shape, strict=True))
    return axes.get("N", 1), axes["H"], axes["W"]


def _as_images(leaf: Leaf, layout: str) -> Images | None:
    """Return the images in ``leaf``, an array of a batch; None if they do not have ``layout``."""
    one = layout.removeprefix("N")
    images = list(leaf.array) if leaf.array.dtype.hasobject and leaf.array.ndim else None
    if images is None:
        if leaf.array.ndim != len(layout):
            return None
        images = list(leaf.array) if layout.startswith("N") else [leaf.array]
    are_images = all(
        isinstance(image, np.ndarray)
        and image.ndim == len(one)
        and is_number(image.dtype)
        and 0 not in image.shape
        and ("C" not in one or image.shape[one.index("C")] in CHANNELS)
        for image in images
    )
    return Images(leaf, images, one) if are_images else None


def _as_objects(items: tuple[Array, ...] | list[Array]) -> Array:
    array = np.empty(len(items), object)
    for at, item in enumerate(items):  # one by one: numpy would split arrays of equal shape into their elements
        array[at] = item
    return array


def _shown(numbers: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} or {numbers[-1]}"
