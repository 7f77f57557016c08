"""Walk over the tree of a batch or sample: its containers are *nodes* (see ``forms``), everything else is a *leaf*.

Transport, stacking, cutting, tensors and previews share this code, so they all find the same leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from workers.checks import short

from .forms import FORMS, MUTABLE_MAPPING, Form, form_of

_TEXTS = str, bytes, bytearray


class Node(NamedTuple):
    """A container in a batch or sample, ``tree``, taken apart into keys and parts; its ``form`` can rebuild it."""

    tree: Any
    form: Form
    keys: list[Any]
    parts: list[Any]

    def like(self, parts: list[Any]) -> Any:
        """Return a container like this one with other parts; if its class refuses them, a plain dict, tuple or list."""
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
        """Return, for each key of this container, the list of the parts that ``trees`` have at this key.

        Args:
            trees: containers like this one.
            name: what errors call them.

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
        """Return the name of each part of the container in a path, in order, e.g. ``['x']``, ``[0]`` or ``.mask``."""
        return [self.form.step(key) for key in self.keys]


def _has_places(tree: Any) -> bool:
    """Return True if ``tree`` is a list, tuple, array or the like, so that its parts can be matched by position."""
    kind: Any = type(tree)
    number = form_of(kind)
    if number is not None:
        return FORMS[number].is_list or isinstance(tree, tuple)
    return (isinstance(tree, Sequence) and not isinstance(tree, _TEXTS)) or bool(getattr(tree, "shape", ()))


def node_of(tree: Any) -> Node | None:
    """Return ``tree`` taken apart; None if it is a leaf: not a container, or one that cannot be taken apart.

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
    """Return True if ``tree`` is a list, ``UserList`` or ``deque``; in a batch, it has one item for each sample."""
    kind: Any = type(tree)
    number = form_of(kind)
    return number is not None and FORMS[number].is_list


def leaves(tree: Any, is_leaf: Callable[[Any], bool] | None = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) for all in ``tree`` that is not a container, in order, e.g. ``("[0]['x'].mask", array)``.

    Args:
        is_leaf: returns True for containers to yield as they are, instead of their parts.
        path: the path of ``tree`` itself; all paths begin with it.
    """
    node = None if is_leaf is not None and is_leaf(tree) else node_of(tree)
    if node is None:
        yield path, tree
    else:
        for step, part in zip(node.steps(), node.parts, strict=True):
            yield from leaves(part, is_leaf, path + step)


def map_leaves(function: Callable[[Any], Any], tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> Any:
    """Return ``tree`` with each leaf, which is anything but a container, replaced by ``function(leaf)``.

    Containers keep their types. Those for which ``is_leaf`` returns True are treated as leaves.
    """
    node = None if is_leaf is not None and is_leaf(tree) else node_of(tree)
    if node is None:
        return function(tree)
    return node.like([map_leaves(function, part, is_leaf) for part in node.parts])
