"""Where a loop stands, against a plain set of what was delivered."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from workers.sequence.state import Place


@given(st.permutations(range(12)), st.integers(0, 2**32), st.integers(0, 6))
def test_a_place(order: list[int], seed: int, num_before: int) -> None:
    """In any order, begun anywhere; and what was not noted, because of a Ctrl-C, is not counted."""
    draw = random.Random(seed)
    before = set(order[:num_before])
    first = min(set(range(13)) - before)
    place = Place(first, {each for each in before if each > first})
    for index in order[num_before:]:
        for _ in range(draw.randrange(3)):
            place.behind(draw.choice([index, draw.choice(order[num_before:])]))
        place.where, passed_by = place.behind(index)
        assert passed_by == 0
        before.add(index)
        first = min(set(range(13)) - before)
        assert place.batch == first
        assert place.apart == {each for each in before if each > first}
        assert place.left(12) == sorted(set(range(12)) - before)
    assert not place._apart - set(range(12))


def test_a_batch_in_parts() -> None:
    place = Place(3, {5}, (1, 2))
    assert place.left(7) == [1, 3, 4, 6]
    place.where, passed_by = place.behind(4)
    assert (place.partial, passed_by) == ((1, 2), 0)
    place.where, passed_by = place.behind(1)
    assert (place.partial, passed_by) == (None, 2)
    assert (place.batch, place.apart) == (3, {4, 5})
    place.where, _ = place.behind(3)
    assert (place.batch, place.apart) == (6, set())
