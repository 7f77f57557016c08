"""Containers of every kind, on every way that a batch or a sample takes: they keep their type and all they hold."""

from __future__ import annotations

import collections
import copy
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from containers import MAKE, Folded, FrozenAttrs, HashedAttrs, Items, ReadOnly, Slots, about, parts, same

from workers.batch import tree
from workers.batch.nodes import is_list, leaves, map_leaves
from workers.batch.pickling import pickled_by_value
from workers.batch.stacking import cut, join, length_of_first, num_samples, stack, unstack
from workers.for_keras import reading
from workers.report.pictures.images import leaves_of

KINDS = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def sent(batch: Any) -> tuple[Any, int]:
    """(``batch`` by way of the bytes that are sent, how many arrays of it need no pickle)."""
    arrays: list[Any] = []
    rest: list[Any] = []
    spec = tree.flatten(batch, arrays, rest)
    spec, rest = pickle.loads(tree.dumps((spec, rest)))
    hash(spec)
    return tree.unflattener(spec)(iter(arrays), iter(rest)), len(arrays)


@KINDS
def test_sent(make: Any) -> None:
    batch = make(np.arange(3), np.ones((2, 2), "f4"))
    for _ in range(2):
        got, num_arrays = sent(batch)
        assert num_arrays == 2
        assert same(got, batch)
    nested = make(make(1, np.arange(2)), [make("a", None)])
    again, num_arrays = sent(nested)
    assert num_arrays == 1
    assert [path for path, _ in leaves(again)] == [path for path, _ in leaves(nested)]
    assert about(again) == about(nested)


@KINDS
def test_owned(make: Any) -> None:
    """Without workers the loop gets containers and arrays of its own, of the same type."""
    kept: Any = bytearray(b"ab")
    batch = make(np.arange(3), kept)
    before = copy.deepcopy(parts(batch))
    got = tree.own(batch)
    assert same(got, batch)
    for part in parts(got):
        if isinstance(part, (np.ndarray, bytearray)):
            part[0] = 9
    assert repr(parts(batch)) == repr(before)


@KINDS
def test_every_leaf_is_found(make: Any) -> None:
    first, second = np.zeros(2), np.ones(2)
    batch = make(first, [second, "a"])
    found = [leaf for _, leaf in leaves(batch)]
    assert any(leaf is first for leaf in found)
    assert any(leaf is second for leaf in found)
    assert tree.path_to(second, [batch]) in {f"[0]{path}" for path, _ in leaves(batch)}
    mapped = map_leaves(lambda leaf: leaf + 1 if isinstance(leaf, np.ndarray) else leaf, batch)
    assert about(mapped) == about(batch)
    assert [leaf.tolist() for _, leaf in leaves(mapped) if isinstance(leaf, np.ndarray)] == [
        (leaf + 1).tolist() for leaf in found if isinstance(leaf, np.ndarray)
    ]
    assert (first == 0).all()


@KINDS
def test_tensors_are_arrays(make: Any) -> None:
    got = tree.as_numpy(make(torch.arange(3), 1))
    assert about(got) == about(make(0, 0))
    assert any(isinstance(part, np.ndarray) and part.tolist() == [0, 1, 2] for part in parts(got))
    with pytest.raises(TypeError, match=r"batch.+ is a Tensor, which is sparse"):
        tree.flatten(make(0, torch.eye(2).to_sparse()), [], [])


@KINDS
def test_stacked(make: Any) -> None:
    samples = [make(np.full(3, at), [float(at), f"n{at}"]) for at in range(4)]
    batch = stack(samples)
    expected = make(np.repeat(np.arange(4), 3).reshape(4, 3), [np.arange(4.0), [f"n{at}" for at in range(4)]])
    assert about(batch)[:4] == about(expected)[:4]
    assert repr(parts(batch)) == repr(parts(expected))
    for at, sample in enumerate(unstack(batch)):
        assert same(sample, make(np.full(3, at), [np.float64(at), f"n{at}"]))
    assert repr(parts(samples[0])) == repr(parts(make(np.full(3, 0), [0.0, "n0"])))


