"""Photos as they are: of two sizes, in files or in memory, cropped by the augmenter in the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampler import (
    ContrastiveAugmenter,
    MultiShotMemorySampler,
    SingleShotMemorySampler,
    class_folders,
    load_image,
    select_examples,
)
from workers import current_rng

SIZES = (75, 100), (100, 75)  # (height, width): landscape and portrait
LABELS = np.repeat(["cat", "dog", "owl"], 10)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = [str(folder / f"{i}.jpg") for i in range(30)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 255, (*SIZES[i % 2], 3), np.uint8)).save(path)
    return paths


def crop(image: Any) -> Any:
    top, left = (current_rng().integers(0, length - 32) for length in image.shape[:2])
    return image[top : top + 32, left : left + 32]


def crop_all(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
    assert (x.dtype, x.shape) == (np.dtype(object), (len(y),)), "an object array, which may be looped over and indexed"
    x, y = np.repeat(x, num_augmentations_per_example), np.repeat(y, num_augmentations_per_example)
    return np.stack([crop(image) for image in x]), y


def samplers(x: Any, load_example_fn: Any, augmenter: Any) -> list[Any]:
    options: Any = {"steps_per_epoch": 4, "load_example_fn": load_example_fn, "seed": 1}
    return [
        SingleShotMemorySampler(x, augmenter, 8, **options),
        MultiShotMemorySampler(x, LABELS, 2, 4, augmenter=augmenter, **options),
    ]


@pytest.mark.parametrize("augmenter", [ContrastiveAugmenter(crop), crop_all], ids=["views", "function"])
@pytest.mark.parametrize("are_files", [True, False])
def test_photos_of_two_sizes(paths: list[str], are_files: bool, augmenter: Any) -> None:
    x: Any = paths if are_files else [load_image(path) for path in paths]
    for seq in samplers(x, load_image if are_files else None, augmenter):
        assert seq.example_shape == (None, None, 3)
        here = list(seq)
        with seq.prefetch(nb_workers=2) as batches:
            batches.epoch = 0
            for (views, y), (expected, expected_y) in zip(batches, here, strict=True):
                assert np.array_equal(views, expected)
                assert np.array_equal(y, expected_y)
                assert np.shape(views)[-3:] == (32, 32, 3)


def test_files_and_arrays_are_the_same_batches(paths: list[str]) -> None:
    of_files = samplers(paths, load_image, ContrastiveAugmenter(crop))
    of_arrays = samplers([load_image(path) for path in paths], None, ContrastiveAugmenter(crop))
    for one, other in zip(of_files, of_arrays, strict=True):
        for (views, y), (other_views, other_y) in zip(one, other, strict=True):
            assert np.array_equal(views, other_views)
            assert np.array_equal(y, other_y)


def test_photos_that_happen_to_be_of_one_size_are_stacked(paths: list[str]) -> None:
    seq = SingleShotMemorySampler(paths[::2], lambda x, y, num, is_warmup: (x, y), 5, load_example_fn=load_image)
    assert seq.example_shape == (75, 100, 3)
    assert seq[0][0].shape == (5, 75, 100, 3)


def test_only_what_comes_out_must_stack(paths: list[str]) -> None:
    """And says so with the shapes, whoever has returned it."""
    for seq in samplers(paths, load_image, None):
        with pytest.raises(ValueError, match=r"without an augmenter.*\(75, 100, 3\)|\(100, 75, 3\) for x\[\d+\]"):
            seq[0]
        assert seq.state_dict()
    for seq in samplers(paths, load_image, lambda x, y, num, is_warmup: (x, y)):
        with pytest.raises(ValueError, match=r"augmenter must return arrays that stack.*\(75, 100, 3\) and \(100"):
            seq[0]
    for seq in samplers(paths, load_image, lambda x, y, num, is_warmup: (list(x), y)):
        assert {image.shape for image in seq[0][0]} == {(75, 100, 3), (100, 75, 3)}
    for seq in samplers(paths, load_image, ContrastiveAugmenter(lambda image: image)):
        with pytest.raises(ValueError, match=r"process must return arrays of one shape.*for an example of shape"):
            seq[0]


def test_some_of_the_photos(paths: list[str]) -> None:
    images = [load_image(path) for path in paths]
    _, seq = samplers(images, None, crop_all)
    x, y = seq.get_slice(3, 4)
    assert y.tolist() == LABELS[3:7].tolist()
    assert all(np.array_equal(one, other) for one, other in zip(x, images[3:7], strict=True))
    x, y = select_examples(images, LABELS, ["dog"], 3, seed=1)
    assert x.dtype == object
    assert y.tolist() == ["dog"] * 3


def test_photos_in_memory_are_kept_once_and_are_not_written_to(paths: list[str]) -> None:
    """As an object array too; what an augmenter writes into its examples does not reach them."""
    images = [load_image(path) for path in paths]
    x = np.empty(30, object)
    x[:] = images

    def blacken(x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
        for image in x:
            image[:] = 0
        return np.array([image.sum() for image in x]), y

    seq = SingleShotMemorySampler(x, blacken, 30, steps_per_epoch=1, seed=1)
    with seq.prefetch(nb_workers=1) as batches:
        for _ in range(2):
            assert [batch[0].sum() for batch in batches] == [0]
    assert all(np.array_equal(image, seq._examples.x[i]) for i, image in enumerate(images))


def test_examples_of_other_numbers_of_axes(paths: list[str]) -> None:
    """A gray image is (height, width)."""
    images = [load_image(paths[0]), load_image(paths[1])[:, :, 0]]
    seq = SingleShotMemorySampler(images, ContrastiveAugmenter(lambda image: image[:32, :32].mean()), 2, seed=1)
    assert seq[0][0][0].shape == (2,)
    with pytest.raises(ValueError, match=r"same number of axes, not \(75, 100, 3\) and \(100, 75\)|\(100, 75\) and"):
        _ = seq.example_shape
    assert seq.state_dict()


def test_a_folder_for_each_class(tmp_path: Path) -> None:
    """Sorted, whatever the file system says; what is hidden, or no image, is left out."""
    for name in ("dog/b.jpg", "dog/a.PNG", "dog/notes.txt", "cat/x/2.jpg", "cat/1.jpg", "cat/.1.jpg", ".trash/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), len(name), np.uint8)).save(tmp_path / name, "PNG")
    paths, labels, classes = class_folders(tmp_path)
    names = [str(Path(path).relative_to(tmp_path)) for path in paths]
    assert names == ["cat/1.jpg", "cat/x/2.jpg", "dog/a.PNG", "dog/b.jpg"]
    assert (labels.tolist(), classes) == ([0, 0, 1, 1], ["cat", "dog"])
    assert class_folders(str(tmp_path), suffixes=[".jpg"]).labels.tolist() == [0, 0, 1]
    seq = MultiShotMemorySampler(paths, labels, 2, 1, steps_per_epoch=2, load_example_fn=load_image, seed=1)
    with seq.prefetch(1) as batches:
        for x, y in batches:
            assert (x.shape, sorted(y.tolist())) == ((2, 4, 4, 3), [0, 1])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"class 'empty' of .* has no files that end in \.bmp"):
        class_folders(tmp_path)
    with pytest.raises(ValueError, match="has no folders"):
        class_folders(tmp_path / "dog")
    with pytest.raises(FileNotFoundError):
        class_folders(tmp_path / "none")
    with pytest.raises(TypeError, match="suffixes must be several"):
        class_folders(tmp_path, ".jpg")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255, 256, 65535]], np.uint16), [0, 0, 1, 255]),
        (np.array([[0, 1, 2, 200]], np.uint16), [0, 1, 2, 200]),
        (np.array([[0, 65535, 70000, 2**24 - 1]], np.int32), [0, 0, 1, 255]),
        (np.array([[-5, 0, 100, 255]], np.int32), [0, 0, 100, 255]),
    ],
)
def test_images_of_more_than_8_bits(values: Any, expected: list[int], tmp_path: Path) -> None:
    """Keep their 8 highest bits; nothing wraps."""
    Image.fromarray(values).save(tmp_path / "image.tiff")
    assert load_image(tmp_path / "image.tiff")[0].tolist() == [[each] * 3 for each in expected]
