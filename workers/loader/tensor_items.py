"""Converts the tensors in an item of a source to arrays, to send it to a worker, and restores the tensors there."""

from __future__ import annotations

import functools
import pickle
import sys
from typing import Any, NamedTuple

from workers import frameworks
from workers.batch.forms import is_of_framework
from workers.batch.nodes import map_leaves
from workers.batch.to_numpy import to_numpy
from workers.batch.tree import as_numpy, dumps
from workers.frameworks import NoArrayError

from .tensors import Output

#: {name of a framework: its name as an output}, e.g. {"torch": "torch", "tensorflow": "tf"}.
_OUTPUTS = {file: output for output, file in frameworks.OUTPUTS.items()}


class _Tensor(NamedTuple):
    """A tensor in the form in which it is sent to a worker, e.g. _Tensor(framework="torch", array=...)."""

    framework: str
    array: Any


class _Pickled(NamedTuple):
    """A tensor of a subclass (e.g. of torch.Tensor), pickled to be sent to a worker, so that it keeps its class."""

    pickled: bytes


def packed(item: Any) -> Any:
    """Return ``item`` with its tensors converted, ready to be sent to a worker; raise TypeError if one cannot be."""
    if not any(package in sys.modules for package in frameworks.PACKAGES):
        return as_numpy(item)
    return as_numpy(map_leaves(_pack, item))


def unpacked(item: Any) -> Any:
    """Return ``item``, a result of :func:`packed`, with its tensors restored."""
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
        return leaf  # as_numpy raises, and says where the tensor is
    if array is leaf:
        return leaf
    if any(frameworks.asked("is_of_subclass", leaf)):
        return _Pickled(dumps(leaf.detach().cpu()))
    packages = [each.__module__.partition(".")[0].removesuffix("lib") for each in kind.__mro__]
    return _Tensor(next(_OUTPUTS[package] for package in packages if package in _OUTPUTS), array)
