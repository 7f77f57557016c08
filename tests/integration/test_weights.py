"""``weights=`` and ``.weighted``: each sample comes by its share, in any order, on any workers, from any state."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numbered import Numbered

import workers
from workers import SequenceArray, prefetch

NUMBER = 40
WEIGHTS = np.arange(NUMBER) % 5.0
WORKERS = [(0, "process"), (1, "process"), (3, "process"), (2, "thread"), ("auto", "process")]


class Drawn(Numbered):
    length = NUMBER


def numbers() -> SequenceArray:
    return SequenceArray({"x": np.arange(NUMBER), "label": np.arange(NUMBER) // 30}, seed=1)


def counted(batches: Any) -> Counter[int]:
    return Counter(int(np.ravel(number)[0]) for number, _, _ in batches)


@pytest.mark.parametrize("num_samples", [None, 7, 41, 1000])
def test_each_comes_by_its_share(num_samples: int | None) -> None:
    """Rounded down or up in each epoch; over ten epochs, as often as it must, within one an epoch; zeros never."""
    drawn = Drawn().weighted(WEIGHTS, num_samples=num_samples)
    number = num_samples or NUMBER
    assert len(drawn) == number
    shares = WEIGHTS / WEIGHTS.sum() * number
    total = np.zeros(NUMBER)
    orders = []
    for _ in range(10):
        epoch = list(drawn)
        found = np.bincount([each for each, _, _ in epoch], minlength=NUMBER)
        assert (np.floor(shares) <= found).all()
        assert (found <= np.ceil(shares)).all()
        assert len({draw for _, _, draw in epoch}) == number  # what comes twice has other draws
        total += found
        orders.append([each for each, _, _ in epoch])
    assert (np.abs(total - 10 * shares) < 10).all()
    assert orders[0] != orders[1]
    assert not (found[WEIGHTS == 0]).any()


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("given", ["systematic", "each once", "function", "batches"])
def test_the_same_on_any_workers(given: str, nb_workers: Any, executor: str) -> None:
    def made() -> Any:
        options: dict[str, dict[str, Any]] = {
            "systematic": {"weights": WEIGHTS},
            "each once": {"weights": WEIGHTS, "replacement": False, "num_samples": 12},
            "function": {"weights": lambda epoch: np.roll(WEIGHTS, epoch)},
            "batches": {"weights": WEIGHTS, "batch_size": 6},
        }
        return lambda number, **others: prefetch(Drawn(), number, **options[given], **others)

    with made()(0) as batches:
        expected = [[tuple(map(np.ndarray.tolist, map(np.asarray, each))) for each in batches] for _ in range(3)]
    with made()(nb_workers, executor=executor) as batches:
        found = [[tuple(map(np.ndarray.tolist, map(np.asarray, each))) for each in batches] for _ in range(3)]
    assert found == expected
    assert expected[0] != expected[1]


def test_without_replacement_none_comes_twice() -> None:
    drawn = Drawn().weighted(WEIGHTS, replacement=False, num_samples=20)
    first = Counter[int]()
    for _ in range(300):
        epoch = [number for number, _, _ in drawn]
        assert len(set(epoch)) == 20
        assert WEIGHTS[epoch].min() > 0
        first[int(WEIGHTS[epoch[0]])] += 1
    assert first[4] / first[1] == pytest.approx(4, rel=0.5)  # the first draw is by weight
    with pytest.raises(ValueError, match="only 32 weights are greater than 0"):
        Drawn().weighted(WEIGHTS, replacement=False)


def test_weights_by_label() -> None:
    found = Counter(int(each["label"]) for each in numbers().weighted("balanced", labels="label"))
    assert found == {0: 20, 1: 20}
    labels = ["a"] * 30 + ["b"] * 10
    found = Counter(int(each["label"]) for each in numbers().weighted({"a": 1, "b": 3}, labels=labels))
    assert found == {0: 20, 1: 20}
    with prefetch(numbers(), 2, weights={0: 0, 1: 2}, labels="label", num_samples=5, batch_size=5) as batches:
        assert next(iter(batches))["label"].tolist() == [1] * 5


def test_new_weights_take_effect_in_the_next_epoch() -> None:
    """Whoever has the workers; what was computed ahead of the loop is not delivered."""
    drawn = Drawn().weighted(np.eye(NUMBER)[3])
    with drawn.prefetch(2) as batches:
        loop = iter(batches)
        assert next(loop)[0] == 3
        drawn.weights = np.eye(NUMBER)[5]
        assert {number for number, _, _ in loop} == {3}
        assert {number for number, _, _ in batches} == {5}


class Learning(Drawn):
    """Its hook changes what it is weighted by."""

    wanted = 0

    def on_epoch_end(self) -> None:
        self.wanted += 7

    def weights(self, epoch: int) -> Any:
        return np.eye(NUMBER)[self.wanted]


@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
def test_a_hook_changes_the_weights(nb_workers: Any) -> None:
    source = Learning()
    with source.weighted(source.weights).prefetch(nb_workers) as batches:
        assert [{number for number, _, _ in batches} for _ in range(3)] == [{0}, {7}, {14}]


@pytest.mark.parametrize("stop", [1, 25, NUMBER])
@pytest.mark.parametrize("replacement", [True, False])
def test_a_state_goes_on(replacement: bool, stop: int) -> None:
    def made(weights: Any = WEIGHTS + 1) -> Any:
        return Drawn(seed=4).weighted(weights, replacement=replacement)

    whole = [list(made()) for _ in range(1)]
    with made().prefetch(2) as batches:
        loop = iter(batches)
        got = [next(loop) for _ in range(stop)]
        state = batches.state_dict()
    with made().prefetch(1) as batches:
        batches.load_state_dict(state)
        rest = list(batches)
    if stop < NUMBER:
        assert got + rest == whole[0]
    else:
        assert rest[0][1] == 1  # the next epoch
    with pytest.raises(workers.StateError, match="other arguments or data"):
        made(WEIGHTS + 2).prefetch(0).load_state_dict(state)


def test_ranks_share_the_draws() -> None:
    whole = [number for number, _, _ in Drawn().weighted(WEIGHTS)]
    for world in (1, 2, 3, 4):
        ranks = [[number for number, _, _ in Drawn().weighted(WEIGHTS).shard(rank, world)] for rank in range(world)]
        assert len({len(rank) for rank in ranks}) == 1
        assert [number for step in zip(*ranks, strict=True) for number in step] == whole[: NUMBER // world * world]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weights": [1, 2]}, "weights has 2 values for the 40 batches"),
        ({"weights": np.ones((40, 2))}, "one for each sample, not of dtype float64 and shape"),
        ({"weights": np.full(NUMBER, np.nan)}, "number 0 is nan"),
        ({"weights": -WEIGHTS}, "number 1 is -1.0"),
        ({"weights": np.zeros(NUMBER)}, "all 0"),
        ({"weights": "balanced"}, "needs labels="),
        ({"weights": "equal", "labels": np.zeros(NUMBER)}, '"balanced" or an array'),
        ({"weights": {0: 1}, "labels": np.arange(NUMBER)}, "lacks [1, 2"),
        ({"weights": {0: 1, 7: 1}, "labels": np.zeros(NUMBER)}, "has [7], which no sample has"),
        ({"weights": WEIGHTS, "labels": np.zeros(NUMBER)}, "with labels, weights must be"),
        ({"weights": {0: 1}, "labels": np.zeros(3)}, "labels has 3 values"),
        ({"weights": {0: 1}, "labels": "colour"}, "must name an array of a SequenceArray"),
        ({"weights": WEIGHTS, "shuffle": True}, "both say which samples come"),
        ({"weights": WEIGHTS, "num_samples": 0}, "num_samples must be an integer >= 1"),
        ({"num_samples": 3}, "go with weights="),
    ],
)
def test_wrong_arguments(options: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        prefetch(Drawn(), 0, **options)
    assert error in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: Drawn().shuffle().weighted(WEIGHTS), "the order of SequenceShuffle changes"),
        (lambda: Drawn().weighted(WEIGHTS).weighted(WEIGHTS), "the order of SequenceWeighted changes"),
        (lambda: Drawn().shard(0, 2).weighted(WEIGHTS), "shard last"),
        (lambda: prefetch(iter([1]), 0).weighted([1]), "has no indices"),
        (lambda: Drawn().batch(2).rebatch(3).weighted([1]), "put together in the consumer's process"),
        (lambda: numbers()[::-1].weighted("balanced", labels="label"), "in another order or number here"),
    ],
)
def test_places_without_a_meaning(wrong: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        wrong()
    assert error in str(raised.value)


def test_a_function_is_checked_in_each_epoch() -> None:
    with prefetch(Drawn(), 0, weights=lambda epoch: [1.0] * (NUMBER - epoch)) as batches:
        assert len(list(batches)) == NUMBER
        with pytest.raises(ValueError, match="weights has 39 values"):
            list(batches)


def test_ten_million_weights() -> None:
    weights = np.zeros(10_000_000)
    weights[[5, 9_999_999]] = 1, 3
    with prefetch(range(10_000_000), 2, weights=weights, num_samples=8, batch_size=4) as batches:
        for _ in range(2):
            found = np.concatenate(list(batches))
            assert Counter(found.tolist()) == {5: 2, 9_999_999: 6}


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_new_weights_for_the_same_epoch(nb_workers: Any, executor: str) -> None:
    """Nothing of what the jobs of that epoch have kept is used again."""
    drawn = Drawn().weighted(np.eye(NUMBER)[3])
    with drawn.prefetch(nb_workers, executor=executor) as batches:
        for wanted in (3, 5, 3):
            drawn.weights, batches.epoch = np.eye(NUMBER)[wanted], 0
            assert {number for number, _, _ in batches} == {wanted}
    assert {number for number, _, _ in [drawn[0], drawn[1]]} == {3}
    drawn.weights = np.eye(NUMBER)[7]
    assert drawn[2][0] == 7


@pytest.mark.parametrize("scale", [1e300, 1e-300, 5e-324, np.float64(2) ** 1023])
@pytest.mark.parametrize("replacement", [True, False])
def test_weights_of_any_size(scale: float, replacement: bool) -> None:
    """Neither their sum nor their quotients overflow."""
    drawn = Drawn().weighted(np.ones(NUMBER) * scale, replacement=replacement)
    assert sorted(number for number, _, _ in drawn) == list(range(NUMBER))


def only(numbers: range) -> Any:
    return np.isin(np.arange(NUMBER), numbers).astype(float)


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
@pytest.mark.parametrize("replacement", [True, False])
def test_weights_set_in_mid_epoch(nb_workers: Any, executor: str, replacement: bool) -> None:
    """They leave the running epoch as it is, its state too, and are set by the front-end that was made last."""

    def made(weights: Any) -> Any:
        options: dict[str, Any] = {"nb_workers": nb_workers, "executor": executor}
        return prefetch(Drawn(), weights=weights, num_samples=9, replacement=replacement, **options)

    with made(only(range(20))) as batches:
        loop = iter(batches)
        first = [next(loop)[0] for _ in range(4)]
        batches.weights = only(range(20, 40))
        len(batches)
        list(Drawn())  # another loop: what the jobs of an epoch share is forgotten
        state = batches.state_dict()
        rest = list(loop)
        assert {*first, *(each for each, _, _ in rest)} <= set(range(20))
        with made(only(range(20))) as other:
            other.load_state_dict(state)
            assert list(other) == rest
        at_end = batches.state_dict()
        following = list(batches)
        assert {each for each, _, _ in following} <= set(range(20, 40))
        with made(only(range(20))) as other:
            with pytest.raises(workers.StateError, match="other arguments"):
                other.load_state_dict(at_end)
            other.weights = batches.weights
            other.load_state_dict(at_end)
            assert list(other) == following
        batches.epoch = 1
        batches.weights = only(range(12))
        assert {each for each, _, _ in batches} <= set(range(12))


def test_weights_of_what_has_none() -> None:
    with pytest.raises(AttributeError, match=r"write \.weighted\(weights\) first"):
        prefetch(Drawn(), nb_workers=0).weights = WEIGHTS
    mixed = workers.mix([Drawn().weighted(WEIGHTS), Drawn()])
    assert not hasattr(mixed, "weights")
    drawn = Drawn().weighted(WEIGHTS).batch(2).prefetch(0)
    with pytest.raises(ValueError, match="read-only"):
        drawn.weights[3] = 1
    with pytest.raises(TypeError, match=r"give that to \.weighted"):
        drawn.weights = lambda epoch: WEIGHTS


@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_weights_set_after_a_state_was_loaded(nb_workers: Any, executor: str) -> None:
    """The rest of its epoch goes on with those of the state."""

    def made(workers: Any = 0, **options: Any) -> Any:
        return prefetch(Drawn(), workers, weights=only(range(20)), num_samples=9, **options)

    with made() as batches:
        loop = iter(batches)
        for _ in range(3):
            next(loop)
        state, rest = batches.state_dict(), list(loop)
    with made(nb_workers, executor=executor) as batches:
        batches.load_state_dict(state)
        batches.weights = only(range(30, 40))
        assert batches.state_dict() == state
        assert list(batches) == rest
        assert {number for number, _, _ in batches} <= set(range(30, 40))
    with made() as batches:
        with pytest.raises(ValueError, match="weights has 3 values for the 40 batches"):
            batches.weights = [1, 2, 3]
        assert {number for number, _, _ in batches} <= set(range(20))
