"""The items of a job that arrive in portions: each once, whatever runs of the job they come from."""

from __future__ import annotations

import random

import pytest

from workers.engine.delivery import Delivery
from workers.engine.passes import EnginePass
from workers.engine.results import Failure, Portion, Portions, Result


def read(portions: Portions) -> list[int]:
    """All items, as the loop takes them."""
    found: list[int] = []
    while (result := portions.after(len(found))) is not None:
        if not isinstance(result.value, Portion):
            return found + result.value
        found += result.value.items
    raise AssertionError("the job has not ended")


@pytest.mark.parametrize("seed", range(40))
def test_runs_that_die_at_any_place(seed: int) -> None:
    """Each run begins anew and sends its items in portions of its own; the last one ends."""
    rng = random.Random(seed)
    items, portions, taken = list(range(12)), Portions(), list[int]()
    for sending in range(1, rng.randint(2, 5)):
        at, dies_at = 0, rng.randint(0, 11)
        while at < dies_at:
            stop = rng.randint(at + 1, 11)
            portions.add(sending, items[at:stop])
            at = stop
            if rng.random() < 0.5 and (result := portions.after(len(taken))) is not None:
                taken += result.value.items
    start = rng.randint(0, 11)
    if start:
        portions.add(9, items[:start])
    portions.end(Result(portions.last(9, items[start:])))
    while isinstance((result := portions.after(len(taken))).value, Portion):  # type: ignore[union-attr]
        taken += result.value.items  # type: ignore[union-attr]
    assert taken + result.value == items  # type: ignore[union-attr]


def test_an_error_while_a_portion_is_read() -> None:
    """It is the result of that run; another run is whole."""
    portions, failure = Portions(), Failure(ValueError("x"))
    portions.add(1, [0, 1])
    portions.add(1, failure)
    portions.add(1, [3])
    assert portions.last(1, [4]) is failure
    portions.add(2, [0, 1, 2])
    portions.end(Result(portions.last(2, [3, 4])))
    assert portions.whole() == Result([0, 1, 2, 3, 4])
    assert read(portions) == [0, 1, 2, 3, 4]


def test_what_a_delivery_hands_over() -> None:
    """Portions of the next job in order at once, those of others when it is their turn; each job once."""
    delivery, current = Delivery(True, False), EnginePass(0, 3, 0)
    delivery.add_portion(1, 5, [10], 8)
    delivery.deliver(current)
    assert delivery.take() == []
    delivery.add_portion(0, 4, [0], 8)
    delivery.deliver(current)
    ((index, result),) = delivery.take()
    assert (index, result.value.after(0)) == (0, Result(Portion([0])))
    assert result.value.after(1) is None
    delivery.finished[0] = Result(delivery.last_items(0, 4, [1]))
    delivery.deliver(current)
    assert result.value.after(1) == Result([1])
    ((index, result),) = delivery.take()  # that of job 0 is with the loop already
    assert (index, result.value.after(0)) == (1, Result(Portion([10])))
    assert delivery.num_bytes_of_portions(1) == 8


def test_a_dropped_result_keeps_no_portions() -> None:
    delivery = Delivery(True, False)
    delivery.add_portion(1, 5, [10], 8)
    delivery.finished[1] = Result(delivery.last_items(1, 5, [11]))
    delivery.drop(1)
    assert not delivery.has_any
    assert delivery.last_items(1, 6, [10, 11]) == [10, 11]
