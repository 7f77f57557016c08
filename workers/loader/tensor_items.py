"""Tensors in the items of a source that is read here: they travel as arrays, and are tensors again in the job."""

from __future__ import annotations

import functools
import pickle
import sys
from typing import Any, NamedTuple

from workers.batch.forms import is_of_framework
from workers.batch.nodes import map_leaves
from workers.batch.to_numpy import NoArrayError, to_numpy
from workers.batch.tree import as_numpy, dumps

from .tensors import Output

_FRAMEWORKS = {"torch": "torch", "tensorflow": "tf", "jax": "jax", "jaxlib": "jax"}  # {package: name}


class _Tensor(NamedTuple):
    """A tensor on its way: _Tensor("torch", array)."""

    framework: str
    array: Any


class _Pickled(NamedTuple):
    """One of a class of its own, such as a subclass of torch.Tensor, pickled."""

    pickled: bytes


def packed(item: Any) -> Any:
    """``item`` as it travels, for :func:`unpacked`. Tensors that cannot travel raise a TypeError."""
    if not any(package in sys.modules for package in _FRAMEWORKS):
        return as_numpy(item)
    return as_numpy(map_leaves(_pack, item))


def unpacked(item: Any) -> Any:
    """The item of :func:`packed`, with tensors in their places."""
    return map_leaves(_unpack, item, lambda node: type(node) is _Tensor or type(node) is _Pickled)


def _unpack(leaf: Any) -> Any:
    if type(leaf) is _Tensor:
        return _output(leaf.framework).tensors.tensor(leaf.array)
    return pickle.loads(leaf.pickled) if type(leaf) is _Pickled else leaf


@functools.cache
def _output(framework: str) -> Output:
    return Output(framework)


def _pack(leaf: Any) -> Any:
    kind: Any = type(leaf)
    if not is_of_framework(kind):
        return leaf
    try:
        array = to_numpy(leaf)
    except NoArrayError:
        return leaf  # as_numpy says where it is
    if array is leaf:
        return leaf
    if issubclass(kind, getattr(sys.modules.get("torch"), "Tensor", ())) and kind is not sys.modules["torch"].Tensor:
        return _Pickled(dumps(leaf.detach().cpu()))
    package = next(name for each in kind.__mro__ if (name := each.__module__.partition(".")[0]) in _FRAMEWORKS)
    return _Tensor(_FRAMEWORKS[package], array)
