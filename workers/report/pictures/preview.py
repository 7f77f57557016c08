"""Draw a batch of images as a picture, to show what the model is going to see."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.batch.tree import as_numpy
from workers.checks import check_choice, check_int

from .images import LAYOUTS, Images, images_of, labels_of, leaves_of
from .pixels import Pixels, pixels_of
from .plot import check_path
from .plot_labels import shortened

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

_PAPER, _INK, _CHECKS = (236, 236, 236), (40, 40, 40), ((255, 255, 255), (215, 215, 215))
_MARGIN, _GAP, _VIEW_GAP, _TEXT = 16, 14, 2, 13  # pixels
_SIDE, _LEAST_SIDE = 128, 24  # longer side of an image
_MANY = 256  # images; if there are more, each is smaller


def preview(
    batch: Any,
    path: str | os.PathLike[str],
    *,
    layout: str | None = None,
    views: int = 1,
    max_examples: int = 64,
) -> Path:
    """Draw the images of a batch with their labels, and the views of an example side by side.

    Images are uint8, bool (black and white), uint16 (of 16 bits, or of 8), or floats from 0 to 1 or from -1 to 1. Other
    numbers are drawn with their smallest as black and their greatest as white. The last line of the picture states the
    range. NaN and infinity are magenta; transparent pixels show a chequered background.

    Args:
        batch: images, or a tuple, list, dict or dataclass that contains some, as arrays or as tensors of torch, JAX or
            TensorFlow. An object array, or a list, may hold images of different sizes. If several arrays hold the same
            number of images, as in ``((view_1, view_2), y)``, row i of each is example i. Labels are numbers, strings
            or one-hot rows, one for each example; an item named label, y, target or class takes precedence.
        path: the file to write: ``.png`` or ``.jpg``.
        layout: the layout of a batch of images, ``"NHWC"``, ``"NCHW"`` or ``"NHW"``, or of a single image or each item
            of an object array, ``"HWC"``, ``"CHW"`` or ``"HW"``. None: guessed from the axis of length 1, 3 or 4, the
            last axis first.
        views: how many consecutive rows are views of one example, as ``num_augmentations_per_example`` of a sampler
            makes them. If the labels show that all first views precede all second ones, that order is used.
        max_examples: the most examples to draw, from the first on.

    Returns:
        ``path``.

    Raises:
        TypeError: the batch contains no images; names its arrays.
        TypeError, ValueError, OSError: an argument has the wrong type or is out of range, or ``path`` cannot be
            written.

    Example:
        >>> import tempfile, numpy as np
        >>> images, labels = np.random.default_rng(0).random((16, 32, 32, 3)), np.arange(16)
        >>> preview((images, labels), tempfile.mkdtemp() + "/batch.png").name
        'batch.png'
    """
    file = check_path(path, (".png", ".jpg", ".jpeg"))
    check_choice("layout", layout, (None, *LAYOUTS))
    views, max_examples = check_int("views", views, 1), check_int("max_examples", max_examples, 1)
    leaves = list(leaves_of(as_numpy(batch)))
    found = images_of(leaves, layout)
    labels = labels_of(leaves, found)
    rows = _rows_of_examples(len(found[0].images), views, labels)
    shown = rows[:max_examples]
    pixels = [pixels_of([images.images[row] for rows in shown for row in rows], images.layout) for images in found]
    # For each example, the views of the first array, then those of the next one.
    cells = [[each.images[at * views + view] for each in pixels for view in range(views)] for at in range(len(shown))]
    titles = None if labels is None else [_title(labels, rows) for rows in shown]
    drawn = io.BytesIO()
    page = _page([[_image(cell) for cell in row] for row in cells], titles, _caption(found, pixels, shown, len(rows)))
    page.save(drawn, "PNG" if file.suffix.lower() == ".png" else "JPEG", quality=95)
    file.write_bytes(drawn.getvalue())
    return file


def _rows_of_examples(num_rows: int, views: int, labels: list[str] | None) -> list[list[int]]:
    """Return the rows (indices in the batch) of each example, which has ``views`` of them.

    [[0, 1], [2, 3]], or [[0, 2], [1, 3]] if the labels show that all first views precede all second ones.
    """
    if num_rows == 0:
        raise ValueError("batch must hold at least one image, not 0")
    if num_rows % views:
        raise ValueError(f"views must divide the number of images, which is {num_rows}, not {views}")
    num = num_rows // views
    in_turn = [list(range(at * views, (at + 1) * views)) for at in range(num)]
    apart = [list(range(at, num_rows, num)) for at in range(num)]
    return apart if _mixes(in_turn, labels) and not _mixes(apart, labels) else in_turn


def _mixes(rows: list[list[int]], labels: list[str] | None) -> bool:
    """Return True if ``rows``, which gives the rows of each example, would put rows with different labels together."""
    return labels is not None and any(labels[row] != labels[of_one[0]] for of_one in rows for row in of_one)


def _title(labels: list[str], rows: list[int]) -> str:
    return ", ".join(dict.fromkeys(labels[row] for row in rows))


def _caption(found: list[Images], pixels: list[Pixels], shown: list[list[int]], num: int) -> str:
    """Return the last line of the picture: how many examples are drawn, and which numbers are black and white."""
    several = len(found) > 1
    parts = [f"{len(shown):,} of {num:,} examples" if len(shown) < num else f"{num:,} example{'s' * (num > 1)}"]
    facts = {}
    for images, drawn in zip(found, pixels, strict=True):
        text = f"{images.images[0].dtype}, black is {drawn.black:.4g}, white is {drawn.white:.4g}"
        facts[text + (", magenta is not finite" if drawn.has_not_finite else "")] = images.leaf.place
    parts += [f"batch{place}: {text}" if several and len(facts) > 1 else text for text, place in facts.items()]
    return "; ".join(parts)


def _image(pixels: Any) -> Image:
    """Return ``pixels``, an array of 8 bits (height, width, channels), as a Pillow image, in RGB or RGBA."""
    from PIL import Image

    if pixels.shape[-1] == 1:
        return Image.fromarray(pixels[:, :, 0]).convert("RGB")
    return Image.fromarray(pixels)


def _page(rows: list[list[Image]], titles: list[str] | None, caption: str) -> Image:
    """Return the picture: a block with the images of each example, in as many columns as make the page about square."""
    from PIL import Image, ImageDraw

    num_images = sum(map(len, rows))
    side = max(_LEAST_SIDE, int(_SIDE * min(1.0, math.sqrt(_MANY / num_images))))
    rows = [[_resized(image, side) for image in row] for row in rows]
    width, height = (max(size) for size in zip(*(image.size for row in rows for image in row), strict=True))
    line = _TEXT + 5 if titles else 0
    block = len(rows[0]) * (width + _VIEW_GAP) - _VIEW_GAP + _GAP, height + line + _GAP
    columns = min(len(rows), max(1, round(math.sqrt(len(rows) * block[1] / block[0]))))
    font = _font()
    lines = _wrapped(caption, max(columns * block[0] - _GAP, 400), font)
    lower = _MARGIN + -(-len(rows) // columns) * block[1]
    page_width = 2 * _MARGIN + max(columns * block[0] - _GAP, *(int(font.getlength(each)) + 1 for each in lines))
    page = Image.new("RGB", (page_width, lower + len(lines) * (_TEXT + 5) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    for at, row in enumerate(rows):
        left, top = _MARGIN + at % columns * block[0], _MARGIN + at // columns * block[1]
        if titles:
            draw.text((left, top), _cut(titles[at], block[0] - _GAP, font), _INK, font)
        for view, image in enumerate(row):
            _paste(page, image, left + view * (width + _VIEW_GAP), top + line)
    for at, text in enumerate(lines):
        draw.text((_MARGIN, lower + at * (_TEXT + 5)), text, _INK, font)
    return page


def _resized(image: Image, side: int) -> Image:
    """Return ``image`` with its longer side at most ``side`` pixels; a small one is enlarged by a whole factor."""
    from PIL import Image

    longer = max(image.size)
    if longer <= side:
        times = side // longer
        return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    size = max(1, image.width * side // longer), max(1, image.height * side // longer)
    return image.resize(size, Image.Resampling.BOX)


def _paste(page: Image, image: Image, left: int, top: int) -> None:
    if image.mode != "RGBA":
        page.paste(image, (left, top))
        return
    from PIL import Image

    size = 8  # of a square
    squares = Image.new("L", (-(-image.width // size), -(-image.height // size)))
    squares.putdata([(x + y) % 2 * 255 for y in range(squares.height) for x in range(squares.width)])
    squares = squares.resize((squares.width * size, squares.height * size), Image.Resampling.NEAREST)
    squares = squares.crop((0, 0, image.width, image.height))
    place = left, top, left + image.width, top + image.height
    page.paste(_CHECKS[0], place)
    page.paste(_CHECKS[1], place, squares)
    page.paste(image, (left, top), image)


def _font() -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(_TEXT)


def _cut(text: str, width: int, font: FreeTypeFont | ImageFont) -> str:
    """Return as much of ``text``, ended by "…" if it is cut, as fits into ``width`` pixels."""
    text = shortened(text, 200)
    if font.getlength(text) <= width:
        return text
    return next((part for end in range(len(text), 0, -1) if font.getlength(part := text[:end] + "…") <= width), "")


def _wrapped(text: str, width: int, font: FreeTypeFont | ImageFont) -> list[str]:
    """Return the words of ``text`` in lines of at most ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        lines = [*lines[:-1], longer] if font.getlength(longer) <= width else [*lines, word]
    return lines
