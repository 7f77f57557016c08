"""Parcels: what is in them, and what of the next one is the same."""

from __future__ import annotations

import functools
import json
import os
import pickle
import random
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest

from workers.job.installed import is_installed
from workers.process import by_value, main_module, replica
from workers.process.arrays import SHARED_NBYTES
from workers.process.replica import Parcel, Pickled

LARGE = SHARED_NBYTES // 8  # entries


class Source:
    def __init__(self, *arrays: Any, **others: Any) -> None:
        self.arrays = list(arrays)
        self.__dict__.update(others)


@pytest.fixture
def parcels() -> Iterator[list[Parcel]]:
    """All that are appended are closed."""
    made: list[Parcel] = []
    yield made
    for parcel in made:
        for piece in parcel.pieces:
            piece.close()


def loaded(parcel: Parcel) -> Any:
    return replica.load(parcel.message(), [os.dup(file) for file in parcel.descriptors])


def test_there_and_back(parcels: list[Parcel]) -> None:
    """Large arrays are read-only views of shared memory."""
    source = Source(np.arange(LARGE), np.arange(5), np.asfortranarray(np.ones((300, 300))), name="x")
    parcels.append(Parcel(Pickled(source)))
    assert len(parcels[0].table) == 3  # the pickle, and two large arrays
    got = loaded(parcels[0])
    for one, other in zip(got.arrays, source.arrays, strict=True):
        assert np.array_equal(one, other)
    assert got.name == "x"
    assert not got.arrays[0].flags.writeable


class Lazy(types.ModuleType):
    """Stands for the modules that packages replace by objects of a class of their own."""


@pytest.mark.parametrize("where", ["a module", "of a file", "an attribute", "an attribute of an attribute"])
def test_modules_of_a_class_of_their_own(where: str, parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch) -> None:
    """They go by their names, also by what they are in a module that can be imported."""
    parent = types.ModuleType("parent_of_lazy")
    monkeypatch.setitem(sys.modules, parent.__name__, parent)
    inner: Any = Lazy("parent_of_lazy.inner")
    module = inner
    if where == "an attribute of an attribute":
        module = inner.far = Lazy("parent_of_lazy.inner.far")
    vars(parent)["inner"] = inner
    if where in ("a module", "of a file"):
        monkeypatch.setitem(sys.modules, inner.__name__, inner)
    if where == "of a file":  # torch.ops says so
        inner.__file__ = "_lazy.py"
    module.lock = threading.Lock()
    parcels.append(Parcel(Pickled(type("Uses", (), {"module": module, "__module__": "__main__"}))))
    assert loaded(parcels[0]).module is module


