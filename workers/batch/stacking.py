"""Stack samples into batches; unstack, cut and join batches, and count their samples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from workers.checks import check_bool, check_int, short
from workers.job.function_use import is_measured, timed

from .combined import ALIKE, concatenated, stacked, stacking
from .nodes import is_list, map_leaves, node_of

_TEXTS = frozenset({type(None), str, bytes})
_NUMBERS = bool, int, float, complex


def stack(samples: list[Any], place: str = "", stack_arrays: Callable[[list[Any], str], Any] = stacked) -> Any:
    """Combine samples into one batch: stack arrays and numbers along a new first axis, keep strings and None in lists.

    Containers (dicts, tuples, dataclasses and the like) have the type that they have in the first sample.

    Args:
        place: for error messages, the path of ``samples`` in the whole samples that they are parts of, e.g. ``['x']``.
        stack_arrays: the function that stacks arrays or numbers, given their path: see ``combined``.

    Raises:
        TypeError: no dtype holds all values exactly, or the samples are of different kinds.
        ValueError: the keys, lengths or shapes of the samples differ.
    """
    first = samples[0]
    node = node_of(first)
    if node is not None:
        try:
            columns = node.columns(samples, f"samples{place}")
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error}; {ALIKE}") from None
        steps = node.steps()
        parts = zip(columns, steps, strict=True)
        return node.like([stack(column, place + step, stack_arrays) for column, step in parts])
    if first is None or isinstance(first, (str, bytes)):
        return samples if _TEXTS.issuperset(map(type, samples)) else _of_kinds(samples, place)
    return stack_arrays(samples, place)


def stack_of_job() -> Callable[[list[Any]], Any]:
    """Return the function that stacks the samples of the running job: in place if its batch is delivered as it is."""
    make: Callable[[list[Any]], Any] = functools.partial(stack, stack_arrays=stacking())
    return functools.partial(_timed, make) if is_measured() else make


def _timed(make: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    with timed("stack"):
        return make(samples)


def _of_kinds(samples: list[Any], place: str) -> Any:
    """Return ``samples`` of different kinds, the first being None or a string, as one batch.

    The batch is an array if all samples except None are numbers or arrays; otherwise it is the list ``samples``.

    Raises:
        TypeError: the kinds cannot be combined, e.g. strings and numbers. The error names ``place``, their path.
    """
    others = [sample for sample in samples if not (sample is None or isinstance(sample, (str, bytes)))]
    numbers = [other for other in others if isinstance(other, _NUMBERS) or hasattr(other, "__array__")]
    if others and len(numbers) == len(others) and not any(isinstance(sample, (str, bytes)) for sample in samples):
        return stacked(samples, place)  # as if a number came first
    wrong = next((other for other in others if node_of(other) is not None), numbers[0] if numbers else None)
    if wrong is not None:
        raise TypeError(f"samples{place} must be of one kind, not {short(samples[0])} and {short(wrong)}; {ALIKE}")
    return samples


def stack_list(batch: Any) -> Any:
    """Stack ``batch`` into one batch if it is a list of samples; return anything else as it is."""
    return stack(batch) if isinstance(batch, list) and batch else batch


def unstack(batch: Any) -> list[Any]:
    """Return the list of samples in a batch that :func:`stack` made."""
    is_of_samples = is_list(batch) and (not batch or batch[0] is None or isinstance(batch[0], (str, bytes)))
    node = None if is_of_samples else node_of(batch)
    if node is not None:
        return [node.like(list(row)) for row in zip(*map(unstack, node.parts), strict=True)]
    if isinstance(batch, np.ma.MaskedArray):  # not its items: masked ones would lose their dtype
        return [batch[at : at + 1].reshape(batch.shape[1:]) for at in range(len(batch))]
    return list(batch)


def _has_axes(part: Any) -> bool:
    return bool(getattr(part, "ndim", False))  # also true of tensors, which a front-end may deliver


def _lengths(batch: Any) -> Iterator[int]:
    node = None if is_list(batch) else node_of(batch)
    if node is not None:
        for part in node.parts:
            yield from _lengths(part)
    elif is_list(batch) or _has_axes(batch):
        yield len(batch)


def num_samples(batch: Any) -> int:
    """Return the number of samples in ``batch``: the length of its arrays and lists.

    Raises:
        TypeError: the batch has no arrays or lists.
        ValueError: the lengths of its arrays and lists differ.
    """
    lengths = set(_lengths(batch))
    if len(lengths) > 1:
        raise ValueError(f"the arrays and lists of a batch must be of one length, not {sorted(lengths)}")
    if not lengths:
        raise TypeError(
            f"a batch must have an array or a list of its samples, not {short(batch)}; .batch() stacks samples"
        )
    return lengths.pop()


def length_of_first(batch: Any) -> int:
    """Return the length of the first array or list in ``batch``, usually its number of samples; 1 if it has none."""
    return next(_lengths(batch), 1)


def cut(batch: Any, start: int, stop: int) -> Any:
    """Return samples ``start`` to ``stop - 1`` of ``batch``: slices of its arrays and lists, anything else as it is."""
    return map_leaves(lambda leaf: _slice(leaf, start, stop), batch, is_list)


def _slice(leaf: Any, start: int, stop: int) -> Any:
    if is_list(leaf):
        node = node_of(leaf)
        return leaf if node is None else node.like(node.parts[start:stop])
    return leaf[start:stop] if _has_axes(leaf) else leaf


def join(parts: list[Any], place: str = "") -> Any:
    """Join the batches ``parts`` into one with the samples of all, by concatenating their arrays and lists.

    Any other value is kept if it is equal in all batches. Otherwise the values of all batches are collected: numbers in
    an array, anything else in a list.

    Args:
        place: for error messages, the path of ``parts`` in the whole batches that they are parts of, e.g. ``['x']``.

    Raises:
        TypeError: no dtype holds all values of an array exactly, or the batches are of different kinds.
        ValueError: the keys, lengths or shapes of the batches differ.
    """
    first = parts[0]
    node = node_of(first)
    if node is not None and not node.form.is_list:
        columns = node.columns(parts, f"batches to be joined{place and f', at {place},'}")
        steps = node.steps()
        return node.like([join(column, place + step) for column, step in zip(columns, steps, strict=True)])
    if node is not None:
        other = next((part for part in parts if not is_list(part)), None)
        if other is not None:
            kinds = f"a {type(first).__name__} and a {type(other).__name__}"
            raise TypeError(f"batches to be joined{place and f', at {place},'} must be of one kind, not {kinds}")
        return node.like([sample for part in parts for sample in part])
    if _has_axes(first):
        return first if len(parts) == 1 else concatenated(parts, place)
    if all(part is first or part == first for part in parts):
        return first
    return stacked(parts, place) if isinstance(first, (int, float, complex, np.generic, np.ndarray)) else parts


class Split:
    """A function that cuts a large batch into a list of batches of at most ``batch_size`` samples.

    If ``discard_batch_not_full`` is True, a smaller batch at the end of the list is left out. A batch with
    ``batch_size`` samples or fewer is never cut or left out.
    """

    def __init__(self, batch_size: int, discard_batch_not_full: bool) -> None:
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.discard_batch_not_full = check_bool("discard_batch_not_full", discard_batch_not_full)

    def __call__(self, batch: Any) -> list[Any]:
        size = num_samples(batch)
        if size <= self.batch_size:
            return [batch]
        stop = size // self.batch_size * self.batch_size if self.discard_batch_not_full else size
        return [cut(batch, at, min(at + self.batch_size, size)) for at in range(0, stop, self.batch_size)]
