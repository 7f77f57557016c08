"""Batches of samples, and samples of batches: stacked and taken apart, cut and joined, counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from workers.checks import check_bool, check_int, short

from .combined import ALIKE, concatenated, stacked
from .nodes import is_list, map_leaves, node_of

_TEXTS = frozenset({type(None), str, bytes})
_NUMBERS = bool, int, float, complex


def stack(samples: list[Any], place: str = "") -> Any:
    """One batch of many samples: arrays and numbers stacked along a new first axis, the rest as lists.

    Containers keep the type of the first sample. ``place``: theirs within a sample, for messages.

    Raises:
        TypeError: no dtype holds all values of a number exactly, or samples are of different kinds. ValueError: samples
            have other keys or shapes.
    """
    first = samples[0]
    node = node_of(first)
    if node is not None:
        try:
            columns = node.columns(samples, f"samples{place}")
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error}; {ALIKE}") from None
        steps = node.steps()
        return node.like([stack(column, place + step) for column, step in zip(columns, steps, strict=True)])
    if first is None or isinstance(first, (str, bytes)):
        return samples if _TEXTS.issuperset(map(type, samples)) else _of_kinds(samples, place)
    return stacked(samples, place)


def _of_kinds(samples: list[Any], place: str) -> Any:
    """A batch of ``samples`` of which the first is None or a string, and others are neither."""
    others = [sample for sample in samples if not (sample is None or isinstance(sample, (str, bytes)))]
    numbers = [other for other in others if isinstance(other, _NUMBERS) or hasattr(other, "__array__")]
    if others and len(numbers) == len(others) and not any(isinstance(sample, (str, bytes)) for sample in samples):
        return stacked(samples, place)  # as where a number is the first
    wrong = next((other for other in others if node_of(other) is not None), numbers[0] if numbers else None)
    if wrong is not None:
        raise TypeError(f"samples{place} must be of one kind, not {short(samples[0])} and {short(wrong)}; {ALIKE}")
    return samples


def stack_list(batch: Any) -> Any:
    """A list of samples stacked; anything else as it is."""
    return stack(batch) if isinstance(batch, list) and batch else batch


def unstack(batch: Any) -> list[Any]:
    """The samples that :func:`stack` has made ``batch`` of."""
    is_of_samples = is_list(batch) and (not batch or batch[0] is None or isinstance(batch[0], (str, bytes)))
    node = None if is_of_samples else node_of(batch)
    if node is not None:
        return [node.like(list(row)) for row in zip(*map(unstack, node.parts), strict=True)]
    if isinstance(batch, np.ma.MaskedArray):  # its items would be numbers, without their dtype where they are masked
        return [batch[at : at + 1].reshape(batch.shape[1:]) for at in range(len(batch))]
    return list(batch)


def _has_axes(part: Any) -> bool:
    return bool(getattr(part, "ndim", False))  # also a tensor's, which a front-end may deliver


def _lengths(batch: Any) -> Iterator[int]:
    node = None if is_list(batch) else node_of(batch)
    if node is not None:
        for part in node.parts:
            yield from _lengths(part)
    elif is_list(batch) or _has_axes(batch):
        yield len(batch)


def num_samples(batch: Any) -> int:
    """How long the arrays and lists of ``batch`` are.

    Raises:
        TypeError: it has none. ValueError: they are not of one length.
    """
    lengths = set(_lengths(batch))
    if len(lengths) > 1:
        raise ValueError(f"the arrays and lists of a batch must be of one length, not {sorted(lengths)}")
    if not lengths:
        raise TypeError(
            f"a batch must have an array or a list of its samples, not {short(batch)}; .batch() makes some of samples"
        )
    return lengths.pop()


def length_of_first(batch: Any) -> int:
    """How long the first array or list of ``batch`` is; 1, if it has none."""
    return next(_lengths(batch), 1)


def cut(batch: Any, start: int, stop: int) -> Any:
    """Samples ``start`` to ``stop`` of ``batch``: slices of its arrays and lists. All else goes with each part."""
    return map_leaves(lambda leaf: _slice(leaf, start, stop), batch, is_list)


def _slice(leaf: Any, start: int, stop: int) -> Any:
    if is_list(leaf):
        node = node_of(leaf)
        return leaf if node is None else node.like(node.parts[start:stop])
    return leaf[start:stop] if _has_axes(leaf) else leaf


def join(parts: list[Any], place: str = "") -> Any:
    """One batch of all samples of ``parts``.

    What is no array or list is as it is in all of them; where they differ there is one for each: an array of numbers,
    a list of anything else. ``place``: that of the parts within their batches, for messages.

    Raises:
        TypeError: no dtype holds all values of an array exactly. ValueError: batches have other keys or shapes.
    """
    first = parts[0]
    node = node_of(first)
    if node is not None and not node.form.is_list:
        columns = node.columns(parts, f"batches to be joined{place and f', at {place},'}")
        steps = node.steps()
        return node.like([join(column, place + step) for column, step in zip(columns, steps, strict=True)])
    if node is not None:
        return node.like([sample for part in parts for sample in part])
    if _has_axes(first):
        return first if len(parts) == 1 else concatenated(parts, place)
    if all(part is first or part == first for part in parts):
        return first
    return stacked(parts, place) if isinstance(first, (int, float, complex, np.generic, np.ndarray)) else parts


class Split:
    """A function that cuts a batch into a list of batches of at most ``batch_size`` samples."""

    def __init__(self, batch_size: int, discard_batch_not_full: bool) -> None:
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.discard_batch_not_full = check_bool("discard_batch_not_full", discard_batch_not_full)

    def __call__(self, batch: Any) -> list[Any]:
        size = num_samples(batch)
        if size <= self.batch_size:
            return [batch]
        stop = size // self.batch_size * self.batch_size if self.discard_batch_not_full else size
        return [cut(batch, at, min(at + self.batch_size, size)) for at in range(0, stop, self.batch_size)]