@pytest.mark.parametrize("has_namesake", [False, True])
def test_definitions_of_a_module_that_workers_cannot_import(
    has_namesake: bool, parcels: list[Parcel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker has them under the module's name, unless that leads to another module there."""
    name = "json" if has_namesake else "of_a_path"
    assert is_installed(name) == has_namesake  # what is known of the namesake does not hold for the module
    module = types.ModuleType(name)
    module.__file__ = "/nowhere/of_a_path.py"
    exec("class Thing: pass\ndef thing(): return Thing()", vars(module))
    monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(by_value, "_ours", set())
    monkeypatch.setattr(cloudpickle.cloudpickle, "_PICKLE_BY_VALUE_MODULES", set())
    parcels.append(Parcel(Pickled([module.thing])))
    assert sys.modules[name] is module  # in the program nothing changes
    worker_has = json if has_namesake else None
    monkeypatch.setattr(main_module, "is_in_worker_process", lambda: True)
    monkeypatch.setattr(main_module, "_made", {})
    if worker_has is None:
        monkeypatch.delitem(sys.modules, name)
    else:
        monkeypatch.setitem(sys.modules, name, worker_has)
    (thing,) = loaded(parcels[0])
    if has_namesake:
        assert sys.modules[name] is json
        assert not hasattr(json, "thing")
    else:
        assert pickle.loads(pickle.dumps(thing)) is thing
        assert type(pickle.loads(pickle.dumps(thing()))) is type(thing())


def test_methods_of_the_global_generators(parcels: list[Parcel]) -> None:
    """In a worker they are those of its own, which are seeded for each job; methods of others are of copies."""
    mine = np.random.RandomState(1)
    of_globals = [np.random.permutation, random.shuffle, functools.partial(random.sample, range(9))]
    parcels.append(Parcel(Pickled([*of_globals, mine.permutation])))
    *got, copied = loaded(parcels[0])
    assert got[:2] == of_globals[:2]
    assert got[2].func == random.sample
    assert copied.__self__ is not mine


@pytest.mark.parametrize(
    ("change", "is_same", "same"),
    [
        ("nothing", True, [True, True]),
        ("a byte of an array", False, [True, False]),
        ("a longer array", False, [True, False]),
        ("one array more", False, [True, True, False]),
        ("one array less", False, [True]),
        ("a number", False, [True, True]),
    ],
)
def test_compare(parcels: list[Parcel], change: str, is_same: bool, same: list[bool]) -> None:
    source = Source(np.arange(LARGE), np.arange(2 * LARGE), number=1)
    parcels.append(Parcel(Pickled(source)))
    if change == "a byte of an array":
        source.arrays[1].view(np.uint8)[-1] ^= 1
    elif change == "a longer array":
        source.arrays[1] = np.arange(2 * LARGE + 1)
    elif change == "one array more":
        source.arrays.append(np.zeros(3 * LARGE))
    elif change == "one array less":
        del source.arrays[1]
    elif change == "a number":
        source.number = 2
    found = parcels[0].compare(Pickled(source))
    assert found.same == same
    assert found.is_same is is_same


def test_what_is_the_same_stays_where_it_is(parcels: list[Parcel]) -> None:
    """Over several changes: the memory of an array that does not change is shared by all parcels."""
    source = Source(np.arange(LARGE), np.zeros(LARGE))
    parcels.append(Parcel(Pickled(source)))
    for change in range(3):
        source.arrays[1] = np.full(LARGE, change + 1.0)
        pickled = Pickled(source)
        found = parcels[-1].compare(pickled)
        assert found.same == [True, False]
        parcels.append(Parcel(pickled, parcels[-1], found.same))
        first = parcels[-1].table[1]
        assert parcels[-1].pieces[first.piece] is parcels[0].pieces[0]
        assert len(parcels[-1].pieces) == 2
        got = loaded(parcels[-1])
        assert np.array_equal(got.arrays[0], source.arrays[0])
        assert np.array_equal(got.arrays[1], source.arrays[1])
    source.arrays[0] = np.ones(LARGE)
    pickled = Pickled(source)
    found = parcels[-1].compare(pickled)
    assert found.same == [False, True]
    parcels.append(Parcel(pickled, parcels[-1], found.same))
    assert parcels[0].pieces[0] not in parcels[-1].pieces
    assert np.array_equal(loaded(parcels[-1]).arrays[0], source.arrays[0])


def test_load_closes_the_descriptors_whatever_happens(parcels: list[Parcel]) -> None:
    parcels.append(Parcel(Pickled(Source(np.arange(LARGE)))))
    files = [os.dup(file) for file in parcels[0].descriptors]
    message = parcels[0].message()
    with pytest.raises(ValueError, match="zip"):
        replica.load(message._replace(lengths=[*message.lengths, 7]), files)
    for file in files:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)


def test_pieces_stay_few(parcels: list[Parcel]) -> None:
    """However many changes there were, each of which has left something where it was."""
    source = Source(*(np.full(LARGE, number) for number in range(130)))
    parcels.append(Parcel(Pickled(source)))
    for number in range(129):
        source.arrays[number] = np.full(LARGE, -number)
        pickled = Pickled(source)
        parcels.append(Parcel(pickled, parcels[-1], parcels[-1].compare(pickled).same))
    assert len(parcels[-1].descriptors) <= 101
    assert all(map(np.array_equal, loaded(parcels[-1]).arrays, source.arrays))
