"""Pictures of batches: one image is drawn, in all the ways that a batch may hold it, and read back from the page."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from pages import GRAY, LINE, MARGIN, PHOTO, STEP, at, first, in_gray, objects, page_of
from PIL import Image

import workers
from sampler import Augmenter, ContrastiveAugmenter, SingleShotMemorySampler


@pytest.mark.parametrize(
    ("batch", "layout"),
    [
        (PHOTO[None], None),
        (PHOTO[None], "NHWC"),
        (np.moveaxis(PHOTO, 2, 0)[None], None),
        (np.moveaxis(PHOTO, 2, 0)[None], "NCHW"),
        (PHOTO, None),
        (PHOTO, "HWC"),
        (np.moveaxis(PHOTO, 2, 0), "CHW"),
        (objects(PHOTO), None),
        (objects(PHOTO), "NHWC"),
        (objects(np.moveaxis(PHOTO, 2, 0)), None),
        (objects(np.moveaxis(PHOTO, 2, 0)), "CHW"),
        ([PHOTO], None),
        ([np.moveaxis(PHOTO, 2, 0)], None),
        (np.dstack([PHOTO, np.full((32, 32), 255, np.uint8)])[None], None),
    ],
)
def test_layouts(batch: Any, layout: str | None, tmp_path: Path) -> None:
    assert (first(page_of(batch, tmp_path, layout=layout)) == PHOTO).all()


@pytest.mark.parametrize(
    ("batch", "layout"),
    [
        (GRAY[None], None),
        (GRAY[None], "NHW"),
        (GRAY[None, :, :, None], None),
        (GRAY[None, None], None),
        (GRAY, "HW"),
        (objects(GRAY), None),
        (np.stack([GRAY[:, :4]] * 5), "NHW"),  # would be taken for an image of 4 channels
    ],
)
def test_layouts_of_gray_images(batch: Any, layout: str | None, tmp_path: Path) -> None:
    width = 4 if batch.shape[-1] == 4 else 32
    page = page_of(batch, tmp_path, layout=layout)
    assert (at(page, MARGIN, MARGIN, 32, width) == in_gray(GRAY[:, :width])).all()


class Pair(NamedTuple):
    x: Any
    y: Any


@dataclasses.dataclass
class Item:
    image: Any
    uid: Any


@pytest.mark.parametrize(
    "batch",
    [
        (PHOTO[None], np.array([3])),
        [PHOTO[None], [3]],
        {"label": np.array(["cat"]), "image": PHOTO[None]},
        {"image": PHOTO[None], "embedding": np.zeros((1, 8, 16)), "uid": np.array([[7]])},
        ({"image": PHOTO[None]}, np.eye(3)[:1]),
        Pair(PHOTO[None], objects("a label")),
        Item(PHOTO[None], np.array([b"bytes"])),
        (PHOTO[None], np.array([0.25])),
    ],
)
def test_labels_are_above(batch: Any, tmp_path: Path) -> None:
    page = page_of(batch, tmp_path)
    assert (first(page, has_labels=True) == PHOTO).all()
    assert page[MARGIN : MARGIN + LINE, MARGIN : MARGIN + 128].min() < 100, "no ink"


@pytest.mark.parametrize("second", [np.random.default_rng(0).normal(size=(1, 16)), np.arange(5), "text", None])
def test_what_is_no_label_is_not_drawn(second: Any, tmp_path: Path) -> None:
    assert (first(page_of((PHOTO[None], second), tmp_path)) == PHOTO).all()


def test_which_labels() -> None:
    from workers.report.pictures.images import images_of, labels_of, leaves_of

    def labels(batch: Any) -> list[str] | None:
        leaves = list(leaves_of(batch))
        return labels_of(leaves, images_of(leaves, None))

    two = np.stack([PHOTO, PHOTO])
    assert labels((two, np.array([4, 2]))) == ["4", "2"]
    assert labels({"uid": np.array([7, 8]), "image": two, "Label": ["cat", "dog"]}) == ["cat", "dog"]
    assert labels({"image": two, "uid": np.array([7, 8])}) == ["7", "8"]
    assert labels((two, np.eye(4)[[3, 1]])) == ["3", "1"]
    assert labels((two, np.array([[1.5], [1 / 3]]))) == ["1.5", "0.333"]
    assert labels((two, np.array([b"a", b"\xff"]))) == ["a", "\ufffd"]
    assert labels((two, np.array([True, False]))) == ["True", "False"]
    assert labels((two, np.array([[0.2, 0.8], [0.5, 0.5]]))) is None
    assert labels(two) is None


def test_a_row_for_each_example_of_views(tmp_path: Path) -> None:
    mirrored = PHOTO[:, ::-1]
    page = page_of(((PHOTO[None], mirrored[None]), np.array([1])), tmp_path)
    assert (first(page, has_labels=True) == PHOTO).all()
    assert (at(page, MARGIN + 128 + 2, MARGIN + LINE) == mirrored).all()


def test_masks_stand_beside_their_images(tmp_path: Path) -> None:
    page = page_of({"image": PHOTO[None], "mask": (GRAY > 127)[None]}, tmp_path)
    assert (first(page) == PHOTO).all()
    assert (at(page, MARGIN + 128 + 2, MARGIN) == in_gray((GRAY > 127) * 255)).all()


def left_and_right(page: NDArray[np.uint8], has_labels: bool) -> list[tuple[int, int]]:
    """The number of the shades of the two images of each example, from above."""
    top, height = MARGIN + LINE * has_labels, STEP + LINE * has_labels
    rows = [top + height * row for row in range(3)]
    return [(int(page[row + 4, MARGIN + 4, 0]) // 40, int(page[row + 4, MARGIN + 130 + 4, 0]) // 40) for row in rows]


SHADES = np.stack([np.full((32, 32), 40 * shade, np.uint8) for shade in range(6)])


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, [(0, 1), (2, 3), (4, 5)]),
        ([7, 7, 8, 8, 9, 9], [(0, 1), (2, 3), (4, 5)]),
        ([7, 8, 9, 7, 8, 9], [(0, 3), (1, 4), (2, 5)]),  # all first views, then all second ones
        ([7, 7, 7, 7, 7, 7], [(0, 1), (2, 3), (4, 5)]),
        ([1, 2, 3, 4, 5, 6], [(0, 1), (2, 3), (4, 5)]),
    ],
)
def test_views(labels: list[int] | None, expected: list[Any], tmp_path: Path) -> None:
    batch = SHADES if labels is None else (SHADES, np.array(labels))
    assert left_and_right(page_of(batch, tmp_path, views=2), labels is not None) == expected


class Repeated(Augmenter):
    """As many brighter ones of each, side by side."""

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
        x = np.repeat(x, num_augmentations_per_example, axis=0)
        return x + np.arange(len(x))[:, None, None] % 2, np.repeat(y, num_augmentations_per_example)


@pytest.mark.parametrize(("augmenter", "views"), [(Repeated(), 2), (ContrastiveAugmenter(lambda x: x), 1)])
def test_batches_of_samplers(augmenter: Any, views: int, tmp_path: Path) -> None:
    seq = SingleShotMemorySampler(SHADES.astype(np.float32), augmenter, class_per_batch=3, steps_per_epoch=2, seed=1)
    with seq.prefetch(nb_workers=0) as batches:
        page = page_of(next(iter(batches)), tmp_path, views=views)
    assert page.shape[1] >= 2 * MARGIN + 2 * 128 + 2  # two images beside each other


@pytest.mark.needs("torch")
def test_tensors_of_torch(tmp_path: Path) -> None:
    import torch

    images = torch.from_numpy(PHOTO.copy()).permute(2, 0, 1)[None]
    assert (first(page_of([images, torch.tensor([1])], tmp_path), has_labels=True) == PHOTO).all()
    drawn = first(page_of((images / 127.5 - 1).to(torch.bfloat16).requires_grad_(), tmp_path))
    assert np.abs(drawn.astype(int) - PHOTO).max() <= 1
    with pytest.raises(TypeError, match=r"batch\[0\] is a Tensor, which is sparse"):
        workers.preview((torch.eye(3).to_sparse(), 1), tmp_path / "a.png")


@pytest.mark.needs("jax")
def test_tensors_of_jax(tmp_path: Path) -> None:
    import jax.numpy as jnp

    assert (first(page_of({"image": jnp.asarray(PHOTO[None])}, tmp_path)) == PHOTO).all()


def test_photos_of_different_sizes(tmp_path: Path) -> None:
    large = np.full((300, 200, 3), 200, np.uint8)
    page = page_of((objects(PHOTO, large), ["small", "large"]), tmp_path)
    assert (first(page, has_labels=True) == PHOTO).all()
    place = page[MARGIN + LINE :, MARGIN + STEP :]
    assert (place[:128, : 200 * 128 // 300] == 200).all()
    assert (place[:100, 90:100] == page[0, 0]).all()  # as wide as it is, not stretched


def test_at_most_so_many_are_drawn(tmp_path: Path) -> None:
    some = np.repeat(PHOTO[None], 100, axis=0)
    full = page_of(some, tmp_path)
    assert page_of(some, tmp_path, max_examples=200).shape[0] > full.shape[0]
    few = page_of(some, tmp_path, max_examples=1)
    assert (first(few) == PHOTO).all()
    assert few.shape[0] < 250
    assert page_of(np.zeros((2000, 8, 8)), tmp_path, max_examples=2000).shape[0] < 3000


def test_words_that_are_too_long_are_cut(tmp_path: Path) -> None:
    labels = ["a label of many letters, on\nseveral lines " * 20, ""]
    page = page_of((np.stack([PHOTO, PHOTO]), labels), tmp_path)
    assert (page[MARGIN : MARGIN + LINE, MARGIN + 130 : MARGIN + STEP] == page[0, 0]).all()
    assert (first(page, has_labels=True) == PHOTO).all()


def test_a_jpeg(tmp_path: Path) -> None:
    path = workers.preview((PHOTO[None], np.array([1])), str(tmp_path / "batch.JPG"))
    with Image.open(path) as page:
        assert (page.format, page.mode) == ("JPEG", "RGB")


@pytest.mark.parametrize(
    ("batch", "options", "text"),
    [
        (
            (np.zeros((8, 16)), np.arange(8)),
            {},
            r"with 1, 3 or 4 channels, but it holds batch\[0\]: float64 \(8, 16\); batch\[1\]: int64 \(8,\)",
        ),
        ({"a": np.zeros((2, 9, 9, 7))}, {}, r"batch\['a'\]: float64 \(2, 9, 9, 7\)"),
        (np.zeros((2, 9, 9, 7)), {"layout": "NHWC"}, r"images of layout 'NHWC', .* float64 \(2, 9, 9, 7\)"),
        (PHOTO[None], {"layout": "NHW"}, r"images of layout 'NHW'"),
        (PHOTO[None].astype(complex), {}, r"complex128 \(1, 32, 32, 3\)"),
        (np.zeros((2, 0, 9, 3)), {}, r"float64 \(2, 0, 9, 3\)"),
        (np.zeros((2, 0, 9, 3)), {"layout": "NHWC"}, r"float64 \(2, 0, 9, 3\)"),
        (objects("a", None), {}, r"batch: object \(2,\)"),
        ("text", {}, "but it holds no arrays"),
        (None, {}, "but it holds no arrays"),
    ],
)
def test_no_images(batch: Any, options: Any, text: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=text):
        workers.preview(batch, tmp_path / "batch.png", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"layout": "HWN"}, ValueError, r"layout must be one of None, 'NHWC', .*, not 'HWN'"),
        ({"views": 0}, ValueError, "views must be an integer >= 1, not 0"),
        ({"views": 4}, ValueError, "views must divide the number of images, which is 6, not 4"),
        ({"max_examples": "all"}, TypeError, r"max_examples must be an integer >= 1, not 'all' \(str\)"),
        ({"path": "batch.tiff"}, ValueError, "path must end in .png or .jpg or .jpeg, not"),
        ({"path": "none/batch.png"}, FileNotFoundError, "there is no folder"),
        ({"batch": SHADES[:0]}, ValueError, "batch must hold at least one image, not 0"),
    ],
)
def test_bad_arguments(options: Any, error: type[Exception], text: str, tmp_path: Path) -> None:
    given = {"batch": SHADES, "path": "batch.png", **options}
    with pytest.raises(error, match=text):
        workers.preview(given.pop("batch"), tmp_path / given.pop("path"), **given)
    assert not list(tmp_path.iterdir())
