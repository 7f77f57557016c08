"""What is seen of changes before an epoch, and what it costs: counted in pickled bytes, not in time."""

from __future__ import annotations

import functools
import logging
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import workers
from workers import Sequence
from workers.process.change_detector import ChangeDetector

MANY = 5000


class Task:
    def __init__(self) -> None:
        self.source = self
        self.number = 1
        self.small = [1, {"a": [2]}]
        self.paths = [f"path {number}" for number in range(MANY)]
        self.floats = [float(number) for number in range(MANY)]
        self.records = [{"id": number} for number in range(MANY)]
        self.by_name = {f"name {number}": number for number in range(MANY)}
        self.pairs = tuple((number, str(number)) for number in range(MANY))
        self.array = np.zeros(100_000)
        self.sparse = np.zeros((1000, 200))[:, ::2]
        self.masked = np.ma.MaskedArray(np.zeros((1000, 200)), np.zeros((1000, 200), bool))[:, ::2]
        self.shared = workers.share(np.zeros(100_000))
        self.few = workers.share(np.zeros((3, 4)))
        self.row = self.few[1]
        self.objects = np.array([f"object {number}" for number in range(MANY)], object)


CHANGES: dict[str, tuple[Callable[[Any], Any], bool, bool]] = {  # (change, seen without hooks, seen with hooks)
    "nothing": (lambda task: None, False, False),
    "a number": (lambda task: setattr(task, "number", 2), True, True),
    "deep in what is small": (lambda task: task.small[1]["a"].append(3), True, True),
    "another list of equal paths": (lambda task: setattr(task, "paths", list(task.paths)), True, True),
    "one path": (lambda task: task.paths.__setitem__(77, "else"), True, True),
    "an equal path": (lambda task: task.paths.__setitem__(77, "".join(["path ", "77"])), False, False),
    "the order of paths": (lambda task: task.paths.reverse(), True, True),
    "a path more": (lambda task: task.paths.append("more"), True, True),
    "a float": (lambda task: task.floats.__setitem__(7, 0.5), True, True),
    "a key": (lambda task: task.by_name.__setitem__("name 9", task.by_name.pop("name 8")), True, True),
    "a record in place of another": (lambda task: task.records.__setitem__(7, {"id": 7}), True, False),
    "within a record": (lambda task: task.records[7].__setitem__("id", -1), False, True),
    "another tuple": (lambda task: setattr(task, "pairs", (*task.pairs, 1)), True, True),
    "another array of its shape": (lambda task: setattr(task, "array", np.ones(100_000)), True, True),
    "within an array": (lambda task: task.array.__setitem__(5, 1.0), False, True),
    "another sparse array": (lambda task: setattr(task, "sparse", np.ones((1000, 200))[:, ::2]), True, True),
    "within a sparse array": (lambda task: task.sparse.__setitem__((5, 5), 1.0), False, True),
    "within a shared array": (lambda task: task.shared.__setitem__(5, 1.0), False, False),
    "another shared array": (lambda task: setattr(task, "shared", workers.share(np.ones(100_000))), True, True),
    "within a small shared array": (lambda task: task.few.__setitem__((1, 1), 1.0), False, False),
    "another row of a shared array": (lambda task: setattr(task, "row", task.few[2]), True, True),
    "another view of the same row": (lambda task: setattr(task, "row", task.few[1]), False, False),
    "an object in an array": (lambda task: task.objects.__setitem__(5, "else"), True, True),
}


