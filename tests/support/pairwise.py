"""Rows in which every two values of any two columns meet at least once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]  # {column: number of its value}
Pair = frozenset[tuple[str, int]]


def all_pairs(
    columns: Mapping[str, Sequence[Any]], has_meaning: Callable[[Row], bool], seed: int = 0, tries: int = 20
) -> tuple[list[Row], list[Row]]:
    """(rows that have a meaning and hold every two values that can meet, pairs of values that never have one).

    Greedy: each row starts with a pair that is missing, and takes column after column the value that adds most pairs.

    Args:
        columns: {name: its values}.
        has_meaning: of a row, or of some of its columns: False if no others can give it one. It gets values.
        seed: of what is drawn where several values are as good.
        tries: rows that are tried for a pair before it counts as one without meaning.
    """
    draw = random.Random(seed)
    missing = {
        frozenset([(one, i), (other, j)])
        for one, other in itertools.combinations(columns, 2)
        for i in range(len(columns[one]))
        for j in range(len(columns[other]))
    }

    def values(row: Row) -> Row:
        return {name: columns[name][number] for name, number in row.items()}

    def gain(row: Row, name: str, number: int) -> int:
        return sum(frozenset([item, (name, number)]) in missing for item in row.items())

    def filled(row: Row) -> Row | None:
        """``row`` with all columns; None: no value of a column goes with it."""
        for name in draw.sample([name for name in columns if name not in row], len(columns) - len(row)):
            numbers = [at for at in range(len(columns[name])) if has_meaning(values({**row, name: at}))]
            if not numbers:
                return None
            best = max(gain(row, name, at) for at in numbers)
            row = {**row, name: draw.choice([at for at in numbers if gain(row, name, at) == best])}
        return row

    rows, without = [], []
    for pair in sorted(missing, key=sorted):
        if pair not in missing:
            continue
        start = dict(sorted(pair))  # a set has another order in each process
        found = (filled(start) for _ in range(tries)) if has_meaning(values(start)) else iter(())
        row = next((each for each in found if each is not None), None)
        if row is None:
            without.append(values(start))
            missing.discard(pair)
            continue
        rows.append(values({name: row[name] for name in columns}))
        missing -= set(map(frozenset, itertools.combinations(row.items(), 2)))
    return rows, without
