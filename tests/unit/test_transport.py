"""Batches through slots and back, in one process: nothing is lost, nothing is overwritten."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from shapes import Record, exactly, raw

import workers
from workers.batch import free_slots, slot_writer, tree
from workers.batch.slot_reader import SlotReader, Unread
from workers.batch.slot_writer import SlotWriter
from workers.batch.slots import HEADER_NBYTES, MAX_SLOTS, SMALL_NBYTES
from workers.errors import IntegrityError
from workers.job import context, seeding


class Pair(NamedTuple):
    one: Any
    two: Any


class Link:
    """A worker's end and a consumer's end, without the processes between."""

    def __init__(self) -> None:
        self.writer = SlotWriter()
        self.reader = SlotReader()
        self._sendings = itertools.count(1)

    def message(self, *results: Any) -> list[tuple[Unread, int]]:
        """One message with these results, learnt and not yet read: each with its sending."""
        rows = []
        for result in results:
            sending = next(self._sendings)
            row = self.writer.write(result() if callable(result) else result, sending)
            if self.writer.used_empty:
                del result
                self.writer.end_job(row.slots)
            rows.append((row, sending))
        news = self.writer.take_news()
        self.reader.learn(news.slots, news.gone, news.forgets, news.layouts, news.descriptors)
        return [(self.reader.unread(tuple(row)), sending) for row, sending in rows]

    def send(self, *results: Any) -> list[Any]:
        batches = [read(*each) for each in self.message(*results)]
        self.writer.release(self.reader.take_freed())
        return batches

    def give_back(self) -> list[int]:
        freed = self.reader.take_freed()
        self.writer.release(freed)
        return freed


def read(unread: Unread, sending: int) -> Any:
    reader, layout, placed = unread
    return reader.read(layout, placed, sending)


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return one.tolist() == other.tolist() if one.dtype.hasobject else raw(one) == raw(other)
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    return bool(one == other) or one != one


structured = np.dtype([("a", "<i4"), ("b", "<f8", (2,))], align=True)  # with padding between
dtypes = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.complex_number_dtypes(),
    hnp.byte_string_dtypes(),
    hnp.unicode_string_dtypes(),
    hnp.datetime64_dtypes(),
    st.just(structured),
)


@st.composite
def arrays(draw: Any) -> Any:
    dtype = draw(dtypes)
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    count = int(np.prod(shape)) * dtype.itemsize
    array = np.frombuffer(random.Random(draw(st.integers(0, 99))).randbytes(count), np.uint8)
    if dtype.kind in "bUS":  # not every byte is one of these
        array = (array[:: max(1, dtype.itemsize)][: int(np.prod(shape))] % 2).astype(dtype).reshape(shape)
    else:
        array = array.view(dtype).reshape(shape) if count else np.empty(shape, dtype)
    how = draw(st.sampled_from(["C", "F", "T", "step", "back", "broadcast"]))
    if how == "F":
        return np.asfortranarray(array)
    if how == "T":
        return array.T
    if how == "step" and array.ndim:
        return array[::2]
    if how == "back" and array.ndim:
        return array[..., ::-1]
    if how == "broadcast":
        return np.broadcast_to(array, (2, *array.shape))
    return array


leaves = st.one_of(
    arrays(), st.integers(), st.floats(), st.none(), st.text(max_size=400), st.binary(max_size=50), st.booleans()
)
trees = st.recursive(
    leaves,
    lambda parts: st.one_of(
        st.lists(parts, max_size=4),
        st.lists(parts, max_size=3).map(tuple),
        st.dictionaries(st.text(max_size=5), parts, max_size=3),
        st.builds(Pair, parts, parts),
        st.builds(Record, parts, parts),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(trees, min_size=1, max_size=4))
def test_any_tree_arrives_byte_equal(batches: list[Any]) -> None:
    """Tuples, lists, dicts, namedtuples, dataclasses of arrays of any dtype, order and size, and of other values."""
    link = Link()
    for _ in range(2):
        got = link.send(*batches)
        for batch, arrived in zip(batches, got, strict=True):
            assert same(batch, arrived)
    numbers: list[Any] = []
    tree.flatten(got, numbers, [])
    assert all(array.flags.writeable for array in numbers)


@pytest.mark.parametrize(
    "batch",
    [
        np.arange(100_000.0),
        np.asfortranarray(np.random.default_rng(0).random((300, 200))),
        np.random.default_rng(0).random((30, 40, 50)).transpose(2, 0, 1),
        np.arange(200_000).reshape(400, 500)[::2, ::-3],
        np.arange(50_000).astype(ml_dtypes.bfloat16),
        np.array(["x" * 9, "y"] * 9_000),
        np.array([{"a": 1}, [2], None], object),
        {"text": "z" * 100_000, "blob": b"q" * 100_000, "image": np.ones(50_000)},
        Record(np.zeros((0, 5)), np.float32(3)),
        Pair(np.array(7), np.int64(8)),
        [],
        (),
    ],
    ids=lambda batch: type(batch).__name__,
)
def test_large_batches(batch: Any) -> None:
    """Batches above the size from which they are leased, and values that are no arrays."""
    link = Link()
    for _ in range(3):
        (got,) = link.send(batch)
        assert same(batch, got)


def test_a_large_batch_is_not_copied() -> None:
    """It is a view of shared memory, writable, and its slot comes back only when the last view has gone."""
    link = Link()
    (got,) = link.send(np.arange(50_000))
    assert type(got) is np.ndarray
    assert not got.flags.owndata
    assert got.flags.writeable
    part = memoryview(got[10:20].reshape(2, 5)[1])
    del got
    assert link.give_back() == []
    assert part.tolist() == [15, 16, 17, 18, 19]
    del part
    assert link.give_back() == [0]


def test_whatever_is_held_is_never_overwritten() -> None:
    """A consumer that keeps random batches, drops them in random order, and looks at all the time."""
    link = Link()
    draw = random.Random(0)
    held: list[tuple[int, Any]] = []
    for number in range(600):
        size = draw.choice([10, 9_000, 50_000])
        (got,) = link.send((np.full(size, number), number))
        held.append((number, got[0]))
        draw.shuffle(held)
        del held[draw.randrange(1, 12) :]
        link.give_back()
        for expected, array in held:
            assert (array == expected).all()
    assert len(link.writer._slots) < 30


def test_slots_are_used_again() -> None:
    """A consumer that lets go of each batch needs two slots, also if batches grow and shrink."""
    link = Link()
    for number in range(200):
        link.send(np.full(20_000 + 5_000 * (number % 7), number))
    assert len(link.writer._slots) <= 3
    assert len(link.reader._buffers) <= 3


def test_no_slot_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches come in a message, and however many of them are held: what was made once is enough."""
    now_s = itertools.count()
    monkeypatch.setattr(free_slots.time, "monotonic", lambda: next(now_s) / 4)
    for nbytes in (64 << 10, 1 << 20, 9 << 20):
        link = Link()
        held: deque[Any] = deque(maxlen=5)
        news = []
        for number in range(60):
            batches = link.send(*[np.zeros(nbytes, np.uint8) for _ in range(1 + number % 3)])
            held.extend(batches)
            del batches
            news.append(link.writer._next_number)
        assert news[-1] == news[20] <= 12
        held.clear()