@KINDS
def test_cut_and_joined(make: Any) -> None:
    if is_list(make(0, 0)):
        batch = make("a", "b")
        part = cut(batch, 1, 2)
        assert (about(part), list(part)) == (about(batch), ["b"])
        assert same(join([cut(batch, 0, 1), cut(batch, 1, 2)]), batch)
        assert num_samples(batch) == 2
        return
    batch = make(np.arange(10).reshape(5, 2), list("abcde"))
    assert num_samples(batch) == length_of_first(batch) == 5
    assert same(cut(batch, 1, 3), make(np.arange(2, 6).reshape(2, 2), ["b", "c"]))
    assert same(join([cut(batch, 0, 2), cut(batch, 2, 3), cut(batch, 3, 5)]), batch)
    with pytest.raises(ValueError, match="must be of one length"):
        num_samples(make(np.arange(3), np.arange(4)))


@KINDS
def test_what_keras_takes_for_a_batch(make: Any) -> None:
    """A list of them, returned by a function, is no batch."""
    batch = make(np.zeros(2), 1)
    assert reading._is_batch(batch) is not is_list(batch)


@KINDS
def test_shown(make: Any) -> None:
    """A preview finds what is in it."""
    found = leaves_of(make(np.zeros((2, 4, 4, 3)), np.arange(2)))
    assert [4, 1] in (dims := [leaf.array.ndim for leaf in found if leaf.array.dtype.kind != "U"], dims[::-1])


def test_keys_that_are_equal_stay_as_they_are() -> None:
    for make in (dict, collections.OrderedDict, collections.UserDict, collections.defaultdict):
        for keys in ([1, True, 1.0, np.int64(1)], [0, False, 0.0, -0.0], ["a", np.str_("a")]):
            for key in [*keys, *reversed(keys)]:
                items = {key: np.arange(4)}
                batch: Any = make(list, items) if make is collections.defaultdict else make(items)
                ways = [
                    sent(batch)[0],
                    tree.own(batch),
                    tree.as_numpy(batch),
                    join([cut(batch, 0, 2), cut(batch, 2, 4)]),
                    stack(unstack(batch)),
                    map_leaves(lambda leaf: leaf, batch),
                ]
                for way in ways:
                    (there,) = way
                    assert (type(way), type(there), repr(there)) == (type(batch), type(key), repr(key))


def test_a_hash_that_is_kept_does_not_travel() -> None:
    """Those of strings are others in other processes; attrs then knows that it has to be made again."""
    for kind in (FrozenAttrs, HashedAttrs):
        batch = kind("a", 1)
        hash(batch)
        for way in (sent(batch)[0], tree.own(batch), map_leaves(lambda leaf: leaf, batch)):
            assert way._attrs_cached_hash is None
            assert (hash(way), way) == (hash(batch), batch)


def test_a_shell_that_is_sent_holds_no_arrays() -> None:
    """They travel as bytes in shared memory, whatever holds them."""
    for name, make in MAKE.items():
        arrays: list[Any] = []
        rest: list[Any] = []
        tree.flatten(make(np.zeros(100_000), np.zeros(100_000)), arrays, rest)
        assert len(tree.dumps(rest)) < 1000, name
        assert len(arrays) == 2


class Refusing(dict):  # type: ignore[type-arg]
    def __copy__(self) -> Any:
        raise RuntimeError("not copied")


class Changing(dict):  # type: ignore[type-arg]
    """Its copy has another key."""

    def __copy__(self) -> Any:
        return Changing({**self, "more": 1})


class Checked(dict):  # type: ignore[type-arg]
    """It takes nothing but arrays and numbers, also from pickle."""

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, value + 0)


class Checking(list):  # type: ignore[type-arg]
    def append(self, value: Any) -> None:
        super().append(value + 0)

    def extend(self, values: Any) -> None:
        for value in values:
            self.append(value)


class ByAttribute(dict):  # type: ignore[type-arg]
    """It answers for attributes that it does not have with a KeyError, as many such classes do."""

    __getattr__ = dict.__getitem__


def test_classes_that_work_on_their_items() -> None:
    """What pickle would give them in the place of arrays they refuse: they are pickled whole, and keep their type."""
    for batch in (Checked(x=np.zeros(2), y=1), Checking([np.zeros(2), 1]), time.localtime(0)):
        for _ in range(2):
            got, num_arrays = sent(batch)
            assert (type(got), repr(got), num_arrays) == (type(batch), repr(batch), 0)
            owned = tree.own(batch)
            assert (type(owned), repr(owned)) == (type(batch), repr(batch))
    assert sent(time.localtime(0))[0].tm_zone == time.localtime(0).tm_zone
    checked = Checked(x=np.zeros(2), y=1)
    tree.own(checked)["x"][:] = 9
    assert checked["x"].tolist() == [0, 0]
    assert type(stack([checked, checked])) is Checked


