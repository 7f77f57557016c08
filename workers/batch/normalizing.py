"""Stack images into batches of floats, normalised, in one pass: see :func:`normalize`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_bool, short

from .combined import stacked
from .slot_writer import empty
from .stacking import stack
from .to_numpy import arrays_of

_CHANNELS = 1, 2, 3, 4
_MOST = 255  # of a uint8, which becomes 1


def normalize(
    mean: float | list[float] | tuple[float, ...] = 0.0,
    std: float | list[float] | tuple[float, ...] = 1.0,
    channels_first: bool = False,
) -> Callable[[list[Any]], Any]:
    """Return a ``collate_fn`` that stacks samples, and makes their images float32: (image / 255 - mean) / std.

    Images are uint8 arrays (height, width, channels) with 1 to 4 channels; anything else is stacked as it is. A worker
    writes the floats directly into the shared memory from which the loop gets the batch, so this costs no further copy.
    But a batch has four times as many bytes as one of uint8: if the model can normalise, that moves less.

    Args:
        mean, std: a number for all channels, or one for each, of values between 0 and 1; for ImageNet (0.485, 0.456,
            0.406) and (0.229, 0.224, 0.225).
        channels_first: True for batches (n, channels, height, width), as PyTorch has them.

    Raises:
        TypeError, ValueError: an argument is wrong. The returned function raises them if images have another number of
            channels, or differ in shape.

    Source: ``torchvision.transforms.Normalize`` after ``ToTensor``.

    >>> images = [np.full((2, 2, 3), 255, np.uint8), np.zeros((2, 2, 3), np.uint8)]
    >>> normalize(mean=0.5, std=0.5)(images)[:, 0, 0, 0].tolist()
    [1.0, -1.0]
    """
    return Normalize(mean, std, channels_first)


class Normalize:
    """The ``collate_fn`` that :func:`normalize` returns."""

    #: False, so that samples arrive as numpy arrays even if the source yields tensors.
    wants_tensors = False

    #: True, as it does not write into the samples.
    only_reads = True

    def __init__(self, mean: Any, std: Any, channels_first: bool) -> None:
        self.mean, self.std = _checked("mean", mean), _checked("std", std)
        self.channels_first = check_bool("channels_first", channels_first)
        if not self.std.all():
            raise ValueError(f"std must not be 0: {short(std)}")
        if len({len(each) for each in (self.mean, self.std) if len(each) > 1}) > 1:
            raise ValueError(f"mean and std must have equally many numbers, not {short(mean)} and {short(std)}")

    def __call__(self, samples: list[Any]) -> Any:
        """Return one batch of the ``samples``."""
        if not samples:
            raise ValueError("there are no samples to stack: a batch has at least one")
        return stack(samples, "", self._stacked)

    def _stacked(self, values: list[Any], place: str) -> Any:
        arrays = arrays_of(values, f"sample{place}")
        if not all(map(_is_image, arrays)) or any(isinstance(each, np.ma.MaskedArray) for each in values):
            return stacked(values, place)
        shape: tuple[int, ...] = arrays[0].shape
        number = max(len(self.mean), len(self.std))
        if number not in (1, shape[2]):
            raise ValueError(
                f"samples{place} have {shape[2]} channels, and mean and std have {number} numbers: give one for each"
            )
        if any(array.shape != shape for array in arrays):
            return stacked(values, place)  # raises, and says how they differ
        return self._normalized(arrays, *shape)

    def _normalized(self, arrays: list[NDArray[np.uint8]], height: int, width: int, channels: int) -> Any:
        scale = np.broadcast_to((1 / _MOST / self.std).astype(np.float32), channels)
        shift = np.broadcast_to((self.mean / self.std).astype(np.float32), channels)
        if self.channels_first:
            batch = empty((len(arrays), channels, height, width), np.float32)
            for row, array in zip(batch, arrays, strict=True):
                for at in range(channels):
                    np.multiply(array[..., at], scale[at], out=row[at])
                    np.subtract(row[at], shift[at], out=row[at])
            return batch
        batch = empty((len(arrays), height, width, channels), np.float32)
        by_row = np.tile(scale, width), np.tile(shift, width)  # long rows are fast
        for row, array in zip(batch.reshape(len(arrays), height, -1), arrays, strict=True):
            np.multiply(array.reshape(height, -1), by_row[0], out=row)
            np.subtract(row, by_row[1], out=row)
        return batch


def _is_image(array: Any) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] in _CHANNELS


def _checked(name: str, values: Any) -> NDArray[np.float64]:
    found = np.atleast_1d(np.asarray(values))
    if found.ndim != 1 or found.dtype.kind not in "iuf" or len(found) not in _CHANNELS:
        raise TypeError(f"{name} must be a number, or one for each of at most 4 channels, not {short(values)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{name} must be finite, not {short(values)}")
    return found.astype(np.float64)
