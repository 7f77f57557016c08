"""Walk over the containers and leaves of a batch or sample, to read or replace the leaves.

A batch is a tree: its containers are *nodes* (see ``forms``), and everything else in it is a *leaf*. Transport,
stacking, cutting, tensors and previews share this code, so they all find the same leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from workers.checks import short

from .forms import FORMS, MUTABLE_MAPPING, Form, form_of

_TEXTS = str, bytes, bytearray


class Node(NamedTuple):
    """A container ``tree`` of a batch or sample, taken apart into ``keys`` and ``parts``; ``form`` can rebuild it."""

    tree: Any
    form: Form
    keys: list[Any]
    parts: list[Any]

    def like(self, parts: list[Any]) -> Any:
        """Return a container like this one with new ``parts``, or a plain dict, tuple or list if its class fails."""
        form, kind = self.form, type(self.tree)
        if kind is dict:
            return dict(zip(self.keys, parts, strict=True))
        if kind is tuple or kind is list:
            return kind(parts)
        try:
            return form.filled(kind, self.keys, form.shell(self.tree, self.keys), parts)
        except MemoryError:
            raise
        except Exception:
            if form.is_mapping:
                return dict(zip(self.keys, parts, strict=True))
            if isinstance(self.tree, tuple):
                return tuple(parts)
            if form.is_list:
                return parts
            raise

    def columns(self, trees: list[Any], name: str) -> list[list[Any]]:
        """Return one list for each key of this container, with the parts that all ``trees`` have at that key.

        Args:
            trees: containers of the same kind, with the same keys or length.
            name: the name of ``trees`` in error messages, e.g. ``samples['x']``.

        Raises:
            TypeError: one of ``trees`` is another kind of container, or no container.
            ValueError: one of ``trees`` has other keys or another length.
        """
        kind = type(self.tree)
        are_alike = set(map(type, trees)) == {kind}
        if self.form.is_list or isinstance(self.tree, tuple):
            for other in () if are_alike else trees:
                if not _has_places(other):
                    raise TypeError(f"{name} must be of one kind, not {short(self.tree)} and {short(other)}")
            try:
                return [list(column) for column in zip(*trees, strict=True)]
            except ValueError:
                other = next(tree for tree in trees if len(tree) != len(self.keys))
                raise ValueError(
                    f"{name} must be equally long, not {len(self.keys)} and {len(other)} items (such as "
                    f"{short(self.tree)} and {short(other)}): items at the same position become one array"
                ) from None
        if kind is dict and are_alike and all(map(self.tree.keys().__eq__, map(dict.keys, trees))):
            return [[tree[key] for tree in trees] for key in self.keys]
        rows = []
        for tree in trees:
            node = node_of(tree)
            if node is None or node.form.is_mapping != self.form.is_mapping:
                raise TypeError(f"{name} must be of one kind, not {short(self.tree)} and {short(tree)}")
            parts = dict(zip(node.keys, node.parts, strict=True))
            if len(parts) != len(self.keys) or not all(key in parts for key in self.keys):
                raise ValueError(f"{name} must all have the same names, not {short(self.keys)} and {short(node.keys)}")
            rows.append([parts[key] for key in self.keys])
        return [list(column) for column in zip(*rows, strict=True)]

    def steps(self) -> list[str]:
        """Return each part as a step of a path in error messages, in order, e.g. ``['x']``, ``[0]`` or ``.mask``."""
        return [self.form.step(key) for key in self.keys]


def _has_places(tree: Any) -> bool:
    """Return True if the parts of ``tree`` can be matched by position, as those of a list, tuple or array."""
    kind: Any = type(tree)
    number = form_of(kind)
    if number is not None:
        return FORMS[number].is_list or isinstance(tree, tuple)
    return (isinstance(tree, Sequence) and not isinstance(tree, _TEXTS)) or bool(getattr(tree, "shape", ()))


def node_of(tree: Any) -> Node | None:
    """Return ``tree`` taken apart into a Node; None if it is no container, or its class refuses to be taken apart.

    Mappings count as containers here even if they cannot be rebuilt.
    """
    kind: Any = type(tree)
    number = form_of(kind)
    if number is None and isinstance(tree, Mapping):
        number = MUTABLE_MAPPING
    if number is None:
        return None
    form = FORMS[number]
    try:
        keys = form.keys(tree)
        return Node(tree, form, keys, form.parts(tree, keys))
    except MemoryError:
        raise
    except Exception:  # its class refuses to be taken apart
        return None


def is_list(tree: Any) -> bool:
    """Return True if ``tree`` is a list, ``UserList`` or ``deque``; a list in a batch has one item for each sample."""
    kind: Any = type(tree)
    number = form_of(kind)
    return number is not None and FORMS[number].is_list


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) for each leaf, which is anything but a container, e.g. ``("[0]['x'].mask", array)``.

    Args:
        is_leaf: a function that returns True for a container to yield as a whole, instead of its leaves.
        path: the path of ``tree`` itself, with which all paths begin.
    """
    node = None if is_leaf is not None and is_leaf(tree) else node_of(tree)
    if node is None:
        yield path, tree
    else:
        for step, part in zip(node.steps(), node.parts, strict=True):
            yield from leaves(part, is_leaf, path + step)


def map_leaves(function: Callable[[Any], Any], tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Return ``tree`` with each leaf, which is anything but a container, replaced by ``function(leaf)``.

    Containers keep their types. A container for which ``is_leaf`` returns True is treated as a leaf.
    """
    node = None if is_leaf is not None and is_leaf(tree) else node_of(tree)
    if node is None:
        return function(tree)
    return node.like([map_leaves(function, part, is_leaf) for part in node.parts])
