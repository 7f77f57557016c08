"""Shuffled draws as a function: nothing repeats, nothing is missing, and no trace of the method is left."""

from __future__ import annotations

import doctest
import functools
import itertools
import math
import pickle
import random
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from sampler.memory import permutation
from sampler.memory.permutation import Draws
from workers.job.permutation import SORTED_UP_TO, Permutation

AROUND = [value + step for value in (256, SORTED_UP_TO, 2048, 4096) for step in (-1, 0, 1)]
SEEDS = st.integers(0, 2**63 - 1)
LARGE = [10**9, 10**9 + 7, 2**31 - 1, 2**31, 2**62 - 57, 2**62, 2**62 + 1, sys.maxsize]


def order(n: int, *key: int) -> list[int]:
    """The whole permutation."""
    return Permutation(n)(np.arange(n, dtype=np.uint64), key).tolist()


def test_examples() -> None:
    assert doctest.testmod(permutation).failed == 0


# -- Permutation


@pytest.mark.parametrize("n", [*range(1, 20), *AROUND, 31, 97, 521, 9973, 65536, 65537, 99991])
def test_it_is_a_bijection(n: int) -> None:
    assert sorted(order(n, 1, 2)) == list(range(n))


@settings(deadline=None)
@given(n=st.integers(1, 5000), key=st.lists(st.integers(), min_size=1, max_size=3))
def test_it_is_a_bijection_for_any_length_and_key(n: int, key: list[int]) -> None:
    assert sorted(order(n, *key)) == list(range(n))


@pytest.mark.parametrize("n", LARGE)
@pytest.mark.parametrize("where", ["first", "last", "anywhere"])
def test_a_long_one_holds_no_element_twice(n: int, where: str) -> None:
    size = 50_000
    if where == "anywhere":
        positions = np.unique(np.random.default_rng(1).integers(0, n, size, np.uint64))
    else:
        start = 0 if where == "first" else n - size
        positions = np.arange(start, start + size, dtype=np.uint64)
    values = Permutation(n)(positions, (7, 0))
    assert values.dtype == np.int64
    assert len(np.unique(values)) == len(positions)
    assert values.min() >= 0
    assert values.max() < n
    # They are spread evenly over the whole range.
    shares = np.histogram(values.astype(float), bins=16, range=(0, n))[0]
    assert stats.chisquare(shares).pvalue > 1e-4


@pytest.mark.parametrize("n", [5, SORTED_UP_TO, SORTED_UP_TO + 1, 3000])
def test_a_part_is_what_the_whole_holds_there(n: int) -> None:
    positions = np.random.default_rng(2).integers(0, n, 40, np.uint64)
    assert Permutation(n)(positions, (3,)).tolist() == np.array(order(n, 3))[positions].tolist()


def test_length_costs_neither_memory_nor_time() -> None:
    tracemalloc.start()
    try:
        Permutation(2**62)(np.arange(64, dtype=np.uint64), (1, 2))
        peak_nbytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_nbytes < 100_000


@pytest.mark.parametrize("n", [100, 3000, 2**62])
def test_keys_give_different_orders(n: int) -> None:
    keys = [(1,), (2,), (-1,), (2**64 + 1,), (1, 2), (12,), (2, 1), (1, 23), (12, 3), (0, 1), (1, 0)]
    orders = {tuple(Permutation(n)(np.arange(50, dtype=np.uint64), key).tolist()) for key in keys}
    assert len(orders) == len(keys)


@pytest.mark.parametrize(("n", "num_keys"), [(2, 4000), (3, 6000), (4, 12000), (5, 24000)])
def test_all_orders_are_equally_likely(n: int, num_keys: int) -> None:
    counts: dict[tuple[int, ...], int] = {}
    for key in range(num_keys):
        found = tuple(order(n, 5, key))
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == math.factorial(n)
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4


def drawn_by_keys(n: int, num_positions: int, num_keys: int) -> NDArray[np.int64]:
    """(num_keys, num_positions): the first values of the permutations of many keys."""
    permuted = Permutation(n)
    positions = np.arange(num_positions, dtype=np.uint64)
    return np.stack([permuted(positions, (11, key)) for key in range(num_keys)])