def test_classes_that_answer_for_every_attribute() -> None:
    batch = ByAttribute(x=np.zeros(2), y=[1])
    for way in (sent(batch)[0], tree.own(batch), map_leaves(lambda leaf: leaf, batch), cut(batch, 0, 2)):
        assert (type(way), repr(way)) == (ByAttribute, repr(batch))
    assert repr(stack([batch, batch])) == repr({"x": np.zeros((2, 2)), "y": [np.array([1, 1])]})


def test_sequences_of_c() -> None:
    found = torch.max(torch.arange(6).reshape(2, 3), 1)
    got, num_arrays = sent(found)
    assert (type(got), num_arrays) == (type(found), 2)
    assert [part.tolist() for part in got] == [[2, 5], [2, 2]]
    got, num_arrays = sent(torch.Size([2, 3]))
    assert (type(got), list(got), num_arrays) == (torch.Size, [2, 3], 0)


@pytest.mark.parametrize(
    "batch", [ReadOnly(np.zeros(2), 1), Refusing(x=np.zeros(2), y=1), Changing(x=np.zeros(2), y=1), {1, 2}, range(3)]
)
def test_what_cannot_be_made_again_is_a_leaf(batch: Any) -> None:
    """It is delivered as it is. Where samples of it are stacked there is a plain dict, as long as it is a mapping."""
    rest: list[Any] = []
    tree.flatten(batch, [], rest)
    assert rest == [batch]
    if hasattr(batch, "keys"):
        assert repr(stack([batch, batch])) == repr({"x": np.zeros((2, 2)), "y": np.array([1, 1])})
        assert repr(cut(batch, 0, 1)) == repr({"x": np.zeros(1), "y": 1})


def test_a_node_is_not_changed_by_its_copies() -> None:
    folded = Folded(X=np.zeros(2), y=1)
    stack([folded, folded])
    cut(folded, 0, 1)
    tree.own(folded)
    assert list(folded) == ["X", "y"]
    assert (folded["x"].tolist(), folded["Y"]) == ([0, 0], 1)
    items = Items([np.zeros(2), "a"])
    items.note = "n"
    cut(items, 0, 1)
    assert len(items) == 2


def test_samples_that_are_not_alike() -> None:
    for samples, error, text in [
        ([{"a": 1}, {"a": 1, "b": 2}], ValueError, "same names, not ['a'] and ['a', 'b']"),
        ([{"a": {"b": 1}}, {"a": {"c": 1}}], ValueError, "samples['a'] must all have the same names"),
        ([{"a": 1}, (1,)], TypeError, "of one kind, not {'a': 1} and (1,)"),
        ([(1,), {"a": 1}], TypeError, "of one kind, not (1,) and {'a': 1}"),
        ([Slots(1, 2), {"x": 1, "y": 2}], TypeError, "of one kind"),
        ([([1],), ("a",)], TypeError, "samples[0] must be of one kind"),
    ]:
        with pytest.raises(error) as raised:
            stack(samples)
        assert text in str(raised.value)
    with pytest.raises(ValueError, match="batches to be joined must all have the same names"):
        join([{"a": np.zeros(2)}, {"b": np.zeros(2)}])


# -- arrays of several samples


