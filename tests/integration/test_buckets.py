"""``.bucket`` and ``workers.pad``: samples of different sizes in batches, with little padding."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy as np
import pytest

import workers
from workers import Sequence, SequenceArray, pad, prefetch

WORKERS = [(0, "process"), (2, "process"), (2, "thread"), ("auto", "process")]
LENGTHS = np.random.default_rng(3).integers(1, 60, 500)


def words() -> Iterator[list[int]]:
    """The words of what the installed distributions say of themselves, as numbers of letters."""
    for distribution in metadata.distributions():
        for word in (distribution.read_text("METADATA") or "").split():
            if word.isalpha():  # no addresses, whose lengths are those of no text
                yield list(word.encode())


class Tokens(Sequence[Any]):
    """Sample ``i`` is ``LENGTHS[i]`` times its number."""

    def __len__(self) -> int:
        return len(LENGTHS)

    def __getitem__(self, index: int) -> Any:
        return {"ids": np.full(LENGTHS[index], index), "index": index}


def waste(batches: Any) -> float:
    """The share of padding, which is 0, in all batches."""
    padded = list(batches)
    return 1 - sum(np.count_nonzero(batch) for batch in padded) / sum(batch.size for batch in padded)


# -- bucket


@pytest.mark.parametrize(
    "options", [{"batch_size": 8}, {"max_tokens": 200}, {"batch_size": 8, "max_tokens": 200}], ids=str
)
@pytest.mark.parametrize(("nb_workers", "executor"), WORKERS)
def test_all_samples_once(options: dict[str, Any], nb_workers: Any, executor: str) -> None:
    """In another order in each epoch, within the bounds, and the same on any workers."""

    def made(number: Any, **others: Any) -> Any:
        return Tokens(seed=1).bucket(LENGTHS, collate_fn=pad(-1), **options).prefetch(number, **others)

    with made(0) as batches:
        expected = [list(batches) for _ in range(2)]
    with made(nb_workers, executor=executor) as batches:
        for epoch in range(2):
            number = len(batches)
            found = list(batches)
            assert len(found) == number
            order = np.concatenate([batch["index"] for batch in found])
            assert sorted(order) == list(range(len(LENGTHS)))
            for batch, other in zip(found, expected[epoch], strict=True):
                assert (batch["ids"] == other["ids"]).all()
                assert len(batch["ids"]) <= options.get("batch_size", 500)
                assert batch["ids"].size <= max(options.get("max_tokens", 10_000), batch["ids"].shape[1])
    assert expected[0][0]["index"].tolist() != expected[1][0]["index"].tolist()


def test_padding_of_real_texts() -> None:
    """Under 3 %; in the order of the file it is what it is, and the same with a plain batch of any samples."""
    samples = list(itertools.islice(words(), 20_000))
    lengths = [len(sample) for sample in samples]
    assert len(samples) == 20_000
    with prefetch(samples, 0, batch_size=32, collate_fn=pad(0)) as batches:
        plain = waste(batches)
    with prefetch(samples, 0).bucket(lengths, batch_size=32, collate_fn=pad(0)).prefetch(0) as batches:
        bucketed = waste(batches)
    with prefetch(samples, 0).bucket(len, max_tokens=2048, collate_fn=pad(0)).prefetch(0) as batches:
        by_tokens = waste(batches)
    print(f"{len(samples)} words: {plain:.1%} plain, {bucketed:.1%} by size, {by_tokens:.1%} by tokens")
    assert plain > 0.3
    assert bucketed < 0.03
    assert by_tokens < 0.03


def test_a_longer_sample_is_alone() -> None:
    lengths = [1, 2, 3, 100, 4]
    batches = prefetch(lengths, 0).bucket(lengths, max_tokens=10, shuffle=False)
    assert [batch.tolist() for batch in batches] == [[1, 2, 3], [4], [100]]


def test_ranks_have_as_many() -> None:
    for world in (1, 2, 3, 4):
        ranks = [Tokens(seed=1).bucket(LENGTHS, 7, collate_fn=pad()).shard(rank, world) for rank in range(world)]
        found = [[batch["index"].tolist() for batch in rank] for rank in ranks]
        assert len(set(map(len, found))) == 1
        numbers = [number for rank in found for batch in rank for number in batch]
        assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("stop", [1, 30])
def test_a_state_goes_on(stop: int) -> None:
    def made() -> Any:
        return Tokens(seed=1).bucket(LENGTHS, max_tokens=300, collate_fn=pad())

    with made().prefetch(1) as batches:
        whole = [batch["index"].tolist() for batch in batches]
    with made().prefetch(2) as batches:
        loop = iter(batches)
        got = [next(loop)["index"].tolist() for _ in range(stop)]
        state = batches.state_dict()
    with made().prefetch("auto") as batches:
        batches.load_state_dict(state)
        assert got + [batch["index"].tolist() for batch in batches] == whole


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: Tokens().bucket(LENGTHS), "needs batch_size"),
        (lambda: Tokens().bucket([1, 2], 8), "lengths has 2 values for the 500 samples"),
        (lambda: Tokens().bucket(LENGTHS / 2, 8), "must be integers"),
        (lambda: Tokens().bucket(-LENGTHS, 8), "must be >= 0"),
        (lambda: Tokens().bucket(lambda sample: "long", 8), "must be integers"),
        (lambda: Tokens().shuffle().bucket(LENGTHS, 8), "the order of SequenceShuffle changes"),
        (lambda: Tokens().bucket(LENGTHS, 8).repeat(2), "drawn once for each epoch"),
        (lambda: Tokens().bucket(LENGTHS, 0), "batch_size must be an integer >= 1"),
        (lambda: prefetch(iter([1]), 0).bucket([1], 8), "has no indices"),
    ],
)
def test_what_has_no_meaning(wrong: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        wrong()
    assert error in str(raised.value)


# -- pad


@pytest.mark.parametrize("nb_workers", [0, 1, "auto"])
def test_padded_in_the_workers(nb_workers: Any) -> None:
    arrays = [np.full((size, 2), size, np.float32) for size in (1, 3, 2, 2)]
    with prefetch(arrays, nb_workers, batch_size=2, collate_fn=pad(-1, mask=True)) as batches:
        for epoch in range(2):
            found = list(batches)
            assert [batch.shape for batch, _ in found] == [(2, 3, 2), (2, 2, 2)], epoch
            assert found[0][0].dtype == np.float32
            assert found[0][0][0].tolist() == [[1, 1], [-1, -1], [-1, -1]]
            assert [mask.tolist() for _, mask in found] == [[[True, False, False], [True] * 3], [[True, True]] * 2]


def test_structures() -> None:
    samples = [
        {"ids": [1, 2, 3], "text": "a", "label": 1, "nested": {"x": np.zeros(1)}},
        {"ids": [4], "text": "bc", "label": 2, "nested": {"x": np.ones(2)}},
    ]
    batch = pad(0, mask=True)(samples)
    assert list(batch) == ["ids", "text", "label", "nested", "ids_mask"]
    assert batch["ids"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch["ids_mask"].tolist() == [[True] * 3, [True, False, False]]
    assert (batch["text"], batch["label"].tolist()) == (["a", "bc"], [1, 2])
    assert batch["nested"]["x"].tolist() == [[0, 0], [1, 1]]
    assert batch["nested"]["x_mask"].tolist() == [[True, False], [True, True]]
    with_values = pad({"ids": -100}, to=4)(samples)
    assert with_values["ids"].tolist() == [[1, 2, 3, -100], [4, -100, -100, -100]]
    assert with_values["nested"]["x"].shape == (2, 4)
    images = [{"ids": [1], "image": np.zeros((3, 3))}, {"ids": [1, 2], "image": np.ones((3, 3))}]
    assert pad(to=8, keys="ids")(images)["image"].shape == (2, 3, 3)
    assert pad()([(np.zeros((1, 2)), 5), (np.zeros((2, 1)), 6)])[0].shape == (2, 2, 2)
    assert pad()([[], [1.5]]).tolist() == [[0], [1.5]]
    assert pad(True)([[True], [False, False]]).tolist() == [[True, True], [False, False]]
    assert pad()([[[1, 2], [3, 4]], [[5, 6]]]).tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]]]


@pytest.mark.needs("torch")
def test_of_tensors() -> None:
    import torch

    samples = [torch.arange(3), torch.arange(1)]
    assert pad(-1)(samples).tolist() == [[0, 1, 2], [0, -1, -1]]
    with prefetch(samples, 1, batch_size=2, collate_fn=pad(-1), output="torch") as batches:
        assert next(iter(batches)).tolist() == [[0, 1, 2], [0, -1, -1]]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: pad("x"), "value must be a number"),
        (lambda: pad([1]), "value must be a number"),
        (lambda: pad(to=0), "to must be an integer >= 1"),
        (
            lambda: pad(-100)([np.zeros(2, np.uint8), np.zeros(1, np.uint8)]),
            "uint8, which cannot hold the padding -100",
        ),
        (lambda: pad(0.5)([[1], [1, 2]]), "int64, which cannot hold the padding 0.5"),
        (lambda: pad()([np.zeros((2, 2)), np.zeros(2)]), "arrays of [1, 2] axes"),
        (lambda: pad(mask=True)([{"x": [1], "x_mask": 1}]), "have the key 'x_mask' already"),
        (lambda: pad(keys="y")([{"x": [1], "y": 1}, {"x": [1, 2], "y": 2}]), "equally long"),
        (lambda: pad(keys="y")([{"x": [1]}, {"x": [1, 2]}]), "pad has keys for ['y'], but the samples have the keys"),
        (lambda: pad({"y": 1})([({"x": [1]}, 2), ({"x": [1, 2]}, 3)]), "pad has value for ['y']"),
        (lambda: pad(1e300)([np.zeros(2, np.float32), np.zeros(1, np.float32)]), "cannot hold the padding 1e+300"),
        (lambda: pad(1j)([np.zeros(2), np.zeros(1)]), "cannot hold the padding 1j"),
        (lambda: pad()([[[1, 2], [3]], [[1], [2]]]), "lists of lists of different lengths"),
    ],
)
def test_what_cannot_be_padded(wrong: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        wrong()
    assert error in str(raised.value)


def test_batches_of_a_collate_fn() -> None:
    samples = SequenceArray({"x": np.arange(5)}, seed=1)
    ragged = samples.map(lambda row: np.full(int(row["x"]), 1))
    for batches in (ragged.batch(2, collate_fn=pad()), ragged.batch_by([[0, 1], [2, 3], [4]], pad())):
        assert [batch.shape for batch in batches] == [(2, 1), (2, 3), (1, 4)]
    assert isinstance(workers.pad(), type(pad()))


def test_a_padding_that_is_rounded() -> None:
    """To the dtype of the samples."""
    for dtype in (np.float16, np.float32, np.complex64):
        batch = pad(0.1)([np.zeros(2, dtype), np.zeros(1, dtype)])
        assert (batch.dtype, batch[1, 1]) == (dtype, dtype(0.1))
        assert np.isnan(pad(np.nan)([np.zeros(2, dtype), np.zeros(1, dtype)])[1, 1])


def test_what_an_attack_has_found() -> None:
    assert pad(0)([[1, 2], []]).dtype == np.int64
    assert pad(0)([[1, 2], []]).tolist() == [[1, 2], [0, 0]]
    with pytest.raises(ValueError, match="no samples to pad"):
        pad(0)([])
    twice = prefetch(list(range(8)), 0, seed=1).map(lambda number: [number, number])
    with pytest.raises(TypeError, match="returns lists of several samples"):
        list(twice.bucket([1] * 8, batch_size=2))
    endless = prefetch([1, 2, 3], 0).repeat()
    for wrong in (
        lambda: endless.filter(bool, count=True),
        lambda: endless.bucket(int, batch_size=2),
        lambda: endless.weighted([1] * 3),
    ):
        with pytest.raises(TypeError, match="has no end"):
            wrong()
    for wrong in (
        lambda: prefetch([1, 2, 3], 0).split(0.5, by=["a", None, "b"]),
        lambda: prefetch([1, 2, 3], 0).weighted("balanced", labels=["a", None, "b"]),
    ):
        with pytest.raises(ValueError, match="number 1 is None"):
            wrong()
