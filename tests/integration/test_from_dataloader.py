"""What users of ``torch.utils.data.DataLoader`` know, does what its words say, in the workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from workers import SequenceMap, current_job, prefetch


class Samples:
    """A map-style dataset: (dict, label, name)."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < 23:
            raise IndexError(index)
        return {"x": np.full(3, index, np.float32), "at": index}, index % 3, f"sample {index}"


class Torch(Dataset[Any]):
    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> Any:
        return torch.full((3,), float(index)), index


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from ({"x": np.full(3, index)} for index in range(23))


class StreamWithLength(Stream):
    def __len__(self) -> int:
        return 23


def count(samples: Any) -> Any:
    """Returns a list, as torch's default_collate does, which is one batch."""
    assert type(samples) is list
    job = current_job()
    assert job is not None
    return [len(samples), np.array([sample[1] for sample in samples]), job.worker is not None]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("dataset", [Samples(), Torch()], ids=["plain", "torch"])
def test_batches_are_those_of_a_dataloader(dataset: Any, nb_workers: int, drop_last: bool) -> None:
    expected = list(DataLoader(dataset, batch_size=4, drop_last=drop_last))
    with prefetch(dataset, nb_workers, batch_size=4, drop_last=drop_last, output="torch") as batches:
        assert len(batches) == len(expected) == (5 if drop_last else 6)
        for _ in range(2):
            for batch, of_torch in zip(batches, expected, strict=True):
                x, y = batch[0], batch[1]
                if isinstance(dataset, Samples):
                    assert torch.equal(x["x"], of_torch[0]["x"])
                    assert torch.equal(x["at"], of_torch[0]["at"])
                    assert list(batch[2]) == list(of_torch[2])
                else:
                    assert torch.equal(x, of_torch[0])
                assert torch.equal(y, of_torch[1])


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_shuffle_draws_samples_anew_in_each_epoch(nb_workers: int) -> None:
    with prefetch(Torch(), nb_workers, batch_size=4, shuffle=True, seed=1) as batches:
        epochs = [[y.tolist() for _, y in batches] for _ in range(3)]
    flat = [list(itertools.chain(*epoch)) for epoch in epochs]
    assert all(sorted(epoch) == list(range(23)) for epoch in flat)
    assert len({tuple(epoch) for epoch in flat}) == 3
    with prefetch(Torch(), 0, batch_size=4, shuffle=True, seed=1) as batches:
        assert [[y.tolist() for _, y in batches] for _ in range(3)] == epochs


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_collate_fn_runs_where_the_samples_are_made(nb_workers: int) -> None:
    with prefetch(Samples(), nb_workers, batch_size=10, collate_fn=count) as batches:
        assert [batch[0] for batch in batches] == [10, 10, 3]
        assert all(type(batch) is list and batch[2] == (nb_workers > 0) for batch in batches)
    with prefetch(Samples(), nb_workers, collate_fn=lambda sample: [sample[1], sample[1]]) as samples:
        assert [sample[0] for sample in samples] == [index % 3 for index in range(23)]


@pytest.mark.parametrize("nb_workers", [0, 2])
@pytest.mark.parametrize("dataset", [Stream(), StreamWithLength()], ids=["endless", "with length"])
def test_an_iterable_dataset(dataset: Any, nb_workers: int) -> None:
    """Read here, once for all workers: there is nothing to split, so nothing comes twice."""
    with prefetch(dataset, nb_workers) as samples:
        for _ in range(2):
            assert [int(sample["x"][0]) for sample in samples] == list(range(23))
    for drop_last in (False, True):
        with prefetch(dataset, nb_workers, batch_size=4, drop_last=drop_last) as batches:
            for _ in range(2):
                got = [batch["x"][:, 0].tolist() for batch in batches]
                assert list(itertools.chain(*got)) == list(range(20 if drop_last else 23))
                assert {len(batch) for batch in got[:5]} == {4}
            if isinstance(dataset, StreamWithLength):
                assert len(batches) == (5 if drop_last else 6)
            else:
                with pytest.raises(TypeError, match="no length"):
                    len(batches)


