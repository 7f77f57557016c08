"""Arrays in shared memory: one copy, whoever has them, as long as somebody does."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import numpy as np
import pytest

import workers
from workers.batch import share
from workers.batch.strings import Strings
from workers.process import replica
from workers.process.replica import Parcel, Pickled

LARGE = 200_000


def loaded(parcel: Parcel) -> Any:
    return replica.load(parcel.message(), [os.dup(file) for file in parcel.descriptors])


def num_pieces() -> int:
    gc.collect()
    return len(share._shared) + len(share._copies)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(LARGE),
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.random.default_rng(0).random((200, 300))),
        np.arange(LARGE).reshape(400, 500)[::2, ::-3],
        np.array(["x" * 9, "y"]),
        np.array(7),
        np.zeros((0, 3)),
        np.zeros(3, [("a", "<i4"), ("b", "<f8", (2,))]),
        [1, 2, 3],
    ],
    ids=lambda array: f"{np.asarray(array).dtype} {np.shape(array)}",
)
def test_share(array: Any) -> None:
    shared = workers.share(array)
    assert type(shared) is np.ndarray
    assert (shared.dtype, shared.shape) == (np.asarray(array).dtype, np.shape(array))
    assert np.array_equal(shared, array)
    assert shared.flags.writeable
    assert not np.shares_memory(shared, array)
    assert shared.flags.c_contiguous or shared.flags.f_contiguous


def test_objects_cannot_be_shared() -> None:
    with pytest.raises(TypeError, match="array must be of numbers or strings"):
        workers.share([{}, None])


def test_what_is_shared_is_not_shared_again() -> None:
    shared = workers.share(np.arange(LARGE))
    views = shared[5:], shared[::2], shared[::-1], shared.reshape(2, -1).T, np.asarray(memoryview(shared))
    for part in (shared, *views):
        assert workers.share(part) is part
    assert workers.share(np.arange(3)) is not shared
    assert share.find(np.arange(LARGE)) is None


def test_it_goes_with_the_last_view() -> None:
    before = num_pieces()
    shared = workers.share(np.arange(LARGE))
    part = shared[7:].view(np.uint8)
    assert num_pieces() == before + 1
    del shared
    assert num_pieces() == before + 1
    assert part[:8].tobytes() == np.int64(7).tobytes()
    del part
    assert num_pieces() == before


@pytest.mark.parametrize(
    "part", [np.s_[:], np.s_[5:], np.s_[::2], np.s_[::-1], np.s_[:, :300], np.s_[:, ::2, None]], ids=str
)
def test_a_parcel_holds_no_second_copy(part: Any) -> None:
    """Of the whole, of a part, or of one that is not dense. What is written here, the other side sees."""
    shared = workers.share(np.arange(LARGE).reshape(400, 500))
    mine = shared[part]
    parcel = Parcel(Pickled({"mine": mine}))
    assert sum(piece.nbytes for piece in parcel.pieces) < shared.nbytes + 10_000
    theirs = loaded(parcel)["mine"]
    assert np.array_equal(mine, theirs)
    shared[...] = -1
    assert (theirs == -1).all()
    with pytest.raises(ValueError, match="read-only"):
        theirs[...] = 0
    assert parcel.compare(Pickled({"mine": mine})).is_same
    assert not parcel.compare(Pickled({"mine": mine.copy() + 1})).is_same


def test_two_parcels_share_one_copy() -> None:
    """Of an array that is not in shared memory; unless it was written to in between."""
    before = num_pieces()
    array = np.arange(2_000_000)
    one, other = (Parcel(Pickled([array])) for _ in range(2))
    assert one.pieces[1] is other.pieces[1]
    array[-1] = 0
    third = Parcel(Pickled([array]))
    assert third.pieces[1] is not one.pieces[1]
    assert [int(loaded(each)[0][-1]) for each in (one, other, third)] == [1_999_999, 1_999_999, 0]
    del one, other, third
    assert num_pieces() == before


TEXTS = [f"/data/{number}/img.png" for number in range(2000)]


@pytest.mark.parametrize(
    ("strings", "dtype"),
    [
        (TEXTS, "U18"),
        ([each.encode() for each in TEXTS], "S18"),
        (["", "\u00fc\u4e2d\U0001f600", "\udc80 no text", "a\0b"] * 500, "U9"),
        (["", "\u00fc\u4e2d\U0001f600", "\udc80 no text", "\0"] * 500, object),
        ([b"", b"\xff\0b", b"\0a"] * 500, "S3"),
        ([b"", b"\xff\0", b"\0"] * 500, object),
        ([b""] * 1000, "S1"),
        ([b"short"] * 1000 + [b"x" * 70_000], object),
        (["short"] * 1000 + ["x" * 20_000], object),
        ([b"x" * 70_000] * 5 + [b"y" * 60_000], "S70000"),
    ],
    ids=[
        *("text", "bytes", "any text", "text ending in zero", "any bytes", "bytes ending in zero", "nothing"),
        *("one long", "one long text", "all long"),
    ],
)
def test_strings(strings: list[Any], dtype: Any) -> None:
    """Arrays of them are numpy's strings where these hold them all as they are, without much padding."""
    assert Strings.must_hold(strings) == Strings.must_hold(tuple(strings)) == (dtype is object)
    packed = Strings(strings)
    for again in (packed, pickle.loads(pickle.dumps(packed))):
        for at in (slice(2, 5), [3, 0], np.array([1, 1]), slice(0, 0)):
            array = again.as_array(at)
            assert array.dtype == again.dtype == dtype
            assert array.tolist() == (strings[at] if isinstance(at, slice) else [strings[each] for each in at])


@pytest.mark.parametrize("strings", [TEXTS, [each.encode() + b"\0" for each in TEXTS]], ids=["text", "bytes"])
def test_packed_strings_are_a_list(strings: list[Any]) -> None:
    assert Strings.suit(strings)
    packed = Strings(strings)
    for again in (packed, pickle.loads(pickle.dumps(packed))):
        assert len(again) == len(strings)
        assert list(again) == again.tolist() == strings
        assert [again[0], again[-1], again[np.int64(7)]] == [strings[0], strings[-1], strings[7]]
        assert again[10:2:-3] == strings[10:2:-3]
        assert strings[5] in again
        with pytest.raises(IndexError):
            again[len(strings)]
        with pytest.raises(IndexError):
            again[-len(strings) - 1]
        again.share()


@pytest.mark.parametrize("values", [["a"] * 10, ["a", b"a"] * 1000, [1] * 2000, ("a",) * 2000, ["a", None] * 1000])
def test_what_is_no_list_of_many_strings(values: Any) -> None:
    assert not Strings.suit(values)
