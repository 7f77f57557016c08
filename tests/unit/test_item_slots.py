"""Items of a stream through the slots, in one process: whole, unchanged, in memory that is used again."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from workers.errors import IntegrityError, NotPicklableError
from workers.process.item_slots import ItemReader, ItemSlots, KnownSlots, PlacedItem, SentItem

LARGE = 20_000  # float64


@pytest.fixture
def item_slots() -> Iterator[ItemSlots]:
    item_slots = ItemSlots()
    yield item_slots
    item_slots.close()


class Link:
    """A worker that gets items, without the processes between."""

    def __init__(self, item_slots: ItemSlots) -> None:
        self.known = KnownSlots(item_slots)
        self.reader = ItemReader()
        self.num_learned = 0

    def read(self, shipped: Any) -> Any:
        if isinstance(shipped, bytes):
            return pickle.loads(shipped)
        slots: list[tuple[int, int]] = []
        files: list[int] = []
        self.known.learn(shipped, slots, files)
        self.num_learned += len(slots)
        self.reader.learn(slots, self.known.take_gone(), [os.dup(file) for file in files])
        return self.reader.read(PlacedItem._make(tuple(shipped.message)))


ITEMS = [
    np.arange(float(LARGE)),
    (np.asfortranarray(np.random.default_rng(0).random((200, 300))), {"y": 3, "name": "x" * 500}),
    [np.zeros((0, 5)), np.arange(LARGE)[::-2], None],
    {"text": "z" * 100_000, "blob": b"q" * 100_000},
    np.array([{"a": number} for number in range(20_000)], object),
    7,
    np.arange(3),
    (),
]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: type(item).__name__)
def test_there_and_back(item_slots: ItemSlots, item: Any) -> None:
    """The same item may be read by several workers, and again."""
    shipped = item_slots.ship(item)
    for link in (Link(item_slots), Link(item_slots)):
        for _ in range(2):
            got = link.read(shipped)
            assert type(got) is type(item)
            assert pickle.dumps(_plain(got)) == pickle.dumps(_plain(item))


def _plain(tree: Any) -> Any:
    if isinstance(tree, np.ndarray):
        return tree.tolist(), str(tree.dtype)
    if isinstance(tree, dict):
        return {key: _plain(part) for key, part in tree.items()}
    return type(tree)(map(_plain, tree)) if isinstance(tree, (list, tuple)) else tree


def test_what_is_read_is_the_jobs_own(item_slots: ItemSlots) -> None:
    """It is written to without a trace: a second run of the job finds the item as it was."""
    link, shipped = Link(item_slots), item_slots.ship(np.ones(LARGE))
    first = link.read(shipped)
    first[:] = -1
    assert (link.read(shipped) == 1).all()


def test_slots_are_used_again(item_slots: ItemSlots) -> None:
    link = Link(item_slots)
    for number in range(200):
        shipped = item_slots.ship(np.full(LARGE + 500 * (number % 3), number))
        assert (link.read(shipped) == number).all()
    assert link.num_learned <= 4
    held = [item_slots.ship(np.full(LARGE, number)) for number in range(20)]
    assert [int(link.read(shipped)[0]) for shipped in held] == list(range(20))


def test_what_may_be_asked_for_is_not_overwritten(item_slots: ItemSlots) -> None:
    link, rng = Link(item_slots), np.random.default_rng(0)
    held: dict[int, SentItem | bytes] = {}
    for number in range(300):
        held[number] = item_slots.ship(np.full(rng.choice([100, LARGE, 3 * LARGE]), number))
        for old in rng.permutation(list(held))[: rng.integers(0, 3)].tolist():
            del held[old]
        for at, shipped in held.items():
            assert (link.read(shipped) == at).all()
        if len(held) > 10:
            held.clear()


def test_gone_slots_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the slots, with their descriptors, and by the workers."""
    from workers.batch import free_slots

    now_s = 0.0
    monkeypatch.setattr(free_slots.time, "monotonic", lambda: now_s)
    item_slots = ItemSlots()
    link = Link(item_slots)
    held = [item_slots.ship(np.full(LARGE, number)) for number in range(20)]
    for shipped in held:
        link.read(shipped)
    held.clear()
    del shipped
    for _ in range(60):
        now_s += 1.0
        link.read(item_slots.ship(np.zeros(LARGE)))
    assert len(item_slots.slots) == len(link.reader._buffers) <= 2
    item_slots.close()


def test_ever_new_shapes(item_slots: ItemSlots) -> None:
    link = Link(item_slots)
    for number in range(600):
        item = np.full(LARGE + number, number)
        assert np.array_equal(link.read(item_slots.ship(item)), item)
    assert len(link.reader._layouts) <= 256


def test_what_the_ring_remembers_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.batch import slot_writer

    monkeypatch.setattr(slot_writer, "_MAX_LAYOUTS_NBYTES", 5000)
    item_slots, most = ItemSlots(), 0
    link = Link(item_slots)
    for number in range(300):
        held = [item_slots.ship(np.full(LARGE + number + each, number)) for each in range(3)]
        assert all((link.read(shipped) == number).all() for shipped in held)
        most = max(most, len(item_slots._layouts))
    assert 5 < most < 60
    item_slots.close()


def test_an_item_that_is_no_longer_there(item_slots: ItemSlots) -> None:
    """Its job was given to another worker, and it was released: this worker must not take the next item for it."""
    link = Link(item_slots)
    shipped = item_slots.ship(np.zeros(LARGE))
    assert isinstance(shipped, SentItem)
    message = shipped.message
    link.read(shipped)
    del shipped
    other = item_slots.ship(np.ones(LARGE))
    assert isinstance(other, SentItem)
    assert other.message.slot == message.slot
    labels = rf"labelled \(sending {other.message.number}, .*not \(sending {message.number},"
    with pytest.raises(IntegrityError, match=labels):
        link.reader.read(message)


def test_what_cannot_be_sent(item_slots: ItemSlots) -> None:
    for item in ([threading.Lock()], [np.zeros(LARGE), {"key": threading.Lock()}]):
        with pytest.raises(NotPicklableError, match=r"the item\[.* cannot be sent"):
            item_slots.ship(item)