@pytest.mark.parametrize("is_exact", [False, True], ids=["no hooks", "hooks"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_seen(change: str, is_exact: bool) -> None:
    apply, *is_seen = CHANGES[change]
    task, watch = Task(), ChangeDetector()
    del task.source
    if is_exact and "array" not in change:  # whose bytes are always to be compared where there are hooks
        del task.array, task.sparse, task.masked
    assert watch.has_changed(task, is_exact)
    watch.commit()
    for _ in range(2):
        assert watch.has_changed(task, is_exact) is (is_exact and hasattr(task, "array"))
    apply(task)
    expected = is_seen[is_exact]
    for _ in range(2):  # until it is committed
        assert watch.has_changed(task, is_exact) is (expected or (is_exact and hasattr(task, "array")))
    watch.commit()
    assert watch.has_changed(task, is_exact) is (is_exact and hasattr(task, "array"))


def test_a_look_pickles_no_large_container() -> None:
    task, watch = Task(), ChangeDetector()
    watch.has_changed(task, False)
    assert 0 < len(watch._now.pickle) < 1000
    del task.records, task.pairs  # whose items could be changed by hooks
    watch.has_changed(task, True)
    assert 0 < len(watch._now.pickle) < 1000


def test_what_cannot_be_pickled_counts_as_changed() -> None:
    """Each time: the error is to be raised each time."""
    task, watch = Task(), ChangeDetector()
    task.lock = threading.Lock()  # type: ignore[attr-defined]
    for _ in range(3):
        assert watch.has_changed(task, False)
        watch.commit()


def test_nothing_is_kept_alive() -> None:
    """An array that is not the sequence's any more is freed; a list, at the next look."""
    task, watch = Task(), ChangeDetector()
    for _ in range(2):
        watch.has_changed(task, False)
        watch.commit()
    array, paths = task.array, task.paths
    before = sys.getrefcount(array), sys.getrefcount(paths)
    task.array = task.paths = None
    watch.has_changed(task, False)
    assert sys.getrefcount(array) == before[0] - 1
    assert sys.getrefcount(paths) == before[1] - 2


def test_what_takes_long_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    from workers.process import change_detector as module

    caplog.set_level(logging.WARNING, "workers")
    monkeypatch.setattr(module, "_LONG_S", 0.0)
    task, watch = Task(), ChangeDetector()
    for _ in range(3):
        watch.has_changed(task, True)
        watch.commit()
    (message,) = caplog.messages
    assert "at the beginning of an epoch, most of it for Task.source" in message or "Task." in message


class Clock:
    """Time goes by where a Slow object is pickled."""

    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now

    thread_time = monotonic


class Slow:
    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds

    def __reduce__(self) -> Any:
        Clock.now += self.seconds
        return Slow, (self.seconds,)


class Holding:
    def __init__(self, **attributes: Any) -> None:
        self.name = "a string"
        self.__dict__.update(attributes)

    def __call__(self, batch: Any) -> Any:
        return batch

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return index


class Hooked(Holding):
    def on_epoch_end(self) -> None:
        """Counts as something that changes things."""


def _of_closure() -> Any:
    held, later = [Slow()], None

    def first(batch: Any) -> Any:
        return (batch, held) if batch is None else (batch, later)  # noqa: F821

    del later  # its cell is empty, as before it is first set
    return first


@pytest.mark.parametrize(
    ("make", "place"),
    [
        (lambda: workers.prefetch(Holding(held=[Slow()]), 0), "for Holding.held (list, 1 items)"),
        (lambda: workers.prefetch(Hooked(held=[Slow()]), 0), "for Hooked.held (list, 1 items)"),
        (lambda: workers.prefetch([Slow(), "a"], 0), "for what its jobs read (list, 2 items)"),
        (
            lambda: workers.prefetch(Holding(a=Slow(2.0), b=Slow()), 0, batch_size=2, shuffle=True),
            "for Holding.a (Slow,",
        ),
        (lambda: workers.SequenceMap(Holding(), 0, Holding(held=(Slow(),))), "for Holding.held (tuple, 1 items)"),
        (lambda: workers.SequenceMap(Holding(), 0, _of_closure()), "first's variable 'held' (list, 1 items)"),
        (lambda: workers.SequenceMap(Holding(), 0, [abs, Holding(held=Slow())]), "for Holding.held (Slow,"),
        (
            lambda: workers.SequenceMap(Holding(), 0, functools.partial(_first, more=Slow())),
            "for _first's argument 'more' (Slow, one",
        ),
    ],
)
def test_what_has_taken_the_time_is_named(
    make: Any, place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And hooks are where there are some."""
    from workers.process import change_detector as module

    monkeypatch.setattr(module, "time", Clock)
    with make() as batches:
        task, has_hooks, watch = batches._live.task(), batches._has_hooks(), ChangeDetector()
        for _ in range(3):
            watch.has_changed(task, has_hooks)
            watch.commit()
        (message,) = caplog.messages
        other = ChangeDetector()
        other.tell_if_long(task, has_hooks, 1.0)
    for each in (message, caplog.messages[-1]):
        assert place in each
        assert ("or define no on_epoch_begin" in each) == ("Hooked" in place)


def test_a_machine_that_was_slow_is_not_blamed_on_data(caplog: pytest.LogCaptureFixture) -> None:
    """What takes no time when it is done again has not taken it."""
    with workers.prefetch(Holding(held=[1, 2]), 0) as batches:
        ChangeDetector().tell_if_long(batches._live.task(), False, 3600.0)
    assert not caplog.messages


def _first(batch: Any, more: Any) -> Any:
    return batch


class Numbers(Sequence):
    def __init__(self) -> None:
        super().__init__(seed=1)
        self.array = np.zeros(100_000)
        self.records = [[number] for number in range(MANY)]
        self.scale = 1

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return float(self.array[index]), self.records[index][0], self.scale


def test_an_interrupt_before_the_workers_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has changed is still sent with the next pass."""
    seq = Numbers()
    with seq.prefetch(1) as batches:
        assert [batch[2] for batch in batches] == [1, 1, 1]
        seq.scale = 5
        with monkeypatch.context() as patch:
            patch.setattr(type(batches._live.pool.engine), "begin", _interrupt)  # type: ignore[union-attr]
            with pytest.raises(KeyboardInterrupt):
                list(batches)
        assert [batch[2] for batch in batches] == [5, 5, 5]


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_changed() -> None:
    """What is not seen by itself is seen when it is said; on a sequence, on what is made of it, and on a front-end."""
    seq = Numbers()
    with seq.map(lambda batch: batch).prefetch(1) as batches:
        for round_, say in enumerate([seq.changed, batches.changed, batches.source_split.changed], 1):
            list(batches)
            seq.array[:] = round_
            seq.records[1][0] = -round_
            assert [batch[0] for batch in batches] == [round_ - 1.0] * 3
            say()
            assert list(batches) == [(round_, 0, 1), (round_, -round_, 1), (round_, 2, 1)]
        seq.scale = 2
        assert [batch[2] for batch in batches] == [2, 2, 2]

    class Plain:
        def __init__(self) -> None:
            self.items = [[number] for number in range(MANY)]

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Any:
            return self.items[index][0]

    plain = Plain()
    with workers.prefetch(plain, 1) as batches:
        assert list(batches) == [0]
        plain.items[0][0] = 5
        batches.changed()
        assert list(batches) == [5]
