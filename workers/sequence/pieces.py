"""Parts of batches: how many samples a batch has, some of them, and one batch of several parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from workers.batch.nodes import is_list, map_leaves, node_of
from workers.checks import short

from .combined import concatenated, stacked


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


class Pieces(NamedTuple):
    """A batch that is put together when it is delivered, so that what this raises is raised in its place."""

    parts: list[Any]
    collate_fn: Callable[[list[Any]], Any]

    def whole(self) -> Any:
        return self.collate_fn(self.parts)
