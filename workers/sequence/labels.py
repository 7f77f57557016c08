"""``label_array`` reads the labels of samples from an array, or from the named array of a SequenceArray."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .array import SequenceArray
from .derived import SequenceDerived


def label_array(name: str, labels: Any, source: Any) -> NDArray[Any]:
    """Return ``labels`` as an array of one axis, whose length the caller must check. Errors call them ``name``.

    ``labels`` is an array, or the name of an array in the SequenceArray that ``source`` is, or was made from.

    Raises:
        TypeError, ValueError: ``labels`` is unsuitable, or names no array that is in the order of ``source``.
    """
    if isinstance(labels, str):
        origin = source
        while isinstance(origin, SequenceDerived):
            origin = origin.source_split
        if not isinstance(origin, SequenceArray) or labels not in origin.arrays:
            raise ValueError(
                f"{name}={labels!r} must name an array of a SequenceArray: give an array with a label for each sample"
            )
        if origin.sampler is not None or any(not _keeps_places(each) for each in _between(source, origin)):
            raise ValueError(
                f"{name}={labels!r} names an array of the {type(origin).__name__}, but the samples come in another "
                "order or number here: give the labels as an array, in this order"
            )
        labels = origin.arrays[labels]
        labels = labels.as_array(slice(None)) if hasattr(labels, "as_array") else labels
    found = np.asarray(labels)
    if found.ndim != 1:
        raise ValueError(f"{name} must be one label for each sample, not an array of shape {found.shape}")
    if found.dtype.hasobject and any(each is None for each in found):
        at = next(at for at, each in enumerate(found) if each is None)
        raise ValueError(
            f"{name} must be one label for each sample, but number {at} is None: give it a label of its own"
        )
    return found


def _between(source: Any, origin: Any) -> list[Any]:
    found = []
    while source is not origin:
        found.append(source)
        source = source.source_split
    return found


def _keeps_places(sequence: Any) -> bool:
    """Return True if sample ``i`` of ``sequence`` is made from sample ``i`` of its source."""
    return hasattr(type(sequence), "_items_at")  # only a SequenceMap has it
