"""A program: each word of a chain on two actors of a Ray cluster, against none. It prints {word: what it found}."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numbered import Numbered

import workers
from workers import pad

NUMBER = 12
LENGTHS = np.arange(NUMBER) % 4 + 1


class Stream:
    def __iter__(self) -> Any:
        return iter(range(NUMBER))


class Sized(Numbered):
    """Each sample is a list of numbers of some length."""

    def __getitem__(self, index: int) -> Any:
        return np.full(LENGTHS[index], index)


def is_even(batch: Any) -> bool:
    return batch[0] % 2 == 0


def doubled(batch: Any) -> Any:
    return np.asarray(batch) * 2


def failing(batch: Any) -> Any:
    if batch[0] == 5:
        raise ValueError("number 5")
    return batch


def yields(batch: Any) -> Any:
    for number in range(int(batch[0]) % 3):
        yield (*batch, number)


def yields_until(batch: Any) -> Any:
    """Two of its three items, where the number is odd."""
    for number in range(3):
        if number == 2 and batch[0] % 2:
            raise ValueError(f"item 2 of {batch[0]}")
        yield (*batch, number)


WORDS: dict[str, Any] = {
    "weights": lambda: Numbered().weighted(np.arange(NUMBER)),
    "each once": lambda: Numbered().weighted(np.arange(1, NUMBER + 1), replacement=False, num_samples=6),
    "reorder": lambda: Numbered().reorder(lambda epoch: range(epoch, NUMBER, 2)),
    "yields": lambda: Numbered().map(yields).batch(4),
    "yields, then fails": lambda: workers.prefetch(Numbered().map(yields_until), 0, on_error="skip"),
    "cache": lambda: workers.prefetch(list(range(NUMBER)), 0, seed=1).map(doubled).cache().shuffle(),
    "interleave": lambda: Numbered().interleave(yields, 2),
    "batch_by": lambda: Numbered().batch_by([[0, 3], [5], [1, 1, 2]]),
    "bucket": lambda: Sized().bucket(LENGTHS, 4, collate_fn=pad(-1)),
    "repeat": lambda: Numbered().shuffle().repeat(2),
    "take": lambda: Numbered().shuffle().skip(2).take(7),
    "split": lambda: Numbered().split(0.5)[1].repeat(2),
    "filter": lambda: Numbered().filter(is_even),
    "slice": lambda: Numbered().shuffle()[1:9:2],
    "mix": lambda: workers.mix([Numbered().shuffle(), Numbered(None).map(tuple).shuffle()], [2, 1]),
    "concat": lambda: workers.concat([Numbered().shuffle(), Numbered(None)]).batch(5),
    "zip": lambda: workers.zip({"a": Numbered(), "b": Numbered(None).shuffle()}),
    "redraw": lambda: workers.prefetch(Numbered().map(failing), 0, batch_size=4, on_error="redraw"),
    "skip": lambda: workers.prefetch(Numbered().map(failing), 0, batch_size=4, on_error="skip"),
    "window": lambda: workers.prefetch(Stream(), 0, seed=1).shuffle(window=5),
    "reservoir": lambda: Numbered().reservoir(3, 2).map(tuple),
}


def found(make: Any, **options: Any) -> str:
    with make().prefetch(**options) as batches:
        epochs = [repr(list(batches)) for _ in range(2)]
        loop = iter(batches)
        next(loop)
        state = batches.state_dict()
        epochs.append(repr(list(loop)))
        failures = [each[:5] for each in batches.report().failures if each.epoch < 2]
    with make().prefetch(nb_workers=0) as batches:
        batches.load_state_dict(state)
        assert repr(list(batches)) == epochs[-1]
    return repr((epochs, failures))


if __name__ == "__main__":
    import logging

    from ray_programs import made

    workers.logger.setLevel(logging.CRITICAL)
    made(nodes=2)
    told = {}
    for word, make in WORDS.items():
        try:
            told[word] = found(make, nb_workers=2, executor="ray") == found(make, nb_workers=0)
        except Exception as error:
            told[word] = f"{type(error).__name__}: {error}"  # type: ignore[assignment]
    print(json.dumps(told))
