"""What is drawn is spread evenly: orders, draws of adjacent seeds, and what meets in a batch. All seeds are fixed."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats

from sampler import MultiShotMemorySampler, SingleShotMemorySampler
from workers import Sequence, SequenceArray, current_rng, current_seed

LEAST = 1e-4  # the p-value below which a fixed seed is no accident
PER_CELL = 12  # counts to expect of each possibility, so that the chi-square distribution holds


def is_even(counts: Iterable[int], num_cells: int) -> None:
    """All of ``num_cells`` possibilities were seen, and equally often."""
    counts = list(counts)
    assert len(counts) == num_cells, f"{num_cells - len(counts)} of {num_cells} never come"
    assert stats.chisquare(counts).pvalue > LEAST


def order(n: int, seed: int, epoch: int = 0) -> Any:
    """The order of ``.shuffle()``, as one batch of all samples."""
    made = SequenceArray({"i": np.arange(n)}, seed=seed).shuffle().batch(n)
    made.epoch = epoch
    (batch,) = made
    return batch["i"]


CHAINS: dict[str, Callable[[Any, int], Any]] = {
    "shuffle": lambda sequence, n: sequence.shuffle().batch(n),
    "shuffle, shuffle": lambda sequence, n: sequence.shuffle().shuffle().batch(n),
    "shuffle, batch, shuffle": lambda sequence, n: sequence.shuffle().batch(1).shuffle(),
}


def orders(n: int, name: str, num_orders: int, num_seeds: int = 20) -> Iterator[tuple[int, ...]]:
    """The orders of 0 to n - 1 in ``num_orders`` epochs in all, of ``num_seeds`` adjacent seeds."""
    for seed in range(num_seeds):
        made = CHAINS[name](SequenceArray({"i": np.arange(n)}, seed=seed), n)
        for _ in range(-(-num_orders // num_seeds)):
            yield tuple(np.concatenate([batch["i"] for batch in made]).tolist())


# -- orders


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6])
def test_each_permutation_is_reached_equally_often(n: int) -> None:
    number = math.factorial(n)
    is_even(Counter(orders(n, "shuffle", PER_CELL * number)).values(), number)


@pytest.mark.parametrize("name", list(CHAINS)[1:])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_each_level_of_shuffling_has_a_permutation_of_its_own(n: int, name: str) -> None:
    """Two levels with one permutation of n = 2 would be the identity always, of n = 3 in two of three cases."""
    number = math.factorial(n)
    found = Counter(orders(n, name, 40 * number))
    is_even(found.values(), number)
    # The second level says nothing of the first: how the order changes is even, too.
    first = orders(n, "shuffle", 40 * number)
    changes = Counter(
        tuple(before.index(value) for value in after)
        for before, after in zip(first, orders(n, name, 40 * number), strict=True)
    )
    is_even(changes.values(), number)


@pytest.mark.parametrize("n", [5, 40, 1500])  # the last one is computed by the network
def test_each_value_is_equally_often_at_each_position(n: int) -> None:
    size = min(n, 12)  # of the table: positions and values in so many groups
    table = np.zeros((size, size), int)
    for seed in range(PER_CELL * size // 2 if n > size else PER_CELL * size):
        values = order(n, seed)
        np.add.at(table, (np.arange(n) * size // n, values * size // n), 1)
    assert stats.chi2_contingency(table).pvalue > LEAST


def correlation(pairs: Iterable[tuple[Any, Any]]) -> float:
    """Of pairs of vectors, in standard deviations."""
    one, other = (np.concatenate(each) for each in zip(*pairs, strict=True))
    return float(np.corrcoef(one, other)[0, 1] * np.sqrt(len(one)))


@pytest.mark.parametrize("n", [50, 1500])
def test_orders_of_adjacent_seeds_and_epochs_are_uncorrelated(n: int) -> None:
    number = 20_000 // n
    by_seed = [order(n, seed) for seed in range(1000, 1000 + number)]
    by_epoch = [order(n, 7, epoch) for epoch in range(number)]
    assert abs(correlation(itertools.pairwise(by_seed))) < 4
    assert abs(correlation(itertools.pairwise(by_epoch))) < 4
    same_place = sum(int((a == b).sum()) for a, b in [*itertools.pairwise(by_seed), *itertools.pairwise(by_epoch)])
    assert abs(same_place - 2 * (number - 1)) < 5 * math.sqrt(2 * number)  # on average one of n


# -- draws


class Drawn(Sequence[Any]):
    """Sample i is what was drawn of one kind."""

    def __init__(self, draw: Callable[[], Any], seed: int) -> None:
        super().__init__(seed=seed)
        self.draw = draw

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return self.draw()


DRAWS: dict[str, Callable[[], Any]] = {
    "current_rng": lambda: current_rng().random(100),
    "numpy.random": lambda: np.random.random(100),
    "current_seed": lambda: np.concatenate([current_seed() for _ in range(50)]) / 2**31,
}


@pytest.mark.parametrize("kind", DRAWS)
def test_draws_of_adjacent_seeds_epochs_and_batches_are_uncorrelated(kind: str) -> None:
    found = {}
    for seed in range(8):
        sequence = Drawn(DRAWS[kind], seed)
        for epoch in range(4):
            found.update({(seed, epoch, index): batch for index, batch in enumerate(sequence)})
    assert stats.kstest(np.concatenate(list(found.values())), "uniform").pvalue > LEAST
    for step in [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, -1, 0), (0, 1, -1), (1, 0, -1)]:
        after = {at: tuple(np.add(at, step).tolist()) for at in found}
        pairs = [(found[at], found[other]) for at, other in after.items() if other in found]
        assert len(pairs) > 100
        assert abs(correlation(pairs)) < 4, step


# -- what meets in a batch


def met(groups: Iterable[Any]) -> Counter[tuple[int, int]]:
    return Counter(pair for group in groups for pair in itertools.combinations(sorted(map(int, group)), 2))


def test_pairs_of_multi_shot() -> None:
    """Any two classes meet equally often, and any two examples of a class."""
    num_classes, num_examples = 6, 5
    y = np.repeat(np.arange(num_classes), num_examples)
    sampler = MultiShotMemorySampler(
        np.arange(len(y)), y, classes_per_batch=2, examples_per_class_per_batch=2, steps_per_epoch=60, seed=3
    )
    batches = [x.reshape(2, 2) for _ in range(20) for x, _ in sampler]
    of_classes = met(np.unique(batch // num_examples) for batch in batches)
    is_even(of_classes.values(), math.comb(num_classes, 2))
    of_examples = met(row for batch in batches for row in batch)
    is_even(of_examples.values(), num_classes * math.comb(num_examples, 2))
    across = met(pair for batch in batches for pair in itertools.product(*batch))
    is_even(across.values(), math.comb(num_classes, 2) * num_examples**2)


def test_pairs_of_single_shot() -> None:
    sampler = SingleShotMemorySampler(np.arange(12), None, class_per_batch=4, steps_per_epoch=30, seed=3)
    is_even(met(x for _ in range(10) for x, _ in sampler).values(), math.comb(12, 2))
