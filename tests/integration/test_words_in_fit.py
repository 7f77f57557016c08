"""``model.fit`` gets the batches of each word of a chain that a loop gets, once each, in their order."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import workers
from workers import Sequence, current_rng, pad, prefetch

NUMBER = 12
LENGTHS = np.arange(NUMBER) % 3 + 1


class Pairs(Sequence[Any]):
    """Samples (x, y): x is the number, and what is drawn for it."""

    def __init__(self, seed: int | None = 1) -> None:
        super().__init__(seed=seed)

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return np.array([index, current_rng().random()], np.float32), np.float32(index)


class Sized(Pairs):
    def __getitem__(self, index: int) -> Any:
        return np.full(LENGTHS[index], index, np.float32), np.float32(index)


class Recording(keras.Model):  # type: ignore[misc]
    """Keeps the batches that it is trained with."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        self.seen.append((np.asarray(x).tolist(), np.asarray(y).tolist()))
        return {"loss": 0.0}

    def call(self, x: Any) -> Any:
        return x


WORDS: dict[str, Any] = {
    "weights": lambda: Pairs().weighted(np.arange(NUMBER)).batch(4),
    "each once": lambda: Pairs().weighted(np.arange(1, 13), replacement=False, num_samples=8).batch(4),
    "reorder": lambda: Pairs().reorder(lambda epoch: range(epoch, NUMBER, 2)).batch(2),
    "batch_by": lambda: Pairs().batch_by([[0, 3], [5], [1, 1, 2]]),
    "bucket": lambda: Sized().bucket(LENGTHS, 4, collate_fn=pad(-1)),
    "repeat": lambda: Pairs().shuffle().repeat(2).batch(4),
    "split": lambda: Pairs().split(0.5)[0].shuffle().batch(2),
    "slice": lambda: Pairs().shuffle()[1:9:2].batch(2),
    "shard": lambda: Pairs().shuffle().batch(2).shard(1, 3),
    "mix": lambda: workers.mix([Pairs().shuffle(), Pairs(None).shuffle()], [2, 1]).batch(3),
    "concat": lambda: workers.concat([Pairs().shuffle(), Pairs(None)]).batch(5),
    "counted": lambda: Pairs().filter(lambda pair: pair[1] % 3 > 0, count=True).batch(4),
    "redraw": lambda: prefetch(Pairs().map(failing), 0, batch_size=4, on_error="redraw"),
    "reservoir": lambda: Pairs().reservoir(3, 2).batch(4),
    "yields": lambda: Pairs().map(several).batch(4),
    "yields batches": lambda: Pairs().batch(3).map(again),
    "interleave": lambda: Pairs().interleave(several, 3).batch(4),
    "yields, of a stream": lambda: prefetch(Stream(), 0, seed=1).map(several).batch(4),
    "rebatch": lambda: Pairs().batch(3).rebatch(5),
    "windows": lambda: prefetch(Stream(), 0, seed=1).shuffle(window=5).batch(4),
}


class Stream:
    def __len__(self) -> int:
        return NUMBER

    def __iter__(self) -> Any:
        return iter([(np.float32(number), np.float32(number)) for number in range(NUMBER)])


def several(pair: Any) -> Any:
    """None to three for each."""
    for number in range(int(pair[1]) % 4):
        yield pair[0] + number, pair[1]


def again(batch: Any) -> Any:
    yield batch
    yield batch[0] + 1, batch[1]


def failing(pair: Any) -> Any:
    if pair[1] == 5:
        raise ValueError("number 5")
    return pair


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # Keras, of data of unknown length
@pytest.mark.parametrize("nb_workers", [0, 2, "auto"])
@pytest.mark.parametrize("word", WORDS)
def test_fit_gets_the_batches_of_a_loop(word: str, nb_workers: Any) -> None:
    with WORDS[word]().prefetch(0) as batches:
        expected = [(np.asarray(x).tolist(), np.asarray(y).tolist()) for _ in range(2) for x, y in batches]
    model = Recording()
    model.compile(run_eagerly=True)
    with WORDS[word]().prefetch(nb_workers) as batches:
        model.fit(batches, epochs=2, shuffle=False, verbose=0)
    assert model.seen == expected
