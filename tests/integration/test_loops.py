"""Several loops over one sequence, and what befalls a loop: each keeps to its own epoch, and loses no batch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workers import Sequence, SequenceArray, SequenceMap, StateError, prefetch

PER_EPOCH = 7


class Told(Sequence):
    """Batches that tell what they are; number 3 may fail."""

    def __init__(self, error: type[Exception] | None = None) -> None:
        super().__init__(seed=1)
        self.error = error

    def __len__(self) -> int:
        return PER_EPOCH

    def __getitem__(self, index: int) -> Any:
        if index == 3 and self.error is not None:
            raise self.error(index)
        return (self.epoch, index)


def epoch(number: int) -> list[Any]:
    return [(number, index) for index in range(PER_EPOCH)]


MAKERS: dict[str, Callable[[Told], Any]] = {
    "sequence": lambda sequence: sequence,
    "serial": lambda sequence: sequence.prefetch(0),
    "workers": lambda sequence: sequence.prefetch(2),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Any:
    with contextlib.ExitStack() as opened:
        yield lambda sequence: opened.enter_context(MAKERS[request.param](sequence))


def test_two_loops_of_one_sequence() -> None:
    """Begun together they read the same epoch; one that begins later, the next."""
    sequence = Told()
    assert list(zip(sequence, sequence, strict=True)) == [(each, each) for each in epoch(0)]
    first = iter(sequence)
    assert [next(first) for _ in range(3)] == epoch(1)[:3]
    assert list(sequence) == epoch(2)
    assert list(first) == epoch(1)[3:]
    assert list(sequence) == epoch(3)


def test_two_fronts_of_one_sequence() -> None:
    sequence = Told()
    with sequence.prefetch(1) as one, sequence.prefetch(0) as other:
        iter(one)
        assert [next(one) for _ in range(3)] == epoch(0)[:3]
        iter(other)
        assert [next(each) for each in (other, one, other)] == [(1, 0), (0, 3), (1, 1)]
        state = other.state_dict()
        assert state == one.state_dict() == sequence.state_dict()
        assert (state["epoch"], state["batch"]) == (1, 2)
        assert [next(one) for _ in range(3)] == epoch(0)[4:]
        assert next(one, None) is None
        assert [next(other) for _ in range(5)] == epoch(1)[2:]
        assert list(one) == epoch(2)


def test_the_epoch_is_set_within_a_loop(make: Any) -> None:
    """The loop goes on as it began, and the next one is of that epoch, whole: also if it is the same."""
    for number in (0, 5):
        batches = make(Told())
        loop = iter(batches)
        assert [next(loop) for _ in range(3)] == epoch(0)[:3]
        batches.epoch = number
        assert [next(loop) for _ in range(4)] == epoch(0)[3:]
        assert next(loop, None) is None
        assert list(batches) == epoch(number)


def test_on_epoch_end_says_where_to_go_on(make: Any) -> None:
    class Jumps(Told):
        def on_epoch_end(self) -> None:
            if self.epoch == 1:
                self.epoch = 4

    batches = make(Jumps())
    assert [list(batches) for _ in range(4)] == [epoch(0), epoch(1), epoch(4), epoch(5)]
    with pytest.raises(StateError, match="on_epoch_end has set the epoch on the way"):
        make(Jumps()).load_state_dict(batches.state_dict())


def test_on_epoch_end_loads_a_state() -> None:
    """It would be called again on the way there."""

    class Loads(Told):
        def on_epoch_end(self) -> None:
            self.load_state_dict(self.state_dict())

    with pytest.raises(StateError, match="cannot be loaded within a job, or within on_epoch_begin or on_epoch_end"):
        list(Loads())


def test_a_batch_fails(make: Any) -> None:
    """Raised in its place; the loop goes on behind it, and so does a state."""
    batches = make(Told(OSError))
    loop = iter(batches)
    assert [next(loop) for _ in range(3)] == epoch(0)[:3]
    with pytest.raises(OSError, match="3"):
        next(loop)
    state = batches.state_dict()
    assert [next(loop) for _ in range(3)] == epoch(0)[4:]
    assert next(loop, None) is None
    batches.load_state_dict(state)
    assert list(batches) == epoch(0)[4:]


def test_other_batches() -> None:
    """A place among batches of three samples is none among samples."""
    samples = SequenceArray({"x": np.arange(20)}, seed=1)
    batches = samples.batch(3)
    loop = iter(batches)
    next(loop)
    with pytest.raises(StateError, match="what is read counts other batches than these"):
        samples.state_dict()
    batches.load_state_dict(batches.state_dict())
    with pytest.raises(StateError, match="the state that was loaded counts other batches than these"):
        next(iter(samples))
    assert [batch["x"][0] for batch in batches] == list(range(3, 20, 3))


class Grows(Sequence):
    """An epoch is a batch longer than the one before."""

    def __init__(self, has_hook: bool = False) -> None:
        super().__init__(seed=1)
        self.length = 3 if has_hook else None

    def __len__(self) -> int:
        return self.length or 3 + self.epoch

    def __getitem__(self, index: int) -> Any:
        return self.epoch, index


class GrowsByHook(Grows):
    def __init__(self) -> None:
        super().__init__(True)

    def on_epoch_end(self) -> None:
        assert self.length is not None
        self.length += 1


@pytest.mark.parametrize("kind", [Grows, GrowsByHook])
def test_epochs_of_other_lengths(kind: Any) -> None:
    sequence = kind()
    states, delivered = [sequence.state_dict()], []
    for batch in itertools.chain(sequence, sequence, sequence):
        delivered.append(batch)
        states.append(sequence.state_dict())
    assert len(delivered) == 12
    for step, state in enumerate(states):
        with kind().prefetch(0) as other:
            other.load_state_dict(state)
            assert [batch for _ in range(state["epoch"], 3) for batch in other] == delivered[step:]
        with pytest.raises(StateError, match="of length"):
            kind().load_state_dict({**state, "length": 50})


@pytest.mark.parametrize("workers", [None, 0, 2])
def test_nothing_is_left_for_a_shard(workers: int | None) -> None:
    """Of seven batches the last is none for two ranks: they go on with the next epoch."""
    whole = Told()
    loop = iter(whole)
    assert [next(loop) for _ in range(6)] == epoch(0)[:6]
    part = Told().shard(1, 2)
    with part if workers is None else part.prefetch(workers) as batches:
        batches.load_state_dict(whole.state_dict())
        assert list(batches) == epoch(1)[1:7:2]


def test_a_shard_within_a_list() -> None:
    """Other ranks cannot be told where that is."""
    with Told().shard(0, 2).map(lambda batch: [batch, batch], 0) as batches:
        iter(batches)
        next(batches)
        with pytest.raises(StateError, match="take the state behind its last item"):
            batches.state_dict()
        next(batches)
        assert batches.state_dict()["batch"] == 2


def test_a_state_from_within_a_longer_list() -> None:
    with Told().map(lambda batch: [batch, batch], 0) as batches:
        iter(batches)
        next(batches)
        state = batches.state_dict()
        batches.load_state_dict({**state, "partial": [0, 2]})
        with pytest.raises(StateError, match="behind item 2 of batch 0, which has 2"):
            next(batches)
        batches.load_state_dict(state)
        assert list(batches) == [each for each in epoch(0) for _ in range(2)][1:]


def test_a_state_is_loaded_by_on_error() -> None:
    states: list[Any] = []

    def on_error(error: BaseException) -> str:
        batches.load_state_dict(states[0])
        return "skip"

    with prefetch(Told(OSError), 2, on_error=on_error) as batches:
        states.append({**batches.state_dict(), "batch": 5})
        iter(batches)
        assert [next(batches) for _ in range(5)] == [*epoch(0)[:3], *epoch(0)[5:]]
        assert next(batches, None) is None


def test_two_loops_of_a_front() -> None:
    """A front-end is its own iterator."""
    with SequenceMap(Told(), 2) as batches:
        assert list(zip(batches, batches, strict=False)) == [((0, index), (0, index + 1)) for index in (0, 2, 4)]
        assert list(batches) == epoch(1)
