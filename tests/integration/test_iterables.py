"""Sources that have only ``__iter__``: each pass has all of their items, or says why it has not."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from workers import SequenceMap, StateError, prefetch

COUNT = 7

#: Each goes through its items once.
ITERATORS: dict[str, Callable[[], Any]] = {
    "generator": lambda: (number for number in range(COUNT)),
    "zip": lambda: zip(range(COUNT), range(COUNT), strict=True),
    "map": lambda: map(str, range(COUNT)),
    "iter": lambda: iter(range(COUNT)),
    "islice": lambda: itertools.islice(itertools.count(), COUNT),
    "file": lambda: io.StringIO("a\n" * COUNT),
    "csv": lambda: csv.reader(["1,2"] * COUNT),
    "class": lambda: Once(COUNT),
    "abstract": lambda: OnceByAbc(COUNT),
    "held": lambda: Holds(zip(range(COUNT), strict=True)),
    "held, iter": lambda: HoldsIter(zip(range(COUNT), strict=True)),
}

FRONTS: dict[str, Callable[[Any], Any]] = {
    "0": lambda source: prefetch(source, 0),
    "2": lambda source: prefetch(source, 2),
    "auto": prefetch,
    "batch_size": lambda source: prefetch(source, 0, batch_size=2),
    "batch_size, 2": lambda source: prefetch(source, 2, batch_size=2),
    "batch_size, auto": lambda source: prefetch(source, batch_size=2),
    "map": lambda source: SequenceMap(source, 0, str),
    "threads": lambda source: SequenceMap(source, 1, str, executor="thread"),
    "map, batch": lambda source: SequenceMap(source, 0, str).batch(2),
    "chunks of chunks": lambda source: SequenceMap(source, 0, str).batch(1).batch(2),
}
WITH_WORKERS = "2", "batch_size, 2", "batch_size, auto", "threads"


class Once:
    """An iterator of the usual form."""

    def __init__(self, count: int) -> None:
        self.count, self.number = count, 0

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> int:
        if self.number == self.count:
            raise StopIteration
        self.number += 1
        return self.number - 1


class OnceByAbc(Once, Iterator[int]):
    __iter__ = Iterator.__iter__


class Holds:
    """An iterable that always gives the same iterator."""

    def __init__(self, iterator: Any) -> None:
        self.iterator = iterator

    def __iter__(self) -> Any:
        return self.iterator


class HoldsIter(Holds):
    def __iter__(self) -> Any:
        return iter(self.iterator)


class BeginsAgain(Once):
    """Its own iterator, which each ``iter()`` sets back."""

    def __iter__(self) -> Any:
        self.number = 0
        return self


class BeginsAgainAtItsEnd(Once):
    def __next__(self) -> int:
        try:
            return super().__next__()
        except StopIteration:
            self.number = 0
            raise


class BegunAgainByHook(Once):
    def on_epoch_end(self) -> None:
        self.number = 0


class Rewinds(Holds):
    """A reader of a file that is set back to its start."""

    def __init__(self) -> None:
        self.file = io.StringIO("".join(f"{number}\n" for number in range(COUNT)))
        super().__init__(csv.reader(self.file))

    def __iter__(self) -> Any:
        self.file.seek(0)
        return self.iterator


class Fresh:
    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def __iter__(self) -> Any:
        return iter(range(COUNT))


class Says(Fresh):
    """Has a length, right or wrong."""

    def __len__(self) -> int:
        assert self.length is not None
        return self.length


AGAIN: dict[str, Callable[[], Any]] = {
    "iterable": Fresh,
    "own iterator": lambda: BeginsAgain(COUNT),
    "by hook": lambda: BegunAgainByHook(COUNT),
    "file": Rewinds,
    "set": lambda: set(range(COUNT)),
    "keys": lambda: dict.fromkeys(range(COUNT)).keys(),
}


def flat(batches: Any) -> list[int]:
    """The samples, of batches or not."""
    return [int(each) for batch in batches for each in np.ravel(batch)]


def left(batches: Any) -> Iterator[Any]:
    """What comes after a first ``next(batches)``."""
    with contextlib.suppress(StopIteration):
        while True:
            yield next(batches)


@pytest.mark.parametrize("front", FRONTS)
def test_an_iterator_is_read_once(front: str, caplog: pytest.LogCaptureFixture) -> None:
    """A whole pass, or a part of one; the second one raises, and says what to give."""
    says = "is an iterator, which cannot begin again, and the loop of epoch 0 has read.*give a factory, an o"
    names = ["class"] if front in WITH_WORKERS else ITERATORS
    for name, leaves_early in itertools.product(names, (False, True)):
        with caplog.at_level(logging.WARNING, "workers"), FRONTS[front](ITERATORS[name]()) as batches:
            loop = iter(batches)
            next(loop)
            if not leaves_early:
                assert len(list(loop)) == (3 if "batch" in front or "chunks" in front else COUNT - 1), name
            for _ in range(3):
                with pytest.raises(StateError, match=says):
                    list(batches)
        assert not caplog.messages, name


@pytest.mark.parametrize("front", FRONTS)
def test_what_can_begin_again_is_read_again(front: str) -> None:
    """Whole, though the loop before was left early."""
    make = FRONTS[front]
    for name, source in AGAIN.items():
        if front in WITH_WORKERS and name != "own iterator":
            continue
        with make(source()) as batches:
            if name == "file":
                assert [len(list(batches)) for _ in range(2)] == [len(list(batches))] * 2
                next(iter(batches))
                assert len(list(batches)) in (COUNT, 4)
                continue
            assert [flat(batches) for _ in range(2)] == [list(range(COUNT))] * 2, name
            next(iter(batches))
            iter(batches)  # reads nothing
            assert flat(batches) == list(range(COUNT)), name
            state = batches.state_dict()
            next(iter(batches))
            batches.load_state_dict(state)
            if name == "by hook":  # which is not called: it is the same epoch
                with pytest.raises(StateError, match="cannot begin again"):
                    next(batches)
            else:
                assert flat(batches) == list(range(COUNT)), name
    with prefetch(BeginsAgainAtItsEnd(COUNT), 0) as batches:
        assert [flat(batches) for _ in range(3)] == [list(range(COUNT))] * 3


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_state_is_not_loaded_into_an_iterator_that_was_read(batch_size: int | None) -> None:
    """Nothing would come. Into a new one it is."""
    with prefetch(ITERATORS["generator"](), 0, batch_size=batch_size, seed=1) as batches:
        next(batches)
        state = batches.state_dict()
        rest = flat(left(batches))
        batches.load_state_dict(state)
        with pytest.raises(StateError, match="generator is an iterator, which cannot begin again"):
            next(batches)
    with prefetch(ITERATORS["generator"](), 0, batch_size=batch_size, seed=1) as batches:
        batches.load_state_dict(state)
        assert flat(batches) == rest == list(range(batch_size or 1, COUNT))


def test_a_front_end_made_of_another_reads_the_same_iterator() -> None:
    with SequenceMap(ITERATORS["generator"](), 0, str) as batches:
        next(batches)
        with batches.batch(2) as made, pytest.raises(StateError, match="cannot begin again"):
            next(made)


def test_an_iterator_within_an_iterable(caplog: pytest.LogCaptureFixture) -> None:
    """The iterable gives a new generator each time, which finds nothing the second time: a warning says it."""

    class Wraps(Holds):
        def __iter__(self) -> Any:
            yield from self.iterator

    with prefetch(Wraps(iter(range(COUNT))), 0) as batches:
        assert len(list(batches)) == COUNT
        assert not caplog.messages
        assert list(batches) == []
    assert "an epoch is empty: the source yielded nothing, after 7 items in epoch 0" in caplog.text
    caplog.clear()
    with prefetch(Wraps([]), 0) as batches:
        assert list(batches) == list(batches) == []
    with prefetch(iter([]), 0) as batches:  # it never had anything
        assert list(batches) == list(batches) == []
    assert not caplog.messages


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("length", [0, 3, COUNT - 1, COUNT, COUNT + 1, 20])
def test_what_comes_counts_and_not_the_length(length: int, workers: int) -> None:
    """A state taken at any step goes on with the next item."""
    makers: list[Callable[[], Any]] = [
        lambda: prefetch(Says(length), workers, seed=1),
        lambda: SequenceMap(SequenceMap(Says(length), 0, abs, seed=1), workers, abs),
        lambda: SequenceMap(Says(length), workers, lambda number: [number, number], seed=1),
        lambda: SequenceMap(Says(length), workers, lambda number: [[number]], seed=1).rebatch(1),
        lambda: prefetch(Says(length), workers, batch_size=2, seed=1),
    ]
    for make in makers[: 5 if workers == 0 else 1]:
        with make() as batches, make() as others:
            states, items = [batches.state_dict()], []
            for batch in batches:
                items.append(flat([batch]))
                states.append(batches.state_dict())
            if length == COUNT and make is makers[0]:
                assert states[-1]["epoch"] == 1
                assert {state["length"] for state in states} == {COUNT}
            for step, state in enumerate(states):
                others.load_state_dict(state)
                rest = [flat([batch]) for batch in others] if state["epoch"] == 0 else []
                assert rest == items[step:], (length, step)
                assert [flat([batch]) for batch in others] == items


@pytest.mark.parametrize("is_closed", [False, True])
@pytest.mark.parametrize("in_zip", [False, True])
def test_an_iterator_that_was_left_is_let_go_of(in_zip: bool, is_closed: bool) -> None:
    """When the loop is over, or the next one begins: what it holds, such as an open file, is closed."""
    closed: list[str] = []

    class Opens:
        def __iter__(self) -> Any:
            return zip(self.items()) if in_zip else self.items()

        def items(self) -> Any:
            try:
                yield from range(COUNT)
            finally:
                closed.append("closed")

    batches = prefetch(Opens(), 0)
    next(iter(batches))
    assert not closed
    if is_closed:
        batches.close()
    else:
        next(iter(batches))
    assert closed == ["closed"]
    batches.close()


class SameMemory:
    """Uses its memory again for each item."""

    def __init__(self) -> None:
        self.buffer = np.zeros(1)

    def __iter__(self) -> Any:
        for number in range(12):
            self.buffer[:] = number
            yield self.buffer


@pytest.mark.parametrize("executor", ["process", "thread"])
@pytest.mark.parametrize("nb_workers", [0, 1, 2])
def test_a_source_that_uses_its_memory_again(nb_workers: int, executor: Any) -> None:
    with prefetch(SameMemory(), 0).map(lambda item: item + 1, nb_workers, executor=executor) as batches:
        for _ in range(2):
            assert [float(batch[0]) for batch in batches] == [float(number) for number in range(1, 13)]


class UsesMemoryAgain:
    """Each of its items is made in the memory of the one before."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __iter__(self) -> Iterator[Any]:
        array = np.zeros(3)
        whole = {"x": array}
        for number in range(12):
            array[:] = number
            yield whole if self.kind == "dict" else {"x": memory_of(array) if self.kind == "tensor" else array}


def memory_of(array: Any) -> Any:
    return pytest.importorskip("torch").from_numpy(array)


@pytest.mark.parametrize("kind", ["array", "dict", "tensor"])
@pytest.mark.parametrize(("nb_workers", "executor"), [(0, "process"), (2, "process"), (2, "thread")])
def test_batches_of_a_source_that_uses_its_memory_again(kind: str, nb_workers: int, executor: str) -> None:
    for options in ({}, {"batch_size": 4}, {"batch_size": 4, "collate_fn": list}):
        with prefetch(UsesMemoryAgain(kind), nb_workers, executor=executor, seed=0, **options) as batches:
            found = [
                np.stack([each["x"] for each in batch]) if isinstance(batch, list) else batch["x"] for batch in batches
            ]
        assert np.concatenate([each.reshape(-1, 3)[:, 0] for each in found]).tolist() == list(range(12))