@pytest.mark.parametrize("nb_workers", [0, 2])
def test_batches_of_a_map_over_an_iterator(nb_workers: int) -> None:
    """The functions run on samples, in the workers; a state goes on where it was taken."""

    def twice(sample: Any) -> Any:
        return {"x": sample["x"] * 2}

    def front() -> Any:
        return SequenceMap(Stream(), nb_workers, twice, seed=1).batch(4)

    with front() as batches:
        expected = [batch["x"][:, 0].tolist() for batch in batches]
        assert expected[:2] == [[0, 2, 4, 6], [8, 10, 12, 14]]
        iterator = iter(batches)
        next(iterator)
        state = batches.state_dict()
    with front() as batches:
        batches.load_state_dict(state)
        assert [batch["x"][:, 0].tolist() for batch in batches] == expected[1:]
    lists = SequenceMap(Stream(), nb_workers, lambda sample: [sample, sample])
    with (
        lists.batch(4) as batches,
        pytest.raises(TypeError, match=r"wants one sample for each of its items.*8 samples of 4 items"),
    ):
        next(batches)


WITHOUT_INDICES: dict[str, Callable[[], Any]] = {
    "iterable": Stream,
    "with length": StreamWithLength,
    "DataLoader": lambda: DataLoader(Torch(), batch_size=4),
    "iterator": lambda: iter(range(23)),
    "set": lambda: set(range(23)),
}
MADE_OF_IT: dict[str, Callable[[Any], Any]] = {
    "prefetch": lambda source: prefetch(source, 0),
    "auto": prefetch,
    "batch_size": lambda source: prefetch(source, 0, batch_size=4),
    "map": lambda source: SequenceMap(source, 0, str),
    "map of map": lambda source: SequenceMap(SequenceMap(source, 0), 0, str),
    "batch": lambda source: SequenceMap(source, 0).batch(4),
    "collated": lambda source: SequenceMap(source, 0, collate_fn=lambda item, source: item),
}


@pytest.mark.parametrize("name", WITHOUT_INDICES)
def test_what_has_no_indices_is_neither_shuffled_nor_sharded(name: str) -> None:
    """It says so when it is made. Else nothing is shuffled, and each rank gets all of it."""
    make = WITHOUT_INDICES[name]
    of = rf" of a {type(make()).__name__} has no indices, so its items cannot be "
    for batch_size in (None, 4):
        with pytest.raises(TypeError, match=r"items cannot be shuffled: write .shuffle\(window=4096"):
            prefetch(make(), 0, batch_size=batch_size, shuffle=True)
    for made_of_it in MADE_OF_IT.values():
        with made_of_it(make()) as made:
            with pytest.raises(TypeError, match=of + r"shuffled: write .shuffle\(window=4096.* or give something with"):
                made.shuffle()
            with pytest.raises(
                TypeError, match=of + r"sharded.*islice\(items, rank, None, world\).*shard=\(rank, world"
            ):
                made.shard(0, 2)


def test_bad_arguments() -> None:
    for wrong, error, says in [
        ({"drop_last": True}, ValueError, "drop_last=True needs batch_size"),
        ({"batch_size": 0}, ValueError, "batch_size must be an integer >= 1, not 0"),
        ({"batch_size": 2.5}, TypeError, "batch_size must be"),
        ({"batch_size": 2, "collate_fn": 3}, TypeError, "collate_fn must be a function or None, not 3"),
        ({"batch_size": 2, "drop_last": 1}, ValueError, "drop_last must be one of True, False, not 1"),
        ({"nb_worker": 2}, TypeError, "nb_worker"),
        ({"on_error": "skipp"}, ValueError, "on_error must be one of 'raise', 'skip', 'redraw', 'retry', not 'skipp'"),
    ]:
        with pytest.raises(error, match=says):
            prefetch(Samples(), 0, **wrong)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="Stream has no indices, so its items cannot be shuffled"):
        prefetch(Stream(), 0, shuffle=True)
    with pytest.raises(TypeError, match="must have __len__ and __getitem__, or __iter__"):
        prefetch(3, 0, batch_size=2)
