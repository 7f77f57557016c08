"""Batches of ever new shapes, and all that can be told of a batch."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from workers import Sequence, current_rng, empty

#: With padding between the fields, whose bytes count too.
PADDED = np.dtype([("a", "i1"), ("b", "f8")], align=True)
KEYS: list[Any] = ["a", "b", 1, True, 1.0, 0, False, 0.0, -0.0, None, b"a", np.str_("a"), (1, "a"), (True, "a")]


class Boxes(NamedTuple):
    boxes: Any
    names: Any


@dataclasses.dataclass
class Record:
    image: Any
    label: Any = None


def tokens(chance: random.Random) -> Any:
    """Padded text."""
    length = chance.randrange(1, 3000)
    return {"tokens": _filled((4, length), chance), "mask": np.ones((4, length), bool), "labels": _filled((4,), chance)}


def boxes(chance: random.Random) -> Any:
    """Boxes of several images, and their names."""
    sizes = [chance.randrange(8) for _ in range(chance.randrange(5))]
    names = [["cat", "dog", "x" * chance.randrange(300)][: size % 4] for size in sizes]
    return Boxes([_filled((size, 4), chance) for size in sizes], names)


def named(chance: random.Random) -> Any:
    """Dicts of random keys, some of which are equal and of other types."""
    return {key: _filled((chance.randrange(3),), chance) for key in chance.sample(KEYS, chance.randrange(5))}


def crop(chance: random.Random) -> Any:
    """An image of random size, most of which lie in a slot of their own; in place, now and then."""
    shape = chance.randrange(20, 200), chance.randrange(20, 200), 3
    if chance.random() < 0.3:
        made = empty(shape, np.uint8)
        made[...] = chance.randrange(256)
        return made
    return Record(_filled(shape, chance, "u1"), chance.random())


def structure(chance: random.Random) -> Any:
    return np.frombuffer(chance.randbytes(16 * chance.randrange(1, 50)), PADDED)


def text(chance: random.Random) -> Any:
    """Strings of various lengths, sometimes too long for the message itself."""
    return ["y" * chance.randrange(2000) for _ in range(chance.randrange(60))], chance.random(), None


def nested(chance: random.Random) -> Any:
    return [(tokens(chance), [named(chance)]), {"inner": boxes(chance), "x": [crop(chance)]}]


KINDS: list[Callable[[random.Random], Any]] = [tokens, boxes, named, crop, structure, text, nested]
#: Those whose arrays all become tensors.
NUMBERS: list[Callable[[random.Random], Any]] = [tokens, crop]


def _filled(shape: tuple[int, ...], chance: random.Random, dtype: str = "i4") -> Any:
    return np.full(shape, chance.randrange(256), dtype)


class Shapes(Sequence):
    """``length`` batches of random trees; the first item of each is who made it."""

    def __init__(self, length: int, seed: int, kinds: list[Callable[[random.Random], Any]] | None = None) -> None:
        super().__init__(seed=seed)
        self.length, self.kinds = length, kinds or KINDS

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        chance = random.Random(int(current_rng().integers(1 << 62)))
        return os.getpid(), (self.epoch, index), chance.choice(self.kinds)(chance)


class Stream:
    """``length`` items of ever new shapes, without an index. Its memory is used again for each item."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed

    def __iter__(self) -> Iterator[Any]:
        memory = np.zeros(1 << 20, np.uint8)
        for index in range(self.length):
            chance = random.Random(self.seed + index)
            size = chance.choice([chance.randrange(9000), chance.randrange(9000, 200_000)])
            memory[:size] = chance.randrange(256)
            yield index, memory[:size], named(chance)


def drawn(item: Any) -> Any:
    """A function for items: they, and what only this job draws."""
    return os.getpid(), item, current_rng().random(3)


def exactly(tree: Any) -> Any:
    """All that can be told of a tree, as text: types, also of keys; dtypes, shapes, and a digest of every byte."""
    if isinstance(tree, np.ndarray):
        dtype = tree.dtype
        told = dtype.str, dict(dtype.metadata or {}), dtype.isalignedstruct, dtype.fields
        return repr((type(tree), told, tree.shape, hashlib.blake2b(raw(tree), digest_size=16).digest()))
    if isinstance(tree, dict):
        return repr((type(tree), [(exactly(key), exactly(value)) for key, value in tree.items()]))
    if isinstance(tree, (tuple, list, frozenset)):
        return repr((type(tree), [exactly(part) for part in tree]))
    if dataclasses.is_dataclass(tree):
        return repr((type(tree), exactly(vars(tree))))
    if hasattr(tree, "detach"):
        return repr((type(tree), tree.dtype, exactly(tree.numpy())))
    return repr((type(tree), tree))


def raw(array: Any) -> bytes:
    """All its bytes, in C order. ``tobytes`` of a structure leaves out the padding where it has to copy."""
    return bytes(array.view(f"V{array.dtype.itemsize}").tobytes() if array.dtype.names else array.tobytes())
