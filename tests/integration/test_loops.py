"""Several loops over one sequence, and what befalls a loop: each keeps to its own epoch, and loses no batch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from workers import Sequence, SequenceArray, SequenceMap, StalePassError, StateError, prefetch

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


def test_an_iterator_goes_on(make: Any) -> None:
    """Where it stands: iter() of it is without effect."""
    loop = iter(make(Told()))
    assert iter(loop) is loop
    assert next(loop) == (0, 0)
    assert list(loop) == epoch(0)[1:]
    assert list(loop) == []
    loop = iter(make(Told()))
    assert [list(itertools.islice(loop, 3)) for _ in range(4)] == [epoch(0)[:3], epoch(0)[3:6], epoch(0)[6:], []]


def test_a_newer_loop_takes_the_place_of_an_older_one(make: Any) -> None:
    """Of one sequence or front-end. The older one says so, and skips no batch silently."""
    batches = make(Told())
    older = iter(batches)
    assert [next(older) for _ in range(3)] == epoch(0)[:3]
    newer = iter(batches)
    for _ in range(2):
        with pytest.raises(StalePassError, match="is over: a newer pass over it has begun"):
            next(older)
    assert list(newer) == epoch(1)
    with pytest.raises(StalePassError):
        list(zip(batches, batches, strict=True))
    assert list(batches) == epoch(2)
    outer = ((each, list(batches)) for each in batches)
    assert next(outer) == ((3, 0), epoch(4))
    with pytest.raises(StalePassError):
        next(outer)
    assert list(batches) == epoch(5)


def test_each_loop_counts_its_own_epochs() -> None:
    """A sequence, and all that is made of it."""
    sequence = Told()
    with sequence.prefetch(1) as one, sequence.prefetch(0) as other:
        loops = [iter(each) for each in (one, other, sequence)]
        assert [[next(loop) for _ in range(3)] for loop in loops] == [epoch(0)[:3]] * 3
        states = [each.state_dict() for each in (one, other, sequence)]
        assert states == [states[0]] * 3
        assert (states[0]["epoch"], states[0]["batch"]) == (0, 3)
        assert [list(loop) for loop in loops] == [epoch(0)[3:]] * 3
        for number in (1, 2):
            assert list(one) == list(sequence) == epoch(number)
        assert list(other) == epoch(1)
        assert (one.epoch, other.epoch, sequence.epoch) == (3, 2, 3)


def test_what_is_made_of_a_sequence_begins_where_that_stands() -> None:
    sequence = Told()
    list(sequence)
    loop = iter(sequence)
    next(loop)  # a look
    with sequence.prefetch(1) as batches:
        assert list(batches) == epoch(1)
    state = sequence.state_dict()
    assert list(loop) == epoch(1)[1:]
    sequence.load_state_dict(state)
    for made in (sequence.prefetch(0), sequence.map(None), sequence.shard(0, 1)):
        with made:
            assert list(made) == epoch(1)[1:]
            assert list(made) == epoch(2)
    for make in (lambda: sequence.batch(2), sequence.shuffle):
        with pytest.raises(StateError, match="within an epoch, and counts other batches"):
            make()
    assert list(sequence) == epoch(1)[1:]


@pytest.mark.parametrize("how", ["epoch", "state"])
def test_the_epoch_is_set_within_a_loop(make: Any, how: str) -> None:
    """The loop is over, and says so; the next one is of that epoch, whole: also if it is the same."""
    for number in (0, 5):
        batches = make(Told())
        loop = iter(batches)
        assert [next(loop) for _ in range(3)] == epoch(0)[:3]
        if how == "epoch":
            batches.epoch = number
        else:
            batches.load_state_dict({**batches.state_dict(), "epoch": number, "batch": 0})
        with pytest.raises(StalePassError, match="the epoch was set" if how == "epoch" else "a state was loaded"):
            next(loop)
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
    """A place among samples is none among batches of three samples, and the other way round."""
    samples = SequenceArray({"x": np.arange(20)}, seed=1)
    batches = samples.batch(3)
    loop = iter(batches)
    next(loop)
    assert samples.state_dict()["batch"] == 0
    state = batches.state_dict()
    with pytest.raises(StateError, match="state is of sampler 'SequenceBatch', not 'SequenceArray'"):
        samples.load_state_dict(state)
    batches.load_state_dict(state)
    assert [batch["x"][0] for batch in batches] == list(range(3, 20, 3))
    next(iter(samples))
    samples.load_state_dict(samples.state_dict())
    with pytest.raises(StateError, match="the state that was loaded into the SequenceArray is within an epoch"):
        samples.batch(3)


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
        with pytest.raises(StateError, match="take the state when its last item was delivered"):
            batches.state_dict()
        next(batches)
        assert batches.state_dict()["batch"] == 2


def test_a_state_from_within_a_longer_list() -> None:
    with Told().map(lambda batch: [batch, batch], 0) as batches:
        iter(batches)
        next(batches)
        state = batches.state_dict()
        batches.load_state_dict({**state, "partial": [0, 2]})
        with pytest.raises(StateError, match="after item 2 of batch 0, which has only 2 items"):
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


def test_a_front_is_read_by_next() -> None:
    """It is not its own iterator; next() of it reads the pass that was begun last."""
    with SequenceMap(Told(), 2) as batches:
        iter(batches)
        assert [next(batches) for _ in range(PER_EPOCH)] == epoch(0)
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(batches)
        batches.epoch = 4
        assert next(batches) == (4, 0)
