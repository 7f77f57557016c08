"""Pad samples of different sizes to the size of the largest, and stack them into one batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.checks import check_bool, check_int, short

from .combined import of_one_dtype
from .nodes import is_list, node_of
from .slot_writer import empty
from .stacking import stack
from .to_numpy import arrays_of

_MASK = "_mask"
_NUMBERS = bool, int, float, complex, np.number, np.bool_


def pad(
    value: float | Mapping[Hashable, float] = 0,
    to: int | None = None,
    mask: bool = False,
    keys: Hashable | list[Hashable] | None = None,
) -> Callable[[list[Any]], Any]:
    """Return a ``collate_fn`` that pads samples of different sizes to the largest of the batch, and stacks them.

    Arrays, and lists of numbers, are padded at the end of each axis; anything else is stacked. A worker pads arrays
    directly in the shared memory from which the loop gets the batch.

    Args:
        value: the number to pad with, or {key: number} for samples that are dicts; a key without a number gets 0.
        to: pad the first axis to a multiple of this number, so that batches come in few shapes.
        mask: True to add a boolean array of shape (samples, length), which is True for values and False for padding.
            Dicts get it under the key ``"<key>_mask"``; elsewhere, a tuple (array, mask) replaces the array.
        keys: the key to pad in dicts, or a list of keys; None for all keys with arrays or lists of numbers.

    Raises:
        TypeError, ValueError: an argument is wrong. The returned function raises them if the dtype of a batch cannot
            hold the padding, or if arrays cannot be padded to one shape.

    Source: ``torch.nn.utils.rnn.pad_sequence`` for the shape of its result.

    >>> samples = [{"ids": [1, 2, 3]}, {"ids": [4]}]
    >>> pad(0, mask=True)(samples)["ids"].tolist()
    [[1, 2, 3], [4, 0, 0]]
    >>> pad(-1, to=4)([[1, 2], [3]]).tolist()
    [[1, 2, -1, -1], [3, -1, -1, -1]]
    """
    return Pad(value, to, mask, keys)


class Pad:
    """The ``collate_fn`` that :func:`pad` returns."""

    #: False, so that samples arrive as numpy arrays even if the source yields tensors.
    wants_tensors = False

    #: True, as it does not write into the samples.
    only_reads = True

    def __init__(self, value: Any, to: int | None, mask: bool, keys: Any) -> None:
        self.value = dict(value) if isinstance(value, Mapping) else value
        self.to = 1 if to is None else check_int("to", to, 1)
        self.mask = check_bool("mask", mask)
        self.keys = None if keys is None else set(keys) if isinstance(keys, (list, tuple, set)) else {keys}
        for each in self.value.values() if isinstance(value, Mapping) else (value,):
            if isinstance(each, (str, bytes)) or np.ndim(each) or np.asarray(each).dtype.kind not in "biufc":
                raise TypeError(f"value must be a number, or {{key: number}}, not {short(value)}")

    def __call__(self, samples: list[Any]) -> Any:
        """Return one batch of the padded and stacked ``samples``."""
        if not samples:
            raise ValueError("there are no samples to pad: a batch has at least one")
        if self.keys or isinstance(self.value, dict):
            self._check_keys(_keys_of(samples[0]))
        batch, mask = self._batch(samples, None, "", self.keys is None)
        return batch if mask is None else (batch, mask)

    def _check_keys(self, seen: list[Hashable]) -> None:
        for name, asked in (("keys", self.keys or ()), ("value", self.value if isinstance(self.value, dict) else ())):
            unknown = [key for key in asked if key not in seen]
            if unknown:
                raise ValueError(f"pad has {name} for {short(unknown)}, but the samples have the keys {short(seen)}")

    def _batch(self, samples: list[Any], key: Any, place: str, is_padded: bool) -> tuple[Any, Any]:
        """Return (batch, mask) of ``samples``; mask is None unless they were padded and a mask was asked for.

        Args:
            key: the key of ``samples`` in the dicts that they come from, which selects the padding; None outside dicts.
            place: the path of ``samples``, for error messages.
            is_padded: True if the user's ``keys`` allow padding ``samples``.
        """
        node = None if _is_row(samples[0]) else node_of(samples[0])
        if node is None:
            if is_padded and all(map(_is_array, samples)):
                arrays = _arrays(samples, place)
                others = [array for array in arrays if array.size] or arrays  # an empty list has no dtype of its own
                arrays = [array if array.size else array.astype(others[0].dtype) for array in arrays]
                return self._padded(of_one_dtype(arrays, place), key, place)
            return stack(samples, place), None
        keys, parts, is_dict = list(node.keys), [], node.form.is_mapping
        masks: dict[str, Any] = {}
        for each, column, step in zip(keys, node.columns(samples, f"samples{place}"), node.steps(), strict=True):
            inner = (each, place + step, self.keys is None or each in self.keys) if is_dict else (key, place, is_padded)
            part, mask = self._batch(column, *inner)
            if mask is not None and is_dict:
                masks[f"{each}{_MASK}"] = mask
            parts.append(part if mask is None or is_dict else (part, mask))
        taken = set(masks) & set(keys)
        if taken:
            raise ValueError(f"samples{place} have the key {taken.pop()!r} already: rename it, or give mask=False")
        if masks:
            return dict(zip(keys + list(masks), parts + list(masks.values()), strict=True)), None
        return node.like(parts), None

    def _padded(self, arrays: list[NDArray[Any]], key: Any, place: str) -> tuple[Any, Any]:
        if len({array.ndim for array in arrays}) > 1:
            raise ValueError(
                f"samples{place} have arrays of {sorted({array.ndim for array in arrays})} axes: give one kind"
            )
        lengths = np.array([array.shape for array in arrays]).max(0).tolist()
        lengths[0] = -(-lengths[0] // self.to) * self.to
        dtype = np.result_type(*arrays)
        value = self.value.get(key, 0) if isinstance(self.value, dict) else self.value
        filler = _filler(value, dtype)
        if filler is None:
            raise ValueError(
                f"samples{place} are of {dtype}, which cannot hold the padding {value}: give another value, or convert "
                "the samples"
            )
        batch = empty((len(arrays), *lengths), dtype)
        mask = empty((len(arrays), lengths[0]), bool) if self.mask else None
        for row, array in enumerate(arrays):
            if array.shape != batch.shape[1:]:
                batch[row] = filler
            at: Any = row, *map(slice, array.shape)
            batch[at] = array
            if mask is not None:
                mask[row] = np.arange(lengths[0]) < len(array)
        return batch, mask


def _arrays(samples: list[Any], place: str) -> list[NDArray[Any]]:
    try:
        return arrays_of(samples, f"samples{place}")
    except ValueError as error:
        raise ValueError(
            f"samples{place} hold lists of lists of different lengths, which make no array: make the inner lists "
            "alike, for example by padding them in the sequence"
        ) from error


def _filler(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return the padding ``value`` as a scalar of ``dtype``; None if ``dtype`` cannot hold it, apart from rounding."""
    given = np.asarray(value)
    if given.dtype.kind == "c" and dtype.kind != "c":
        return None
    with np.errstate(all="ignore"):
        filler = given.astype(dtype)
    if dtype.kind in "fc":
        return filler if np.isfinite(filler) == np.isfinite(given) else None
    return filler if filler == given else None


def _keys_of(sample: Any) -> list[Hashable]:
    """Return the keys of all dicts in ``sample``."""
    node = None if _is_row(sample) else node_of(sample)
    if node is None:
        return []
    found = list(node.keys) if node.form.is_mapping else []
    parts = node.columns([sample], "sample")
    return found + [key for (part,) in parts for key in _keys_of(part)]


def _is_row(sample: Any) -> bool:
    """Return True if ``sample`` is a list of numbers, possibly nested, which is padded like an array."""
    if not is_list(sample) or not isinstance(sample, (list, tuple)):
        return False
    return all(isinstance(each, _NUMBERS) or _is_row(each) for each in sample)


def _is_array(sample: Any) -> bool:
    return _is_row(sample) or (bool(getattr(sample, "ndim", 0)) and getattr(sample.dtype, "kind", "f") in "biufc")