INT, UINT = np.int64, np.uint64


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5, 2**63], np.array([5, 2**63], UINT)),
        ([2**63, 5], np.array([2**63, 5], UINT)),
        ([2**64 - 1, 0, 2**63 - 1], np.array([2**64 - 1, 0, 2**63 - 1], UINT)),
        ([INT(-1), UINT(5)], np.array([-1, 5], INT)),
        ([UINT(5), INT(7)], np.array([5, 7], UINT)),
        ([np.int32(3), 2**63, True], np.array([3, 2**63, 1], UINT)),
        ([3, 0.5], np.array([3, 0.5])),
        ([2**62, 0.5], np.array([2.0**62, 0.5])),
        ([True, 2], np.array([1, 2])),
        ([2**70, 1], np.array([2**70, 1], object)),
        ([1, None], np.array([1, None], object)),
        ([np.int8(1), np.int64(2**62)], np.array([1, 2**62])),
        ([-1, 2**63], "int64 and uint64"),
        ([2**53 + 1, 0.5], "int64 and float64"),
        ([0.5, 2**53 + 1], "float64 and int64"),
        ([np.float32(1), INT(2**63 - 1)], "float32 and int64"),
        ([UINT(2**64 - 1), 1.0], "uint64 and float64"),
        ([2**53 + 1, 1j], "int64 and complex128"),
        ([5, "a"], "int64 and <U1: together the numbers would become strings"),
        ([np.array("a"), np.array(b"b")], "<U1 and |S1, which have nothing in common"),
        ([5, np.timedelta64(4, "s")], "int64 and timedelta64[s], which have nothing in common"),
        ([np.datetime64("2000-01-01"), np.timedelta64(4, "s")], "nothing in common"),
        ([np.datetime64("2000-01-01"), "2000-01-02"], "datetime64[D] and <U10, which have nothing in common"),
        ([np.datetime64("9999-01-01", "s"), np.datetime64("2000-01-01", "ns")], "does not reach the most distant one"),
        ([np.timedelta64(2**62, "D"), np.timedelta64(4, "s")], "does not reach the most distant one"),
        (
            [np.datetime64("1999-01-01"), np.datetime64("2000-01-01T05"), np.datetime64("NaT", "s")],
            np.array(["1999-01-01", "2000-01-01T05", "NaT"], "M8[s]"),
        ),
    ],
)
def test_numbers_stay_what_they_are(values: list[Any], expected: Any) -> None:
    """64 bits are more than a float64 holds. Where no dtype holds them all, the key is named."""
    for nested in (False, True):
        samples = [{"id": np.full(2, value) if nested else value} for value in values]
        if nested and any(isinstance(value, str) or value is None for value in values):
            continue
        if isinstance(expected, str):
            with pytest.raises(TypeError, match=r"samples\['id'\] are of ") as raised:
                stack(samples)
            assert expected in str(raised.value)
            if nested:
                with pytest.raises(TypeError, match=r"samples\['id'\] are of "):
                    join(samples)
            continue
        got = stack(samples)["id"]
        wanted = np.stack([expected, expected], 1) if nested else expected
        assert repr(got) == repr(wanted)
        if nested:
            assert repr(join(samples)["id"]) == repr(wanted.ravel())
    if not isinstance(expected, str) and len({type(value) for value in values}) == 1:
        batches = [{"id": value} for value in values]
        assert repr(join(batches)["id"]) == repr(expected)


def test_masks_stay() -> None:
    samples = [np.ma.masked_array(np.arange(3) + at, [False, at == 1, True], fill_value=7) for at in range(3)]
    batch = stack([{"x": sample} for sample in samples])["x"]
    assert type(batch) is np.ma.MaskedArray
    assert (batch.mask.tolist(), batch.fill_value) == ([[False, at == 1, True] for at in range(3)], 7)
    assert batch.data.tolist() == [[at, at + 1, at + 2] for at in range(3)]
    for again in (stack(unstack(batch)), join([cut(batch, 0, 1), cut(batch, 1, 3)]), sent(batch)[0], tree.own(batch)):
        assert repr(again) == repr(batch)
        assert again.data.tolist() == batch.data.tolist()
    ordinary = stack([np.arange(3), samples[1]])
    assert ordinary.mask.tolist() == [[False] * 3, [False, True, True]]
    ids = stack([2**53 + 1, np.ma.masked, 5])
    assert (ids.dtype, ids.mask.tolist(), ids.data[[0, 2]].tolist()) == (INT, [False, True, False], [2**53 + 1, 5])
    of_one = np.ma.masked_array([1, 2, 3], [0, 1, 0])
    assert repr(stack(unstack(of_one))) == repr(of_one)
    records = np.ma.masked_array([(1, 2.0)], [(True, False)], dtype=[("a", "i4"), ("b", "f8")])
    assert stack([records, records]).mask.tolist() == [[(True, False)], [(True, False)]]


def test_hard_masks_stay() -> None:
    hard = np.ma.masked_array([1, 2, 3], [0, 1, 0], hard_mask=True)
    for got in (stack([hard, hard]), join([hard, hard]), sent([hard])[0][0], tree.own(hard), tree.as_numpy(hard)):
        assert got.hardmask
    assert not stack([hard, np.ma.masked_array([1, 2, 3])]).hardmask


# -- what is no array


class OfOwn(np.ndarray[Any, Any]):
    pass


class Own:
    def __init__(self) -> None:
        self.values, self.names = np.zeros(3), ["a"]


