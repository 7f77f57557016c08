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

import workers
from workers.batch import empty, slot_writer, tree
from workers.batch.slot_reader import SlotReader
from workers.batch.slot_writer import SlotWriter
from workers.job import context, seeding


class Pair(NamedTuple):
    one: Any
    two: Any


@dataclasses.dataclass
class Record:
    image: Any
    label: Any = None


class Link:
    """A worker's end and a consumer's end, without the processes between."""

    def __init__(self) -> None:
        self.writer = SlotWriter()
        self.reader = SlotReader()

    def send(self, *results: Any) -> list[Any]:
        rows = []
        for result in results:
            row = self.writer.write(result() if callable(result) else result)
            if self.writer.used_empty:
                del result
                self.writer.end_job(row.slots)
            rows.append(row)
        news = self.writer.take_news()
        self.reader.learn(news.slots, news.gone, news.layouts, news.descriptors)
        batches = [self.reader.read(row) for row in rows]
        self.writer.release(self.reader.take_freed())
        return batches

    def give_back(self) -> list[int]:
        freed = self.reader.take_freed()
        self.writer.release(freed)
        return freed


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        return one.tolist() == other.tolist() if one.dtype.hasobject else one.tobytes() == other.tobytes()
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if dataclasses.is_dataclass(one):
        return same(vars(one), vars(other))
    return bool(one == other) or one != one


structured = np.dtype([("a", "<i4"), ("b", "<f8", (2,))])
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
    monkeypatch.setattr(slot_writer.time, "monotonic", lambda: next(now_s) / 4)
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


def test_ever_new_shapes() -> None:
    """More layouts than are remembered."""
    link = Link()
    for number in range(1000):
        batches = [np.full(number + each, number) for each in range(3)]
        assert all(map(same, batches, link.send(*batches)))
    assert len(link.writer._layout_numbers) < 600


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    """A link whose writer ``workers.empty`` uses, inside a job."""
    link = Link()
    monkeypatch.setattr(empty, "writer", link.writer)
    before = context.here.job, context.here.stream
    context.here.job = seeding.Job(0, 0)
    yield link
    context.here.job, context.here.stream = before


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
        assert where[-1] == link.writer._slots[number].address
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
