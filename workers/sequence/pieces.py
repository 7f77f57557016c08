"""Parts of batches: how many samples a batch has, some of them, and one batch of several parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from workers.checks import short


def _has_axes(part: Any) -> bool:
    return bool(getattr(part, "ndim", False))  # also a tensor's, which a front-end may deliver


def _lengths(batch: Any) -> Iterator[int]:
    if isinstance(batch, Mapping):
        batch = tuple(batch.values())
    if isinstance(batch, tuple):
        for part in batch:
            yield from _lengths(part)
    elif isinstance(batch, list) or _has_axes(batch):
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
    if isinstance(batch, Mapping):
        return {name: cut(part, start, stop) for name, part in batch.items()}
    if isinstance(batch, tuple):
        parts = [cut(part, start, stop) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return batch[start:stop] if isinstance(batch, list) or _has_axes(batch) else batch


def join(parts: list[Any]) -> Any:
    """One batch of all samples of ``parts``.

    What is no array or list is as it is in all of them; where they differ there is one for each: an array of numbers,
    a list of anything else.
    """
    first = parts[0]
    if isinstance(first, Mapping):
        _check_same_names(parts)
        return {name: join([part[name] for part in parts]) for name in first}
    if isinstance(first, tuple):
        joined = [join(list(each)) for each in zip(*parts, strict=True)]
        return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
    if isinstance(first, list):
        return [sample for part in parts for sample in part]
    if _has_axes(first):
        return first if len(parts) == 1 else np.concatenate(parts)
    if all(part is first or part == first for part in parts):
        return first
    return np.stack(parts) if isinstance(first, (int, float, complex, np.generic, np.ndarray)) else parts


def _check_same_names(parts: list[Any]) -> None:
    for part in parts[1:]:
        if part.keys() != parts[0].keys():
            raise ValueError(f"batches to be joined must be of the same names, not {list(parts[0])} and {list(part)}")


class Pieces(NamedTuple):
    """A batch that is put together when it is delivered, so that what this raises is raised in its place."""

    parts: list[Any]
    collate_fn: Callable[[list[Any]], Any]

    def whole(self) -> Any:
        return self.collate_fn(self.parts)
