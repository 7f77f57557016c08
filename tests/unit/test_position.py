"""Where a loop stands, against a plain set of what was delivered."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from workers.sequence.position import Position


@given(st.permutations(range(12)), st.integers(0, 2**32), st.integers(0, 6))
def test_a_position(order: list[int], seed: int, num_before: int) -> None:
    """In any order, begun anywhere; and what was not noted, because of a Ctrl-C, is not counted."""
    draw = random.Random(seed)
    before = set(order[:num_before])
    first = min(set(range(13)) - before)
    position = Position(first, {each for each in before if each > first})
    for index in order[num_before:]:
        for _ in range(draw.randrange(3)):
            position.behind(draw.choice([index, draw.choice(order[num_before:])]))
        assert position.num_passed_by(index) == 0
        position.delivered = position.behind(index)
        before.add(index)
        first = min(set(range(13)) - before)
        assert position.delivered.batch == first
        assert position.apart == {each for each in before if each > first}
        assert position.num_delivered == len(before)
        assert list(position.left(12)) == sorted(set(range(12)) - before)
    assert not position._apart - set(range(12))


def test_a_batch_in_parts() -> None:
    position = Position(3, [5], (1, 2))
    assert position.left(7) == [1, 3, 4, 6]
    assert (position.num_passed_by(1), position.num_passed_by(4)) == (2, 0)
    position.delivered = position.behind(4)
    assert position.delivered.partial == (1, 2)
    position.delivered = position.behind(1, 3)
    assert position.delivered.partial == (1, 3)
    position.delivered = position.behind(1)
    assert position.delivered.partial is None
    assert (position.delivered.batch, position.apart) == (3, {4, 5})
    position.delivered = position.behind(3)
    assert (position.delivered.batch, position.apart) == (6, set())


def test_several_at_once() -> None:
    """As one step: nothing is noted before it is taken."""
    position = Position()
    delivered = position.after([(0, None), (1, None), (2, 3)])
    assert position.is_at_start
    assert delivered == (3, (2, 3), None)
    position.delivered = delivered
    assert position.left(5) == [2, 3, 4]
    position.delivered = position.after([(2, None), (3, None)])
    assert position.left(5) == range(4, 5)
