"""Arrays in shared memory: one copy, whoever has them, as long as somebody does."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import numpy as np
import pytest

import workers
from sampler import SingleShotMemorySampler
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
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
        np.broadcast_to(np.arange(3), (4, 3)),
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
    if shared.size:  # dense, the axes in the same order in memory
        assert shared.strides == np.empty_like(np.asarray(array), order="K").strides


def test_objects_cannot_be_shared() -> None:
    with pytest.raises(TypeError, match="array must hold numbers or fixed-length strings"):
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


SMALL = 12


class Plain(np.ndarray):  # type: ignore[type-arg]
    """A subclass that is pickled as numpy does it."""


class Unit(np.ndarray):  # type: ignore[type-arg]
    """One that is pickled in a way of its own."""

    def __reduce__(self) -> Any:
        make, arguments, state = super().__reduce__()  # type: ignore[misc]
        return make, arguments, (state, self.__dict__)

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state[0])
        self.__dict__.update(state[1])


def views_of(shared: Any, rows: Any) -> dict[str, Any]:
    """``shared`` (3, 4) doubles, and ``rows`` with a field "b"."""
    unit, read_only = shared.view(Unit), shared[:]
    unit.name, read_only.flags.writeable = "m", False
    return {
        "whole": shared,
        "row": shared[1],
        "column": shared[:, 1],
        "reversed": shared[::-1, ::2],
        "transposed": shared.T,
        "0-d": shared[1, 2, ...],
        "bytes": shared.view(np.uint8)[0, 3:5],
        "read-only": read_only,
        "broadcast": np.broadcast_to(shared[0], (5, 4)),
        "windows": np.lib.stride_tricks.sliding_window_view(shared[0], 2),
        "matrix": np.asmatrix(shared),
        "field": rows["b"],
        "row of fields": rows[1],
        "recarray": rows.view(np.recarray),
        "record": rows.view(np.recarray)[1],
        "masked": np.ma.MaskedArray(shared, workers.share(np.zeros(shared.shape, bool)), fill_value=7, hard_mask=True),
        "subclass": shared.view(Plain),
        "subclass that pickles itself": unit,
    }


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("length", [SMALL, LARGE])
def test_views_are_shared_whatever_their_size_and_kind(length: int) -> None:
    shared = workers.share(np.arange(float(length)).reshape(-1, 4))
    rows = workers.share(np.zeros(length, [("a", "i1"), ("b", "<f8")]))
    views = views_of(shared, rows)
    parcel = Parcel(Pickled(views))
    assert len(parcel.pieces) <= 4  # the pickle's, and those of three arrays
    assert parcel.pieces[0].nbytes < 20_000
    assert parcel.compare(Pickled(views)).is_same
    theirs = loaded(parcel)
    shared += 1.5
    rows["b"] = 3
    for name, mine in views.items():
        got = theirs[name]
        assert type(got) is type(mine), name
        assert np.asarray(got).tolist() == np.asarray(mine).tolist(), name
        assert not getattr(got, "flags", got).writeable, name
    assert theirs["subclass that pickles itself"].name == "m"
    assert (theirs["masked"].fill_value, theirs["masked"].hardmask) == (7, True)
    with pytest.raises(ValueError, match="read-only"):
        theirs["row of fields"]["b"] = 1


def test_tensors_are_shared_whatever_their_size_and_kind() -> None:
    torch = pytest.importorskip("torch")

    class Tagged(torch.Tensor):  # type: ignore[misc, name-defined]
        pass

    shared = workers.share(np.arange(12, dtype=np.float32).reshape(3, 4))
    whole = torch.from_numpy(shared)
    views = {
        "whole": whole,
        "part": whole.T[1:],
        "0-d": whole[1, 2],
        "parameter": torch.nn.Parameter(torch.from_numpy(shared)),
        "with gradient": torch.from_numpy(shared).requires_grad_(),
        "subclass": torch.from_numpy(shared).as_subclass(Tagged),
        "another dtype": torch.from_numpy(shared.view(np.uint16)).view(torch.bfloat16),
    }
    parcel = Parcel(Pickled(views))
    theirs = loaded(parcel)
    shared[...] = np.arange(12).reshape(3, 4)[::-1] + 0.5
    for name, mine in views.items():
        assert type(theirs[name]) is type(mine), name
        assert theirs[name].requires_grad is mine.requires_grad, name
        assert (theirs[name].dtype, theirs[name].stride()) == (mine.dtype, mine.stride()), name
        assert torch.equal(theirs[name], mine), name
    assert torch.equal(loaded(Parcel(Pickled([torch.ones(3), torch.zeros(2, 0)])))[0], torch.ones(3))


def test_rows_of_what_a_sampler_holds_are_shared() -> None:
    sampler = SingleShotMemorySampler(np.zeros((500, 600)), None, 4, steps_per_epoch=3, seed=1)
    array = workers.SequenceArray({"x": np.zeros((500, 600))})
    sampler._share()
    array._share()
    mine = [sampler.x[3], sampler.x[:2, ::7], array.arrays["x"][4, 5:9]]
    theirs = loaded(Parcel(Pickled(mine)))
    sampler.x[...] = array.arrays["x"][...] = 1.5
    assert all(map(np.array_equal, mine, theirs))


def test_many_small_arrays_take_few_descriptors() -> None:
    before = num_pieces()
    many = [workers.share(np.full(number % 50, number)) for number in range(3000)]
    many += [workers.share(np.full(20_000, number)) for number in range(300)]
    parcel = Parcel(Pickled(many))
    assert len(parcel.descriptors) < 12
    theirs = loaded(parcel)
    many[60][:] = -1
    assert all(map(np.array_equal, many, theirs))
    del many, parcel, theirs
    assert num_pieces() == before


def test_any_number_of_pieces() -> None:
    many = [workers.share(np.full(1 << 20, number % 251, np.uint8)) for number in range(260)]
    parcel = Parcel(Pickled(many))
    assert len(parcel.descriptors) == 261
    many[259][:] = 7
    theirs = loaded(parcel)
    assert all(map(np.array_equal, many, theirs))


def test_the_place_of_a_small_array_is_not_given_out_again() -> None:
    """Workers may still read it. Its memory goes with the last of those beside it."""
    before, first = num_pieces(), workers.share(np.arange(3))
    parcel = Parcel(Pickled({"mine": workers.share(np.arange(5))}))
    theirs = loaded(parcel)["mine"]
    others = [workers.share(np.full(5, -1)) for _ in range(100)]
    assert theirs.tolist() == [0, 1, 2, 3, 4]
    assert num_pieces() <= before + 1
    del others, parcel
    assert first.tolist() == [0, 1, 2]
    del first
    assert num_pieces() <= before + 1
    assert theirs.tolist() == [0, 1, 2, 3, 4]


def test_a_fork_writes_into_memory_of_its_own() -> None:
    mine = workers.share(np.zeros(3))
    read, write = os.pipe()
    if not (pid := os.fork()):
        try:
            theirs = workers.share(np.ones(3))
            os.write(write, bytes([share.find(theirs).piece is share.find(mine).piece]))  # type: ignore[union-attr]
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    later = workers.share(np.full(3, 2.0))
    assert os.read(read, 1) == b"\0"
    os.close(read)
    os.close(write)
    assert later.tolist() == [2, 2, 2]
    assert mine.tolist() == [0, 0, 0]


def test_what_lies_beside_is_not_shared() -> None:
    """Found are the pieces that are there, in whatever order they came and went."""
    arrays = [workers.share(np.zeros(LARGE)) for _ in range(20)]
    del arrays[::2]
    gc.collect()
    for array in arrays:
        assert share.find(array) is not None
        assert share.find(np.lib.stride_tricks.as_strided(array, (array.size + 600,), writeable=False)) is None
    assert share.find(np.zeros(LARGE)) is None


def test_read_only_and_empty_arrays() -> None:
    given = np.arange(5)
    given.flags.writeable = False
    assert workers.share(given).flags.writeable
    empty = workers.share(np.zeros((0, 3)))
    assert loaded(Parcel(Pickled([empty, empty.T])))[1].shape == (3, 0)


def test_a_masked_array_is_not_shared_without_its_mask() -> None:
    with pytest.raises(TypeError, match=r"share array.data and array.mask"):
        workers.share(np.ma.MaskedArray([1, 2], [True, False]))


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
