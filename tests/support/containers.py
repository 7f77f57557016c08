"""Containers of every kind that a batch or a sample may be, each of two parts."""

from __future__ import annotations

import collections
import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, NamedTuple, TypeVar

import attr
import numpy as np

T = TypeVar("T")


class Attributes(dict):  # type: ignore[type-arg]
    """A dict whose items are attributes too."""

    def __init__(self, *arguments: Any, **items: Any) -> None:
        super().__init__(*arguments, **items)
        self.__dict__ = self


class Noted(dict):  # type: ignore[type-arg]
    """A dict with an attribute, made of other arguments."""

    def __init__(self, x: Any, y: Any, note: str) -> None:
        super().__init__(x=x, y=y)
        self.note = note


@dataclasses.dataclass
class ModelOutput(collections.OrderedDict):  # type: ignore[type-arg]
    """As that of transformers: a dataclass that is an OrderedDict, both with the same values."""

    x: Any = None
    y: Any = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            super().__setitem__(field.name, getattr(self, field.name))

    def __reduce__(self) -> Any:
        return type(self), (self.x, self.y)


class Encoding(collections.UserDict):  # type: ignore[type-arg]
    """As BatchEncoding of transformers: items by name, and by number what the tokenizer knows."""

    def __init__(self, data: Any = None, encodings: Any = None) -> None:
        super().__init__(data)
        self._encodings = encodings

    def __getitem__(self, item: Any) -> Any:
        return self._encodings[item] if isinstance(item, int) else self.data[item]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.data[name]
        except KeyError:
            raise AttributeError(name) from None

    def __getstate__(self) -> Any:
        return {"data": self.data, "encodings": self._encodings}

    def __setstate__(self, state: Any) -> None:
        self.data, self._encodings = state["data"], state["encodings"]


class Folded(MutableMapping):  # type: ignore[type-arg]
    """Keys whatever their case."""

    def __init__(self, **items: Any) -> None:
        self._items = {key.lower(): (key, value) for key, value in items.items()}

    def __getitem__(self, key: str) -> Any:
        return self._items[key.lower()][1]

    def __setitem__(self, key: str, value: Any) -> None:
        self._items[key.lower()] = (key, value)

    def __delitem__(self, key: str) -> None:
        del self._items[key.lower()]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._items.values())

    def __len__(self) -> int:
        return len(self._items)


class ReadOnly(Mapping):  # type: ignore[type-arg]
    """It cannot be made again by what every mapping has."""

    def __init__(self, x: Any, y: Any) -> None:
        self._items = {"x": x, "y": y}

    def __getitem__(self, key: str) -> Any:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return 2


class Named(NamedTuple):
    x: Any
    y: Any


class Couple(tuple):  # type: ignore[type-arg]
    note: str


class Items(list):  # type: ignore[type-arg]
    note: str


class Users(collections.UserList):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class Plain:
    x: Any
    y: Any
    seen: dataclasses.InitVar[Any] = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any
    y: Any


@dataclasses.dataclass(slots=True)
class Slots(Generic[T]):
    x: T
    y: Any
    z: Any = dataclasses.field(init=False)  # never set


@dataclasses.dataclass(frozen=True, slots=True)
class FrozenSlots:
    x: Any
    y: Any


@dataclasses.dataclass
class Half(Slots[Any]):
    """Slots of its base, and attributes."""

    w: Any = "w"


@attr.define
class Attrs:
    x: Any
    y: Any


@attr.frozen(cache_hash=True, eq=True)
class FrozenAttrs:
    x: Any
    y: Any


@attr.s(auto_attribs=True, frozen=True, cache_hash=True)
class HashedAttrs:
    x: Any
    y: Any


@attr.s(auto_attribs=True)
class OldAttrs:
    x: Any
    y: Any


class Base:
    __slots__ = ("x",)


class Slotted(Base):
    """Slots of its own and of its base; one has a private name, and one is not set."""

    __slots__ = ("__y", "unset")

    def __init__(self, x: Any, y: Any) -> None:
        self.x, self.__y = x, y

    @property
    def y(self) -> Any:
        return self.__y


def _with(made: Any, name: str, value: Any) -> Any:
    setattr(made, name, value)
    return made


def _ordered(x: Any, y: Any) -> Any:
    made = collections.OrderedDict(x=x, y=y)
    made.move_to_end("x")
    return made


#: Each made of x and y.
MAKE: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda x, y: (x, y),
    "list": lambda x, y: [x, y],
    "dict": lambda x, y: {"x": x, "y": y},
    "keys": lambda x, y: {1: x, True + 1.0: y},
    "OrderedDict": _ordered,
    "defaultdict": lambda x, y: collections.defaultdict(list, x=x, y=y),
    "attributes": lambda x, y: Attributes(x=x, y=y),
    "noted": lambda x, y: Noted(x, y, "n"),
    "ModelOutput": ModelOutput,
    "UserDict": lambda x, y: collections.UserDict(x=x, y=y),
    "encoding": lambda x, y: Encoding({"x": x, "y": y}, ["first", "second"]),
    "folded": lambda x, y: Folded(X=x, y=y),
    "proxy": lambda x, y: types.MappingProxyType({"x": x, "y": y}),
    "named tuple": Named,
    "tuple subclass": lambda x, y: _with(Couple([x, y]), "note", "n"),
    "list subclass": lambda x, y: _with(Items([x, y]), "note", "n"),
    "UserList": lambda x, y: Users([x, y]),
    "deque": lambda x, y: collections.deque([x, y], maxlen=2),
    "dataclass": Plain,
    "frozen dataclass": Frozen,
    "dataclass of slots": Slots,
    "frozen dataclass of slots": FrozenSlots,
    "slots and attributes": Half,
    "attrs": Attrs,
    "frozen attrs": FrozenAttrs,
    "old attrs": OldAttrs,
    "old frozen attrs": HashedAttrs,
    "slots": Slotted,
}


def parts(tree: Any) -> list[Any]:
    """Its two parts, read as a user does. Of a mapping with its keys, in order."""
    if isinstance(tree, Mapping):
        return [part for key in tree for part in (key, tree[key])]
    if hasattr(tree, "x"):
        return [tree.x, tree.y]
    return list(tree)


def about(tree: Any) -> Any:
    """What else there is to it."""
    return (
        type(tree),
        getattr(tree, "note", None),
        getattr(tree, "maxlen", None),
        getattr(tree, "default_factory", None),
        getattr(tree, "w", None),
        tree[1] if isinstance(tree, Encoding) else None,
        tree.x is tree["x"] if isinstance(tree, (ModelOutput, Encoding)) else None,
        [name for name in ("z", "unset") if hasattr(tree, name)],
    )


def same(one: Any, other: Any) -> bool:
    """Whether two containers are of one type and hold the same, to the last byte."""
    return about(one) == about(other) and _are_same(parts(one), parts(other))


def _are_same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tolist() == other.tolist()
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_are_same, one, other))
    return bool(one == other)