class Locked(Own):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_what_is_written_into_is_the_loops_own() -> None:
    """Whatever holds it, and whether or not the arrays were made for the batch."""
    record = np.zeros(3, [("a", "i4")])
    data: dict[str, Any] = {
        "objects": np.array([np.zeros(2), [1]], object),
        "texts": np.array(["a", "b"], object),
        "masked": np.ma.masked_array([1, 2, 3], [0, 1, 0]),
        "subclass": np.eye(2).view(OfOwn),
        "records": np.zeros(3, record.dtype).view(np.recarray),
        "row": record[0],
        "sparse": scipy.sparse.csr_array(np.eye(3)),
        "bytes": bytearray(b"abc"),
        "own": Own(),
        "set": {1},
        "generator": np.random.default_rng(0),
        "attributes": Items(["a"]),
    }
    data["attributes"].note = [1]
    before = pickle.dumps(data)
    for is_fresh in (False, True):
        got = tree.own(data, is_fresh)
        got["objects"][0][:] = 9
        got["objects"][1] = 2
        got["texts"][0] = "z"
        got["masked"][0] = np.ma.masked
        got["masked"].data[:] = 9
        got["subclass"][:] = 9
        got["records"].a[:] = 9
        got["row"]["a"] = 9
        got["sparse"].data[:] = 9
        got["bytes"][:] = b"zzz"
        got["own"].values[:] = 9
        got["own"].names.append("b")
        got["set"].add(2)
        got["generator"].random()
        got["attributes"].append("b")
        got["attributes"].note.append(2)
        assert [type(part) for part in got.values()] == [type(part) for part in data.values()]
    assert pickle.dumps(data) == before
    assert record["a"].tolist() == [0, 0, 0]


def test_what_cannot_be_changed_or_copied_is_not() -> None:
    key, locked, kept = object(), Locked(), [1]
    batch: Any = {key: (i for i in range(2)), "n": np.float32(1), "t": int, "f": len, "locked": locked, "path": Path()}
    got = tree.own(batch)
    assert all(got[name] is batch[name] for name in batch)
    assert next(iter(got)) is key
    shared = np.empty(2, object)
    shared[0] = shared[1] = kept
    one, other = tree.own({"one": shared, "other": shared}).values()
    assert one[0] is one[1] is other[0]
    assert one[0] is not kept
    beside = tree.own({"locked": locked, "one": shared})  # what can be copied is, and is whole
    assert beside["one"][0] == [1]
    assert beside["one"][0] is not kept


# -- classes of a script


CLASSES = """
class Made:
    __slots__ = ("x", "__y")
    def __init__(self): self.x, self.__y = 1, 2
    def both(self): return self.x, self.__y
---
class Made:
    __slots__ = "x"
    def __init__(self): self.x = 1
    def both(self): return self.x, 2
---
class Made:
    __slots__ = ("x", "__weakref__", "__dict__")
    def __init__(self): self.x, self.y = 1, 2
    def both(self): return self.x, self.y
---
class Made:
    __slots__ = {"x": "documented"}
    def __init__(self): self.x = 1
    def both(self): return self.x, 2
---
from dataclasses import dataclass
@dataclass(slots=True, frozen=True)
class Made:
    x: int = 1
    def both(self): return self.x, 2
---
class Base:
    __slots__ = ("x",)
class Made(Base):
    __slots__ = ()
    def __init__(self): self.x = 1
    def both(self): return self.x, 2
---
from typing import NamedTuple
class Made(NamedTuple):
    x: int = 1
    def both(self): return self.x, 2
"""


def test_classes_of_slots_that_go_by_value(tmp_path: Path) -> None:
    """Where they arrive they have the slots too, also in a process that never had the class."""
    made = []
    for at, text in enumerate(CLASSES.split("---\n")):
        names: dict[str, Any] = {"__name__": f"nowhere{at}"}
        exec(compile(text, "nowhere", "exec", dont_inherit=True), names)
        made.append(names["Made"]())
    pickled = pickled_by_value(made)
    for one, other in zip(made, pickle.loads(pickled), strict=True):
        assert type(one) is type(other)
        assert other.both() == (1, 2)
    (tmp_path / "made").write_bytes(pickled)
    program = "import pickle, sys; print([(m.both(), hasattr(m, '__dict__')) for m in pickle.load(sys.stdin.buffer)])"
    with (tmp_path / "made").open("rb") as file:
        told = subprocess.run([sys.executable, "-c", program], stdin=file, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str([((1, 2), hasattr(one, "__dict__")) for one in made])
