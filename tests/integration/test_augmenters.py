"""Augmenters that are ready for use: the right transforms, seeded by the job, on any workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from any_workers import epochs_on
from shapes import exactly

from sampler import (
    Augmenter,
    BarlowAugmenter,
    RandAugmenter,
    SimCLRAugmenter,
    SingleShotMemorySampler,
    tensorflow_views,
    transforms,
)
from workers import current_seed

pytestmark = pytest.mark.needs("cv2")

PHOTOS = np.random.default_rng(0).integers(0, 256, (12, 40, 60, 3), np.uint8)
AUGMENTERS: dict[str, Any] = {
    "SimCLR": SimCLRAugmenter(24, 32),
    "Barlow": BarlowAugmenter(24, 32),
    "not training": SimCLRAugmenter(24, 32, is_training=False),
    "RandAugment": RandAugmenter(),
}


@pytest.mark.parametrize("name", AUGMENTERS)
def test_augmented_on_any_workers(name: str) -> None:
    seq = SingleShotMemorySampler(PHOTOS, AUGMENTERS[name], 4, 3, num_augmentations_per_example=2, seed=1)
    wanted = epochs_on(seq, 0, "process")
    for nb_workers, executor in ((2, "process"), (2, "thread")):
        assert exactly(epochs_on(seq, nb_workers, executor)) == exactly(wanted)
    x, y = wanted[0][0]
    if name == "RandAugment":
        assert (x.shape, y.shape, x.dtype) == ((8, 40, 60, 3), (8,), np.uint8)
        assert (x[0] != x[1]).any()
    else:
        assert [view.shape for view in x] == [(4, 24, 32, 3)] * 2
        assert (x[0] != x[1]).any() == (name != "not training")
    if name != "not training":
        assert exactly(wanted[0]) != exactly(wanted[1])


def test_photos_of_several_sizes() -> None:
    photos: Any = np.empty(3, object)
    photos[:] = [PHOTOS[0], PHOTOS[1][:30], PHOTOS[2][:, :20]]
    (one, two), y = SimCLRAugmenter(16, 16)(photos, np.arange(3), 1, False)
    assert one.shape == two.shape == (3, 16, 16, 3)
    assert y.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="differ in size"):
        RandAugmenter()(photos, np.arange(3), 1, False)


@pytest.mark.parametrize("x", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8), np.zeros((2, 3))])
def test_what_is_no_photo(x: Any) -> None:
    for augmenter in (SimCLRAugmenter(4, 4), RandAugmenter()):
        with pytest.raises(TypeError, match="load_image"):
            augmenter(x, np.arange(2), 1, False)


def test_wrong_arguments() -> None:
    for make in (
        lambda: SimCLRAugmenter(0, 4),
        lambda: BarlowAugmenter(4, 4, jitter_strength=-1),
        lambda: RandAugmenter(magnitude=11),
        lambda: RandAugmenter(num_layers=-1),
    ):
        with pytest.raises(ValueError, match="must be"):
            make()


def test_transforms() -> None:
    rng, photo = np.random.default_rng(1), PHOTOS[0]
    before = photo.copy()
    assert np.array_equal(transforms.random_flip(rng, photo, 1.0), photo[:, ::-1])
    assert transforms.random_flip(rng, photo, 0.0) is photo
    grey = transforms.grayscale(photo)
    assert (grey == grey[..., :1]).all()
    assert np.abs(grey[..., 0] - photo @ np.array([0.299, 0.587, 0.114])).max() <= 0.51
    assert np.array_equal(transforms.solarize(photo), np.where(photo < 128, photo, 255 - photo))
    assert np.array_equal(transforms.color_jitter(rng, photo, 0, 0, 0, 0).shape, photo.shape)
    assert np.abs(transforms.color_jitter(rng, photo, 0, 0, 0, 0).astype(int) - photo).max() <= 8  # by way of HSV
    dark = transforms.color_jitter(np.random.default_rng(3), np.full_like(photo, 100), 0.8, 0, 0, 0)
    assert dark.std() == 0
    assert dark[0, 0, 0] != 100
    assert transforms.gaussian_blur(photo, 2.0).std() < 0.6 * photo.std()
    assert transforms.resize(photo, (10, 20)).shape == (10, 20, 3)
    for number in range(len(transforms._LAYERS)):
        for level, sign in ((0.0, 1.0), (0.9, -1.0), (1.0, 1.0)):
            made = transforms._LAYERS[number](photo, level, sign)
            assert (made.shape, made.dtype) == (photo.shape, photo.dtype)
    flat = np.full((8, 8, 3), 7, np.uint8)
    assert np.array_equal(transforms._stretched(flat), flat)
    assert np.array_equal(transforms.rand_augment(rng, photo, 0), photo)
    assert np.array_equal(photo, before)  # nothing writes into it


def test_hues_turn_by_the_share_of_a_circle() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert transforms._turned(red, 1 / 3).argmax(-1).tolist() == [[1, 1], [1, 1]]
    assert transforms._turned(red, -1 / 3).argmax(-1).tolist() == [[2, 2], [2, 2]]


class InTensorFlow(Augmenter):
    """The views of SimCLR, made by TensorFlow in the job."""

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> Any:
        return SimCLRAugmenter(24, 32).tensorflow(x, current_seed()), y


@pytest.mark.needs("tensorflow")
def test_views_by_tensorflow_on_any_workers() -> None:
    seq = SingleShotMemorySampler(PHOTOS, InTensorFlow(), 4, 3, seed=1)
    wanted = epochs_on(seq, 0, "process")
    for nb_workers, executor in ((2, "process"), (2, "thread")):
        assert exactly(epochs_on(seq, nb_workers, executor)) == exactly(wanted)
    (one, two), _ = wanted[0][0]
    assert (one.shape, one.dtype) == (two.shape, two.dtype) == ((4, 24, 32, 3), np.uint8)
    assert (one != two).any()
    assert exactly(wanted[0]) != exactly(wanted[1])


@pytest.mark.needs("tensorflow")
def test_tensorflow_views_in_a_function_and_by_seed() -> None:
    import tensorflow as tf

    augmenter, seed = BarlowAugmenter(24, 24), np.array([1, 2])
    eager = augmenter.tensorflow(PHOTOS, seed)
    traced = tf.function(augmenter.tensorflow)(PHOTOS.astype(np.float32), seed)
    for one, two in zip(eager, traced, strict=True):
        assert np.abs(one.numpy().astype(int) - two.numpy()).max() <= 1
    other = augmenter.tensorflow(PHOTOS, np.array([1, 3]))
    assert (eager[0] != other[0]).numpy().any(axis=(1, 2, 3)).all()
    with pytest.raises(ValueError, match="is_training"):
        SimCLRAugmenter(8, 8, is_training=False).tensorflow(PHOTOS, seed)


@pytest.mark.needs("tensorflow")
def test_the_steps_of_tensorflow_are_those_of_numpy() -> None:
    import tensorflow as tf

    photo = transforms.gaussian_blur(PHOTOS[0], 1.0)
    image = tf.cast(photo, tf.float32)
    blurred = tensorflow_views._blurred(tf, image, 1.5)
    assert np.abs(blurred - transforms.gaussian_blur(photo, 1.5)).max() <= 1
    seeds = np.array([3, 4]), np.array([5, 6])
    assert np.abs(tensorflow_views._jittered(tf, image, *seeds, 0.0) - photo).max() < 0.01
    brightness = [tensorflow_views._jittered(tf, image, (1, at), (2, at), 1.0).numpy().mean() for at in range(60)]
    by_numpy = [
        transforms.color_jitter(np.random.default_rng(at), photo, 0.8, 0.8, 0.8, 0.2).mean() for at in range(60)
    ]
    assert np.std(brightness) == pytest.approx(np.std(by_numpy), rel=0.35)
    seen = {
        chance: [
            _share_of(tensorflow_views.views_of(PHOTOS, (7, at), (8, 8), 0.0, (chance,))[0].numpy()) for at in range(20)
        ]
        for chance in (_view(grey=0.2), _view(grey=1.0), _view(grey=0.0))
    }
    grey, always, never = (np.mean(each) for each in seen.values())
    assert (always, never) == (1.0, 0.0)
    assert 0.1 < grey < 0.32


def _view(grey: float) -> Any:
    from sampler.augmenters import View

    return View(0.0, grey, 0.0, 0.0)


def _share_of(images: Any) -> float:
    """The share of ``images`` that are grey."""
    return float((np.ptp(images.astype(int), axis=3) <= 1).all(axis=(1, 2)).mean())
