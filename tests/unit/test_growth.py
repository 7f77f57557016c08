"""A generator that a later job than the first makes is found behind that job, wherever it is put."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workers import Sequence
from workers.job.generators import Generators
from workers.job.growth import Growth

MADE: Any = None


def made() -> Any:
    return np.random.default_rng(0)


class Slotted:
    __slots__ = ("rng",)


class Holder:
    of_class: Any = None

    def __init__(self) -> None:
        self.number = 0
        self.none: Any = None
        self.items: dict[str, Any] = {"a": 1}
        self.places: list[Any] = [None, None]
        self.empty: list[Any] = []
        self.data = list(range(5_000))
        self.cache: dict[int, Any] = dict.fromkeys(range(5_000))
        self.slotted = Slotted()
        self.inner: Any = [{"deep": [Slotted()]}]
        cell: Any = None

        def fill() -> None:
            nonlocal cell
            cell = made()

        self.fill: Callable[[], None] = fill

    def __call__(self) -> Any:
        return by_global(self) if MADE is None else MADE


def by_global(holder: Holder) -> None:
    global MADE
    MADE = made()


WAYS: dict[str, Callable[[Holder], Any]] = {
    "attribute": lambda holder: setattr(holder, "none", made()),
    "new attribute": lambda holder: setattr(holder, "rng", made()),
    "within what is new": lambda holder: setattr(holder, "rng", {"a": [made()]}),
    "object that is new": lambda holder: setattr(holder, "rng", made().random),
    "item": lambda holder: holder.items.update(b=made()),
    "item replaced": lambda holder: holder.items.update(a=made()),
    "place in a list": lambda holder: holder.places.__setitem__(1, made()),
    "appended": lambda holder: holder.empty.append(made()),
    "appended to data": lambda holder: holder.data.append(made()),
    "added to a long dict": lambda holder: holder.cache.update({-1: made()}),
    "slot": lambda holder: setattr(holder.slotted, "rng", made()),
    "deep": lambda holder: setattr(holder.inner[0]["deep"][0], "rng", made()),
    "closure": lambda holder: holder.fill(),
    "class": lambda holder: setattr(Holder, "of_class", made()),
    "global": by_global,
}


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Holder, "of_class", None)
    monkeypatch.setitem(globals(), "MADE", None)


@pytest.mark.parametrize("has_array", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_it_is_found(way: str, has_array: bool) -> None:
    """Also beside a large array."""
    holder: Any = Holder()
    if has_array:
        holder.array = holder.items["array"] = np.zeros(10_000)
    generators = Generators(lambda: [("source", holder)])
    generators.begin(0)
    assert not generators.has_grown()
    holder.number += 1
    assert not generators.has_grown()
    WAYS[way](holder)
    assert generators.has_grown()
    assert not generators.has_grown()
    generators.seed(lambda number: 7)


def test_what_holds_no_generator_costs_no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one that each job makes anew."""
    holder = Holder()
    holder.places[0] = made()
    generators = Generators(lambda: [("source", holder)])
    generators.begin(0)
    assert not generators.has_grown()
    looks: list[Any] = []
    monkeypatch.setattr(Generators, "look", looks.append)
    for number in range(3):
        holder.number = number
        holder.none = {"picture": (np.zeros(2), [1.0])}
        holder.items[str(number)] = np.zeros(3)
        holder.cache[-1 - number] = np.zeros(3), "label"
        holder.data.append(number)
        assert not generators.has_grown()
        holder.places[0] = made()
        assert not generators.has_grown()
    assert not looks


def test_few_references_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a Sequence holds."""
    sizes: list[int] = []
    init = Growth.__init__

    def counted(self: Growth, *arguments: Any) -> None:
        init(self, *arguments)
        sizes.append(len(self._kept))

    monkeypatch.setattr(Growth, "__init__", counted)
    holder = Holder()
    holder.inner = [Holder() for _ in range(300)]
    Generators(lambda: [("source", holder)]).begin(0)
    assert 100 < sizes[0] <= 2_000


def test_no_large_array_is_kept() -> None:
    """That a job has let go of."""
    holder = Holder()
    holder.none = np.zeros(10_000)
    gone = weakref.ref(holder.none)
    generators = Generators(lambda: [("source", holder)])
    generators.begin(0)
    assert not generators.has_grown()
    holder.none = None
    assert gone() is None


class Pure:
    def __init__(self) -> None:
        self.rng = made()
        self.data = [1, 2]

    def __getitem__(self, index: int) -> Any:
        total = sum(self.data)
        return total + self.rng.random()


class Storing(Pure):
    def __getitem__(self, index: int) -> Any:
        self.last = index
        return self.last


class Appending(Pure):
    def __getitem__(self, index: int) -> Any:
        self.data.append(index)
        return index


class Sharing(Pure):
    """A variable of the call itself, which a function within it reads."""

    def __getitem__(self, index: int) -> Any:
        place = index + 1
        return sorted(self.data, key=lambda each: each % place)


class OfOurs(Sequence[Any]):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return index


KINDS = [(Pure, False), (Sharing, False), (OfOurs, False), (Storing, True), (Appending, True)]


@pytest.mark.parametrize(("cls", "is_watched"), KINDS)
def test_what_stores_nothing_is_not_watched(cls: type, is_watched: bool) -> None:
    source = cls()
    generators = Generators(lambda: [("source", source)])
    generators.begin(0)
    assert (generators._growth is not None) is is_watched


@pytest.mark.needs("keras")
def test_what_keras_sees_of_a_sequence_is_not_watched() -> None:
    import keras

    source = OfOurs()
    assert isinstance(source, keras.utils.PyDataset)
    generators = Generators(lambda: [("source", source)])
    generators.begin(0)
    assert generators._growth is None


def test_code_of_other_packages_may_store() -> None:
    source = Pure()
    source.data = pytest.importorskip("albumentations").HorizontalFlip()
    generators = Generators(lambda: [("source", source)])
    generators.begin(0)
    assert generators._growth is not None