def large(number: int = 1, nbytes: int = 200_000) -> Any:
    return np.full(nbytes, number, np.uint8)


KEPT = {
    "labels": lambda: (large(), np.arange(64)),
    "labels first": lambda: {"y": np.arange(64), "x": large(), "weights": np.ones(3)},
    "masks": lambda: [large(1, 2_000_000), large(2, 40_000), (large(3), {"m": large(4, 300_000)})],
    "rows": lambda: [large(number, 20_000) for number in range(20)],
    "texts": lambda: (large(), "text" * 20_000, [None, 7]),
    "orders": lambda: (np.ones((300, 200)).T, np.asfortranarray(np.ones((4, 4))), np.zeros((0, 5)), np.array(7)),
    "structured": lambda: (np.zeros(9, ALIGNED), np.zeros(90_000, ALIGNED)),
    "many": lambda: [large(number, 40_000) for number in range(128)],
    "empty": lambda: (workers.empty((100, 1000), np.float32), workers.empty(90_000, np.int64), np.arange(9)),
    "parts of empty": lambda: [workers.empty(90_000, np.int64)[:99], large(2)],
    "small beside empty": lambda: [workers.empty(90_000, np.int64), *[np.ones(2000) for _ in range(20)]],
}


@pytest.mark.parametrize("make", KEPT.values(), ids=KEPT)
def test_an_array_that_is_kept_keeps_no_other(link: Link, make: Any) -> None:
    """Whichever of a batch it is: a large one keeps its slot, a small one has memory of its own."""
    for number in [*range(min(4, len(_flat(make())))), -1]:
        link.writer.end_job([])
        for _ in range(2):  # in new slots, and in some that were used before
            arrays = _flat(link.send(make)[0])
            kept = arrays[number]
            del arrays
            link.give_back()
            nbytes = sum(link.writer._slots[slot].nbytes for slot in link.reader._leases)
            assert nbytes <= (2 * (kept.nbytes + HEADER_NBYTES) if kept.nbytes > SMALL_NBYTES else 0)
            assert bool(link.reader._leases) == (kept.nbytes > SMALL_NBYTES)
            del kept
            link.give_back()