@pytest.mark.parametrize("n", [7, 100, SORTED_UP_TO, SORTED_UP_TO + 1, 1500, 9973])
def test_every_position_holds_every_value_equally_often(n: int) -> None:
    num_positions, num_keys, num_bins = min(n, 64), 4000, min(n, 50)
    values = drawn_by_keys(n, num_positions, num_keys)
    widths = np.bincount(np.arange(n) * num_bins // n)  # of the bins, in values
    expected = num_keys * widths / n
    counts = np.stack([np.bincount(v * num_bins // n, minlength=num_bins) for v in values.T])
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert stats.chi2.sf(statistic, num_positions * (num_bins - 1)) > 1e-4


@pytest.mark.parametrize("n", [SORTED_UP_TO + 1, 1500, 2000])
def test_pairs_of_positions_keep_no_distance(n: int) -> None:
    """A Feistel network of too few rounds keeps the distance of positions that share a half."""
    values = drawn_by_keys(n, 160, 6000)
    half = 2 ** ((n - 1).bit_length() // 2)
    for lag in (1, 2, half - 1, half, half + 1, 2 * half):
        distances = (values[:, lag:] - values[:, :-lag]) % n
        expected = distances.size / (n - 1)
        kept = (distances == lag).sum()
        assert abs(kept - expected) < 5 * math.sqrt(expected), f"lag {lag}: {kept / expected:.2f} of chance"


@pytest.mark.parametrize("n", [0, -1, sys.maxsize + 1])
def test_a_length_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n must be 1 to .*, not {n}"):
        Permutation(n)


# -- Draws


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """(n, k), often with n < 2k, where cycles hang on one another."""
    k = draw(st.integers(1, 40))
    return draw(st.integers(k, 2 * k) | st.integers(k, 10 * k)), k


@settings(deadline=None, max_examples=200)
@given(sizes=sizes(), seed=SEEDS)
def test_none_comes_again_before_all_came_nor_twice_in_a_batch(sizes: tuple[int, int], seed: int) -> None:
    n, k = sizes
    draws = Draws(n, k, seed)
    # At least as far as the cycles take to begin on a batch boundary again, and 3 cycles more.
    batches = [draws.batch(number) for number in range(-(-3 * n // k) + n // math.gcd(n, k))]
    for batch in batches:
        assert len(batch) == k == len(set(batch.tolist()))
    everything = np.concatenate(batches)
    for start in range(0, len(everything) - n + 1, n):
        assert sorted(everything[start : start + n].tolist()) == list(range(n))


@settings(deadline=None, max_examples=100)
@given(sizes=sizes(), seed=SEEDS, num_first=st.integers(1, 80))
def test_what_is_drawn_first(sizes: tuple[int, int], seed: int, num_first: int) -> None:
    """Then cycles, and no batch holds an element twice there either."""
    n, k = sizes
    first = random.Random(seed).sample(range(n), min(num_first, n))
    draws = Draws(n, k, seed, first=first)
    batches = [draws.batch(number).tolist() for number in range(4 * n // k + 1)]
    assert all(len(set(batch)) == k for batch in batches)
    drawn = list(itertools.chain(*batches))
    assert drawn[: len(first)] == first
    for start in range(len(first), len(drawn) - n + 1, n):
        assert sorted(drawn[start : start + n]) == list(range(n))
    for number, batch in enumerate(batches):
        cycle, how_many = draws.cycle_of(number)
        start = len(first) + cycle * n
        assert all(start <= at < start + n for at in range(number * k, number * k + how_many))
        assert len(batch) == how_many or start + n == number * k + how_many


@pytest.mark.parametrize(("n", "k"), [(1300, 400), (1500, 1300), (2001, 1000), (1501, 1500)])
def test_the_same_where_the_network_draws(n: int, k: int) -> None:
    draws = Draws(n, k, 3, sorted_up_to=SORTED_UP_TO)
    batches = [draws.batch(number) for number in range(5 * n // k)]
    assert all(len(set(batch.tolist())) == k for batch in batches)
    for cycle in np.concatenate(batches)[: 4 * n].reshape(4, n):
        assert sorted(cycle.tolist()) == list(range(n))


@pytest.mark.parametrize("n", LARGE)
def test_long_cycles_meet_without_repetition(n: int) -> None:
    k = 64
    for cycle in (1, 2, 1000):
        straddling = cycle * n // k
        # Even where the number of the draw exceeds 64 bits.
        batches = [Draws(n, k, 9).batch(straddling + step) for step in (-1, 0, 1)]
        assert all(len(set(batch.tolist())) == k for batch in batches)
        around = np.concatenate(batches)
        boundary = cycle * n - (straddling - 1) * k
        for side in (around[:boundary], around[boundary:]):
            assert len(set(side.tolist())) == len(side)


@settings(deadline=None, max_examples=30)
@given(
    sizes=sizes(),
    seed=SEEDS,
    num_first=st.integers(0, 80),
    is_sorted=st.booleans(),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_order_of_asking_draws_the_same(
    sizes: tuple[int, int], seed: int, num_first: int, is_sorted: bool, shuffle: random.Random
) -> None:
    first = range(min(num_first, sizes[0]))
    make = functools.partial(Draws, *sizes, seed, first=first, sorted_up_to=100 if is_sorted else 0)
    in_order = make()
    expected = [in_order.batch(number).tolist() for number in range(60)]
    numbers = list(range(60))
    shuffle.shuffle(numbers)
    mixed = make()
    assert {number: mixed.batch(number).tolist() for number in numbers} == dict(enumerate(expected))
    assert make().batch(59).tolist() == expected[59]
    assert pickle.loads(pickle.dumps(mixed)).batch(58).tolist() == expected[58]
    assert make().run(7, 40 * sizes[1]).tolist() == list(itertools.chain(*expected))[7 : 40 * sizes[1]]


@pytest.mark.parametrize(("n", "k"), [(13, 12), (50, 20), (1300, 400)])
def test_threads_draw_the_same_from_one_object(n: int, k: int) -> None:
    expected = [Draws(n, k, 4).batch(number).tolist() for number in range(200)]
    shared = Draws(n, k, 4)
    numbers = list(range(200)) * 3
    random.Random(1).shuffle(numbers)
    with ThreadPoolExecutor(8) as threads:
        drawn = list(threads.map(lambda number: shared.batch(number).tolist(), numbers))
    assert drawn == [expected[number] for number in numbers]


def test_what_the_caller_does_to_a_batch_changes_no_other() -> None:
    draws, untouched = Draws(7, 4, 1), Draws(7, 4, 1)
    for number in [each // 2 for each in range(80)]:
        batch = draws.batch(number)
        assert batch.tolist() == untouched.batch(number).tolist()
        batch[:] = -1


def test_every_draw_takes_every_element_equally_often() -> None:
    n, k, num_seeds, num_batches = 7, 4, 3000, 8
    drawn = np.stack(
        [
            np.concatenate([Draws(n, k, seed).batch(number) for number in range(num_batches)])
            for seed in range(num_seeds)
        ]
    )
    for column in drawn.T:
        assert stats.chisquare(np.bincount(column, minlength=n)).pvalue > 1e-4


def test_cycles_and_seeds_have_orders_of_their_own() -> None:
    firsts = {tuple(Draws(100, 50, seed).batch(number).tolist()) for seed in range(5) for number in range(10)}
    assert len(firsts) == 50


def test_it_pickles_small_and_draws_the_same_afterwards() -> None:
    draws = Draws(2**62, 64, 5, 6)
    expected = draws.batch(2**56).tolist()
    copy = pickle.loads(pickle.dumps(draws))
    assert copy.batch(2**56).tolist() == expected
    used = Draws(500, 400, 5)
    used.batch(1)
    assert len(pickle.dumps(used)) < 200


@pytest.mark.parametrize(("n", "k"), [(3, 4), (3, 0), (0, 0)])
def test_more_than_there_are_is_refused(n: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be 1 to n = {n}, not {k}"):
        Draws(n, k, 1)
