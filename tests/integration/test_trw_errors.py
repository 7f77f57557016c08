"""rebatch, sub_batch, collate and max_samples: what is raised, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from varying import TOTAL, Varying, same

from workers import SequenceArray, StateError, prefetch


@pytest.fixture(params=[0, 2])
def nb_workers(request: pytest.FixtureRequest) -> int:
    return int(request.param)


class Failing(Varying):
    def __getitem__(self, index: int) -> Any:
        if index == 2:
            raise OSError("of batch 2")
        batch = super().__getitem__(index)
        return {"x": batch["x"], "y": batch["x"][1:]} if index == 4 else batch


@pytest.mark.parametrize(
    "make", [lambda s: s.rebatch(2), lambda s: s.sub_batch(2), lambda s: s.rebatch(2).max_samples(42)]
)
def test_errors_are_raised_once_and_the_loop_goes_on(nb_workers: int, make: Any) -> None:
    with make(Failing().prefetch(nb_workers)) as batches:
        loop, found, errors = iter(batches), [], []
        while True:
            try:
                found += next(loop)["x"].tolist()
            except StopIteration:
                break
            except (OSError, ValueError) as error:
                errors.append(str(error))
                assert len(errors) < 10
    assert "of batch 2" in errors[0]
    assert "must be of one length, not [2, 3]" in errors[1]
    assert found[:6] == [*range(5), 17]
    assert found[6:] == [*range(21, TOTAL)]


def test_what_collate_fn_raises(nb_workers: int) -> None:
    """In its batch's place; the next one follows, and a state counts it."""

    def picky(parts: list[Any]) -> Any:
        if any(7 in part["x"] for part in parts):
            raise ValueError("there is a 7")
        if any(15 in part["x"] for part in parts):
            raise StopIteration
        return sum(len(part["x"]) for part in parts)

    with Varying().prefetch(nb_workers).rebatch(4, collate_fn=picky) as batches:
        loop = iter(batches)
        assert next(loop) == 4
        with pytest.raises(ValueError, match="there is a 7"):
            next(loop)
        state = batches.state_dict()
        assert next(loop) == 4
        with pytest.raises(RuntimeError, match="StopIteration"):
            next(loop)
        assert next(loop) == 4
        batches.load_state_dict(state)
        assert next(iter(batches)) == 4


def test_batches_that_do_not_join(nb_workers: int) -> None:
    parts = [{"x": np.zeros((2, 3))}, {"x": np.zeros((2, 4))}, {"y": np.zeros((2, 4))}, {"y": np.ones((2, 4))}]
    with prefetch(parts, nb_workers, seed=1).rebatch(3) as batches:
        loop = iter(batches)
        with pytest.raises(ValueError, match="equal in all axes but the first"):
            next(loop)
        with pytest.raises(ValueError, match=r"same names, not \['x'\] and \['y'\]"):
            next(loop)
        assert next(loop)["y"].tolist() == np.ones((2, 4)).tolist()


def twice(number: int) -> list[int]:
    return [number] * 2


SAMPLES = SequenceArray({"x": np.arange(4)}, seed=1)
WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Varying().rebatch(0), ValueError, "batch_size must be an integer >= 1, not 0"),
    (lambda: Varying().rebatch(2.5), TypeError, "batch_size must be an integer >= 1, not 2.5"),
    (lambda: Varying().rebatch(2, 7), ValueError, "discard_batch_not_full must be one of True, False, not 7"),
    (
        lambda: Varying().rebatch(2, collate_fn=7),
        TypeError,
        "collate_fn must be a function or None",
    ),
    (lambda: Varying().sub_batch(0), ValueError, "batch_size must be an integer >= 1, not 0"),
    (lambda: Varying().sub_batch(2, "no"), ValueError, "discard_batch_not_full must be one of"),
    (lambda: Varying().collate(7), TypeError, "collate_fn must be a function of a batch, or None, not 7"),
    (lambda: Varying().collate(device="cuda"), ValueError, "device must be None, not 'cuda': .* to_device"),
    (lambda: Varying().max_samples(0), ValueError, "max_samples must be an integer >= 1, not 0"),
    (lambda: len(Varying().rebatch(2)), TypeError, r"rebatch\(\) has no length: it is known only when"),
    (lambda: len(Varying().prefetch(0).rebatch(2)), TypeError, r"rebatch\(\) has no length: it is known only when"),
    (lambda: len(Varying().max_samples(2)), TypeError, r"max_samples\(\) has no length: how many batches"),
    (lambda: Varying().rebatch(2)[0], TypeError, "rebatch"),
    (lambda: Varying().max_samples(2)[0], TypeError, "max_samples"),
    (lambda: Varying().rebatch(2).map(same), TypeError, "only .prefetch.* can follow it"),
    (lambda: Varying().prefetch(0).rebatch(2).batch(2), TypeError, "only .prefetch.* can follow it"),
    (lambda: Varying().rebatch(2).shuffle(), TypeError, "only .prefetch.* can follow it"),
    (lambda: Varying().rebatch(2).prefetch(0).shard(0, 2), TypeError, "only .prefetch.* can follow it"),
    (lambda: Varying().rebatch(2).rebatch(3), TypeError, "only .prefetch.* can follow it"),
    (lambda: Varying().max_samples(2).map(same), TypeError, "the last of a chain"),
    (lambda: prefetch(Varying().max_samples(2), 0), TypeError, "the last of a chain"),
    (lambda: Varying().max_samples(2).max_samples(2), TypeError, "the last of a chain"),
    (
        lambda: list(prefetch([1, 2], 0).map(twice).batch(1).batch(2)),
        TypeError,
        "^a function before .* returns lists, so .* use .rebatch",
    ),
    (lambda: list(SAMPLES.rebatch(2)), TypeError, "must have an array or a list of its samples"),
    (lambda: list(SAMPLES.sub_batch(2)), TypeError, "must have an array or a list of its samples"),
]


@pytest.mark.parametrize("case", range(len(WRONG)))
def test_what_is_wrong_is_named(case: int) -> None:
    make, error, text = WRONG[case]
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    ("made", "other"),
    [
        (lambda: Varying().rebatch(8), lambda: Varying().rebatch(7)),
        (lambda: Varying().rebatch(8), lambda: Varying().batch(8)),
        (lambda: Varying().rebatch(8), lambda: Varying([5, 5]).rebatch(8)),
        (lambda: Varying().shard(0, 2).rebatch(8), lambda: Varying().shard(1, 2).rebatch(8)),
        (lambda: Varying().max_samples(8), lambda: Varying().max_samples(7)),
        (lambda: Varying().max_samples(8), Varying),
        (Varying, lambda: Varying().max_samples(8)),
    ],
)
def test_states_of_others(made: Any, other: Any) -> None:
    with made() as batches:
        next(iter(batches))
        state = batches.state_dict()
        with other() as others, pytest.raises(StateError):
            others.load_state_dict(state)
