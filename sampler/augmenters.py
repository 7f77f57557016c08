"""Augmenters of photos that are ready for use: ``SimCLRAugmenter``, ``BarlowAugmenter`` and ``RandAugmenter``.

Source: TensorFlow Similarity API, ``TFSimilarity.augmenters``, for the names and the arguments.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from workers import current_rng
from workers.batch import exact
from workers.checks import check_bool, check_int, short

from . import transforms
from .augmenter import Augmenter


class View(NamedTuple):
    """With which probabilities a view is jittered, made grey, blurred and solarized."""

    jitter: float
    grey: float
    blur: float
    solarize: float


_SIMCLR = View(0.8, 0.2, 0.5, 0.0)
_BARLOW = View(0.8, 0.2, 1.0, 0.0), View(0.8, 0.2, 0.1, 0.2)


class _OfViews(Augmenter):
    """The base class of augmenters that make two views of each photo.

    Each photo draws from a generator of its own, so a view does not depend on the sizes of the other photos.
    """

    _views: tuple[View, ...]

    def __init__(self, height: int, width: int, is_training: bool, jitter_strength: float) -> None:
        self.height, self.width = check_int("height", height, 1), check_int("width", width, 1)
        self.is_training = check_bool("is_training", is_training)
        if isinstance(jitter_strength, bool) or not isinstance(jitter_strength, (int, float)) or jitter_strength < 0:
            raise ValueError(f"jitter_strength must be a number >= 0, not {short(jitter_strength)}")
        self.jitter_strength = jitter_strength

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Any, Any]:
        """Return two views of each photo, and y unchanged. The last two arguments are ignored.

        Args:
            x: photos, uint8 (n, height, width, 3) in RGB; or an object array (n,) of photos of different sizes.

        Returns:
            ((view, view), y): two uint8 arrays (n, height, width, 3).

        Raises:
            TypeError: an example is not a photo in RGB, uint8.
        """
        found: list[list[Any]] = [[] for _ in self._views]
        for number, photo in enumerate(x):
            _check_photo(photo)
            for at, view in enumerate(self._views):
                found[at].append(self._view(photo, view, current_rng((number, at))))
        return tuple(map(exact.stacked, found)), y

    def tensorflow(self, images: Any, seed: Any) -> Any:
        """Return two views of each image, made by stateless operations of TensorFlow: for use in a ``tf.function``.

        The same ``seed`` gives the same views; they are not those that the augmenter makes by numpy.

        Args:
            images: uint8 or float values from 0 to 255, in RGB (n, height, width, 3).
            seed: two integers, such as ``workers.current_seed()``.

        Returns:
            (view, view): two uint8 tensors (n, height, width, 3).

        Raises:
            ValueError: the augmenter is not for training.
        """
        if not self.is_training:
            raise ValueError("tensorflow() makes random views, but the augmenter has is_training=False")
        from .tensorflow_views import views_of

        return views_of(images, seed, (self.height, self.width), self.jitter_strength, self._views)

    def _view(self, photo: Any, view: View, rng: np.random.Generator) -> Any:
        size = self.height, self.width
        if not self.is_training:
            return transforms.resize(_middle(photo, size), size)
        top, left, high, wide = transforms.random_resized_crop(rng, *photo.shape[:2])
        photo = transforms.resize(photo[top : top + high, left : left + wide], size)
        photo = transforms.random_flip(rng, photo)
        strength = self.jitter_strength
        if rng.random() < view.jitter:
            photo = transforms.color_jitter(
                rng, photo, 0.8 * strength, 0.8 * strength, 0.8 * strength, min(0.5, 0.2 * strength)
            )
        if rng.random() < view.grey:
            photo = transforms.grayscale(photo)
        if rng.random() < view.blur:
            photo = transforms.gaussian_blur(photo, rng.uniform(0.1, 2.0))
        if rng.random() < view.solarize:
            photo = transforms.solarize(photo)
        return photo


class SimCLRAugmenter(_OfViews):
    """An augmenter that makes two views of each photo, as SimCLR needs them.

    A view is a random part of the photo, resized, perhaps mirrored, with other colours, perhaps grey, perhaps blurred.

    Args:
        height, width: the size of the views in pixels.
        is_training: False for the middle of each photo instead, resized, without any random draw.
        jitter_strength: how much the colours change: 1 as for ImageNet in the source, 0.5 as for CIFAR-10.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Example:
        >>> photos = np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), np.uint8)
        >>> (one, two), y = SimCLRAugmenter(32, 32)(photos, np.arange(4), 1, False)
        >>> one.shape, two.shape, one.dtype.name, y.shape
        ((4, 32, 32, 3), (4, 32, 32, 3), 'uint8', (4,))

    Source: "A Simple Framework for Contrastive Learning of Visual Representations" (Chen et al., 2020), appendix A;
    TensorFlow Similarity API, ``TFSimilarity.augmenters.SimCLRAugmenter``, for the name.
    """

    _views = _SIMCLR, _SIMCLR

    def __init__(self, height: int, width: int, is_training: bool = True, jitter_strength: float = 1.0) -> None:
        super().__init__(height, width, is_training, jitter_strength)


class BarlowAugmenter(_OfViews):
    """An augmenter that makes two views of each photo, as Barlow Twins and BYOL need them.

    It is like :class:`SimCLRAugmenter`, but the first view is always blurred, and the second one seldom; one in five of
    the second views is solarized.

    Args:
        height, width, is_training, jitter_strength: as for :class:`SimCLRAugmenter`; half as strong by default.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Source: "Barlow Twins" (Zbontar et al., 2021), section 2.2; TensorFlow Similarity API,
    ``TFSimilarity.augmenters.BarlowAugmenter``, for the name.
    """

    _views = _BARLOW

    def __init__(self, height: int, width: int, is_training: bool = True, jitter_strength: float = 0.5) -> None:
        super().__init__(height, width, is_training, jitter_strength)


class RandAugmenter(Augmenter):
    """An augmenter that applies a few transforms, drawn at random, to each photo.

    Args:
        num_layers: the number of transforms of each photo.
        magnitude: how strong they are, 0 to 10.

    Raises:
        TypeError, ValueError: an argument is wrong.

    Source: "RandAugment" (Cubuk et al., 2019).
    """

    def __init__(self, num_layers: int = 2, magnitude: float = 9.0) -> None:
        self.num_layers = check_int("num_layers", num_layers, 0)
        if isinstance(magnitude, bool) or not isinstance(magnitude, (int, float)) or not 0 <= magnitude <= 10:
            raise ValueError(f"magnitude must be a number between 0 and 10, not {short(magnitude)}")
        self.magnitude = magnitude

    def augment(self, x: Any, y: Any, num_augmentations_per_example: int, is_warmup: bool) -> tuple[Any, Any]:
        """Return ``num_augmentations_per_example`` transformed photos for each in ``x``, and their labels.

        Args:
            x: photos, uint8 (n, height, width, 3) in RGB, or an object array (n,) of photos of one size.

        Raises:
            TypeError: an example is not a photo in RGB, uint8. ValueError: the photos differ in size.
        """
        found = []
        for number, photo in enumerate(x):
            _check_photo(photo)
            for at in range(num_augmentations_per_example):
                rng = current_rng((number, at))
                found.append(transforms.rand_augment(rng, photo, self.num_layers, self.magnitude))
        if len({photo.shape for photo in found}) > 1:
            raise ValueError("the photos differ in size: load them with load_image(path, size=(height, width))")
        return exact.stacked(found), np.repeat(y, num_augmentations_per_example, 0)


def _check_photo(photo: Any) -> None:
    shape, dtype = np.shape(photo), getattr(photo, "dtype", None)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        raise TypeError(
            f"the augmenter needs photos in RGB, uint8 arrays (height, width, 3), not {dtype} of shape {shape}: see "
            "load_image"
        )


def _middle(photo: Any, size: tuple[int, int], share: float = 0.875) -> Any:
    """Return the middle of ``photo``: the largest part with the proportions of ``size``, times ``share``."""
    height, width = photo.shape[:2]
    scale = share * min(height / size[0], width / size[1])
    high, wide = (max(1, min(most, round(each * scale))) for most, each in zip((height, width), size, strict=True))
    top, left = (height - high) // 2, (width - wide) // 2
    return photo[top : top + high, left : left + wide]