def _flat(batch: Any) -> list[Any]:
    arrays: list[Any] = []
    tree.flatten(batch, arrays, [])
    return arrays


@pytest.mark.parametrize("nbytes", [100, 100_000])
def test_labels_that_are_kept(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    """The images' slots serve again, however many labels are kept, whatever time goes by."""
    now_s = itertools.count()
    monkeypatch.setattr(free_slots.time, "monotonic", lambda: next(now_s) / 4)
    link = Link()
    labels = [link.send((large(number, 5_000_000), large(number, nbytes)))[0][1] for number in range(100)]
    assert all((kept == number).all() for number, kept in enumerate(labels))
    slots = [slot.nbytes for slot in link.writer._slots.values()]
    assert sum(size > 5_000_000 for size in slots) <= 2
    assert len(slots) <= (4 if nbytes == 100 else 105)


@pytest.mark.parametrize("is_empty", [False, True])
def test_more_large_arrays_than_slots(link: Link, is_empty: bool) -> None:
    """Each slot costs a descriptor. So a batch of more arrays than it may have slots puts several arrays into one."""

    def make() -> Any:
        made = [workers.empty(40_000, np.uint8) if is_empty else large(0, 40_000) for _ in range(1000)]
        for number, array in enumerate(made):
            array[...] = number % 256
        return made

    for _ in range(3):
        (got,) = link.send(make)
        assert all((array == number % 256).all() for number, array in enumerate(got))
        assert len(link.reader._leases) <= MAX_SLOTS + 8
        del got
        link.give_back()


def remember_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have both ends forget their layouts after each message."""
    monkeypatch.setattr(slot_writer, "_MAX_LAYOUTS_NBYTES", 0)


def test_messages_that_are_learnt_before_the_first_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One poll brings several messages. Each batch is built by the layout that it was written with."""
    remember_few(monkeypatch)
    link = Link()
    sent = [[np.full(1 + 10 * at + each, 100 * at + each) for each in range(3)] for at in range(20)]
    messages = [link.message(*batches) for batches in sent]
    for batches, message in zip(sent, messages, strict=True):
        for batch, unread in zip(batches, message, strict=True):
            assert same(batch, read(*unread))


@pytest.mark.parametrize("step", [1, 7000], ids=["copied", "leased"])
def test_ever_new_shapes(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """More layouts than are remembered: what both ends keep stays small, and is the same."""
    monkeypatch.setattr(slot_writer, "_MAX_LAYOUTS_NBYTES", 10_000)
    link = Link()
    most = 0
    for number in range(1000):
        batches = [np.full(step * (1 + number % 13) + number + each, number) for each in range(3)]
        assert all(map(same, batches, link.send(*batches)))
        most = max(most, len(link.writer._layouts), len(link.reader._layouts))
    assert 20 < most < 200
    link.send(0)
    assert link.reader._layouts.keys() == {planned.digest for planned in link.writer._layouts.values()}


NAMED = np.dtype("i4", metadata={"unit": "mm"})
ALIGNED = np.dtype([("a", "i1"), ("b", "i4")], align=True)
PLACED = np.dtype({"names": ["a", "b"], "formats": ["i1", "i4"], "offsets": [0, 4], "itemsize": 8})
CODE = type("Code", (str,), {})  # a str that is equal to any other of the same text


@pytest.mark.parametrize(
    "batches",
    [
        [{1: np.ones(2)}, {True: np.ones(2)}, {1.0: np.ones(2)}, {np.int64(1): np.ones(2)}],
        [{0.0: np.ones(2)}, {-0.0: np.ones(2)}, {0: np.ones(2)}, {False: np.ones(2)}],
        [{"a": np.ones(2)}, {np.str_("a"): np.ones(2)}, {b"a": np.ones(2)}, {None: np.ones(2)}],
        [{(1, "a"): np.ones(2)}, {(True, "a"): np.ones(2)}, {(1.0, "a"): np.ones(2)}],
        [{frozenset({1}): np.ones(2)}, {frozenset({True}): np.ones(2)}],
        [[{1: {True: 0}}], [{True: {1: 0}}], [{1: {1: 0}}], [{True: {True: 0}}]],
        [{"a": 1, "b": np.ones(2)}, {"b": 1, "a": np.ones(2)}],
        [np.ones(2, "<i8"), np.ones(2, ">i8"), np.ones(2, "<u8"), np.ones(2, "<f8")],
        [np.ones(2, "i4"), np.ones(2, NAMED), np.ones(2, "i4")],
        [np.ones(16, "u1").view(dtype) for dtype in (ALIGNED, PLACED, ALIGNED, "i4", "S4")],
        [np.ones(2, "M8[s]"), np.ones(2, "M8[ms]"), np.ones(2, "S3"), np.ones(2, "S4"), np.ones(2, "U3")],
        [[np.ones(2)], (np.ones(2),), Pair(np.ones(2), 0), Record(np.ones(2), 0), {"one": np.ones(2), "two": 0}],
        [1, True, 1.0, np.int64(1), np.ones(()), None, "1", b"1"],
        [[], (), {}, [[]], [()], [{}], ([],)],
        [np.ones((2, 3)), np.ones((3, 2)), np.ones(6), np.ones((2, 3), order="F"), np.ones((1, 2, 3))],
    ],
    ids=lambda batches: repr(batches[0])[:30].replace("\n", ""),
)
@pytest.mark.parametrize("how", ["at once", "one by one", "forgotten"])
def test_layouts_that_are_equal_and_not_the_same(monkeypatch: pytest.MonkeyPatch, batches: list[Any], how: str) -> None:
    """Each arrives as it is, types of keys and dtypes included, whichever has come before it."""
    if how == "forgotten":
        remember_few(monkeypatch)
    link = Link()
    for order in itertools.islice(itertools.permutations(batches), 12):
        got = link.send(*order) if how == "at once" else [link.send(batch)[0] for batch in order]
        assert [exactly(batch) for batch in got] == [exactly(batch) for batch in order]
        assert [_strides(batch) for batch in got] == [_strides(batch) for batch in order]


def _strides(batch: Any) -> list[Any]:
    arrays: list[Any] = []
    tree.flatten(batch, arrays, [])
    return [array.strides for array in arrays]


def test_a_structured_dtype_that_is_renamed_in_place() -> None:
    """The same object of the same shape is another layout then."""
    link = Link()
    batch = np.zeros(3, [("a", "i4")])
    (before,) = link.send(batch)
    batch.dtype.names = ("b",)
    (after,) = link.send(batch)
    assert (before.dtype.names, after.dtype.names) == (("a",), ("b",))


# -- a result that is not what was asked for is never delivered


BUG = "This is a bug in prefetch-sequence"


@pytest.fixture(params=[10, 50_000], ids=["copied", "leased"])
def size(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_the_result_of_another_job(size: int) -> None:
    link = Link()
    ((unread, sending),) = link.message(np.zeros(size))
    with pytest.raises(IntegrityError, match=rf"sending {sending}, .* not \(sending {sending + 1}, .*{BUG}"):
        read(unread, sending + 1)


def test_another_layout(size: int) -> None:
    """The layout in front of the batch is compared, too: here the reader takes two of the same shape for each other."""
    link = Link()
    ((reader, one, placed), sending), ((_, other, _), _) = link.message(np.zeros(size), np.zeros(size, np.int64))
    assert one.digest != other.digest
    with pytest.raises(IntegrityError, match=BUG):
        read((reader, other, placed), sending)


def test_a_layout_that_is_not_known() -> None:
    link = Link()
    placed = link.writer.write(np.zeros(3), 1)
    with pytest.raises(IntegrityError, match=f"layout {placed.layout:016x}, which its worker has not announced.*{BUG}"):
        link.reader.unread(tuple(placed))
    link.send(0)  # so that the slot's descriptor is closed


def test_a_slot_that_is_used_again_before_it_is_read(size: int) -> None:
    link = Link()
    ((unread, sending),) = link.message(np.zeros(size))
    link.writer.release(list(unread[2][1]))
    link.message(np.ones(size))
    with pytest.raises(IntegrityError, match=BUG):
        read(unread, sending)


def test_a_slot_that_is_used_again_while_it_is_held() -> None:
    """It is seen when the batch is let go of: the program then knows that a batch which it had was changed."""
    link = Link()
    ((unread, sending),) = link.message(np.zeros(50_000))
    batch = read(unread, sending)
    link.writer.release(list(unread[2][1]))
    ((other, _),) = link.message(np.ones(50_000))
    with pytest.raises(IntegrityError, match=r"slot 0 was named .* while it holds another batch"):
        read(other, sending)
    del batch
    with pytest.raises(IntegrityError, match=BUG):
        link.reader.take_freed()


def test_a_slot_that_is_released_twice(size: int) -> None:
    link = Link()
    (batch,) = link.send(np.zeros(size))
    del batch
    link.give_back()
    for number in (0, 7):
        with pytest.raises(
            IntegrityError, match=rf"slot {number} was released, but the reader does not have it.*{BUG}"
        ):
            link.writer.release([number])


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """A link whose writer ``workers.empty`` uses, inside a job."""
    link = Link()
    monkeypatch.setattr(slot_writer, "writer", link.writer)
    before = context.current.job, context.current.stream
    context.current.job = seeding.Job(0, 0)
    yield link
    context.current.job, context.current.stream = before


def test_empty_is_where_the_batch_is_delivered_from(link: Link) -> None:
    """Nothing is copied: the slot holds it before it is returned."""
    where = []

    def job() -> Any:
        array = workers.empty((100, 1000), np.float32)
        array[...] = 7
        where.append(array.__array_interface__["data"][0])
        return array, np.arange(5), array[10:20], array.T

    for _ in range(3):
        ((one, two, part, transposed),) = link.send(job)
        (number,) = {slot for slot, reference in link.reader._leases.items() if reference() is not None}
        assert where[-1] == link.writer._slots[number].address + HEADER_NBYTES
        assert (one == 7).all()
        assert two.tolist() == [0, 1, 2, 3, 4]
        assert np.shares_memory(one, part)
        assert transposed.shape == (1000, 100)
        del one, two, part, transposed
        link.give_back()
    assert len(link.writer._slots) <= 3


def test_several_empties_and_a_copy_beside_them(link: Link) -> None:
    def job() -> Any:
        parts = [workers.empty(20_000, np.int64) for _ in range(3)]
        for number, part in enumerate(parts):
            part[...] = number
        return {"parts": parts, "beside": np.full(30_000, 9)}

    for _ in range(3):
        (got,) = link.send(job)
        assert [(part == number).all() for number, part in enumerate(got["parts"])] == [True] * 3
        assert (got["beside"] == 9).all()


def test_an_empty_array_that_the_job_keeps(link: Link) -> None:
    """``self.buffer = empty(...)``, filled and returned each time: no delivered batch ever changes."""
    kept: list[Any] = []

    def job(value: int) -> Any:
        if not kept:
            kept.append(workers.empty(50_000, np.int64))
        kept[0][...] = value
        return kept[0]

    got = [link.send(lambda value=value: job(value))[0] for value in range(5)]
    assert [int(batch[0]) for batch in got] == [0, 1, 2, 3, 4]
    assert all((batch == value).all() for value, batch in enumerate(got))
    kept.clear()
    assert (link.send(np.ones(50_000))[0] == 1).all()


def test_an_empty_array_that_is_not_returned(link: Link) -> None:
    """Its slot is free again."""
    for _ in range(10):
        workers.empty(50_000, np.int64)
        link.writer.end_job([])
    link.send(0)  # so that the slot's descriptor is closed
    assert len(link.writer._slots) == 1


def test_empty_outside_of_a_job() -> None:
    array = workers.empty((3, 4), np.float32)
    assert (array.shape, array.dtype, array.flags.owndata) == ((3, 4), np.float32, True)


def test_own() -> None:
    """Without shared memory between: whatever else refers to an array of the batch, the consumer's is another one."""
    data = np.arange(10)
    fresh = np.arange(10)
    mine = tree.own([data, data[2:5], fresh, (np.broadcast_to(np.arange(3), (2, 3)), {"kept": data})])
    for array in [*mine[:3], mine[3][0], mine[3][1]["kept"]]:
        assert array.flags.writeable
        array[...] = -1
    assert data.tolist() == fresh.tolist() == list(range(10))


def test_own_of_what_is_fresh() -> None:
    """It is not copied, unless it cannot be written to."""
    fresh = np.arange(10)
    still = np.broadcast_to(np.arange(3), (2, 3))
    one, other = tree.own((fresh, still), is_fresh=True)
    assert one is fresh
    assert other.flags.writeable
    assert not np.shares_memory(other, still)
